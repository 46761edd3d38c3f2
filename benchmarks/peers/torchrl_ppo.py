"""TorchRL on our batched `drift`.

The environment is an EnvBase of batch size N, so tensors go in and out with no loop over users. Its
collector, replay buffer, GAE and clipped loss are put together as in its own PPO scripts, but for one
thing in its favour: advantages are computed once an update, not once an epoch.
"""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.collectors import Collector
from torchrl.data import Categorical, Composite, LazyTensorStorage, TensorDictReplayBuffer, Unbounded
from torchrl.data.replay_buffers.samplers import SamplerWithoutReplacement
from torchrl.envs import EnvBase
from torchrl.modules import MLP, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from benchmarks.harness.settings import HIDDEN, Between, Settings
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.types import Obs


class BatchedDrift(EnvBase):  # type: ignore[misc]
    """Our RecEnv as an EnvBase, which asks for the reset of finished rows: they are fresh by then."""

    def __init__(self, env: RecEnv) -> None:
        n = env.num_envs
        super().__init__(device="cpu", batch_size=torch.Size([n]))
        self.env = env
        self.obs: Obs | None = None
        self.observation_spec = Composite(observation=Unbounded((n, env.interface.context_size)), shape=(n,))
        self.action_spec = Categorical(env.catalogue.num_items, shape=(n,))
        self.reward_spec = Unbounded((n, 1))

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        if self.obs is None or tensordict is None or tensordict.get("_reset", None) is None:
            self.obs = self.env.reset()
        done = torch.zeros(self.env.num_envs, 1, dtype=torch.bool)
        state = {"observation": self.obs.context, "done": done, "terminated": done.clone()}
        return TensorDict(state | {"truncated": done.clone()}, self.batch_size)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        step = self.env.step(tensordict["action"].unsqueeze(-1))
        self.obs = step.obs
        return TensorDict(
            {
                "observation": step.final_obs.context,
                "reward": step.reward.unsqueeze(-1),
                "terminated": step.terminated.unsqueeze(-1),
                "truncated": step.truncated.unsqueeze(-1),
                "done": (step.terminated | step.truncated).unsqueeze(-1),
            },
            self.batch_size,
        )

    def _set_seed(self, seed: int | None) -> None:
        pass


def train(env: RecEnv, settings: Settings, seed: int, between: Between) -> None:
    torch.manual_seed(seed)  # it draws from the global generator
    activation = {"tanh": nn.Tanh, "relu": nn.ReLU}[settings.activation]
    shape: dict[str, Any] = {"num_cells": list(HIDDEN), "activation_class": activation}
    logits_of = MLP(env.interface.context_size, env.catalogue.num_items, **shape)
    actor = ProbabilisticActor(
        TensorDictModule(logits_of, ["observation"], ["logits"]),
        in_keys=["logits"],
        distribution_class=torch.distributions.Categorical,
        return_log_prob=True,
    )
    critic = ValueOperator(MLP(env.interface.context_size, 1, **shape), in_keys=["observation"])
    collector = Collector(
        BatchedDrift(env), actor, frames_per_batch=settings.per_update, total_frames=-1, device="cpu"
    )
    advantage = GAE(
        gamma=settings.ppo.gamma, lmbda=settings.ppo.gae_lambda, value_network=critic, average_gae=False
    )
    loss_of = ClipPPOLoss(
        actor,
        critic,
        clip_epsilon=settings.ppo.clip_eps,
        entropy_coeff=settings.ppo.ent_coef,
        critic_coeff=settings.ppo.vf_coef,
        loss_critic_type="l2",
        normalize_advantage=settings.ppo.normalize_advantage,
    )
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(settings.per_update),
        sampler=SamplerWithoutReplacement(),
        batch_size=settings.ppo.batch_size,
    )
    optimizer = torch.optim.Adam(loss_of.parameters(), lr=settings.ppo.lr)

    @torch.no_grad()
    def act(context: Tensor, greedy: bool) -> Tensor:
        logits: Tensor = logits_of(context)
        return logits.argmax(-1) if greedy else torch.distributions.Categorical(logits=logits).sample()

    rollouts = iter(collector)
    for update in range(settings.num_updates):
        if not between(act):
            break
        remaining = settings.remaining(update * settings.per_update)
        optimizer.param_groups[0]["lr"] = settings.lr(remaining)
        loss_of.entropy_coeff.fill_(settings.ent_coef(remaining))
        loss_of.clip_epsilon.fill_(settings.clip_eps(remaining))
        with torch.no_grad():
            data = advantage(next(rollouts))
        buffer.extend(data.reshape(-1))
        for _ in range(settings.ppo.update_epochs):
            for batch in buffer:  # once through without replacement
                losses = loss_of(batch)
                optimizer.zero_grad()
                (losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]).backward()
                nn.utils.clip_grad_norm_(loss_of.parameters(), settings.ppo.max_grad_norm)
                optimizer.step()
        collector.update_policy_weights_()
    else:
        between(act)
    collector.shutdown()
