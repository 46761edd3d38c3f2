"""Tianshou on our batched `drift`.

Its collector asks for a vector environment by duck type, so whole batches go in and out. What the
library itself does per user stays: its collector makes and reads one info dict for each, and its
buffer keeps one part for each and adds to them one by one. Collector and algorithm are called as its
trainer calls them, without the trainer's log and tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.utils.net.common import Net
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic, dist_fn_categorical_from_logits
from tianshou.utils.torch_utils import policy_within_training_step
from torch import Tensor, nn

from benchmarks.harness.settings import HIDDEN, Between, Settings
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.types import Obs


class BatchedDrift:
    """Our RecEnv as what the collector calls. It asks to reset finished rows, which are fresh by then."""

    is_async = False

    def __init__(self, env: RecEnv) -> None:
        self.env = env
        self.action_space = [spaces.Discrete(env.catalogue.num_items)] * env.num_envs
        self.obs: Obs

    def __len__(self) -> int:
        return self.env.num_envs

    def reset(self, env_id: Any = None) -> tuple[Any, Any]:
        if env_id is None:
            self.obs = self.env.reset()
            env_id = np.arange(len(self))
        return self.obs.context.numpy()[env_id], _infos(len(env_id))

    def step(self, action: Any, ids: Any) -> tuple[Any, ...]:
        step = self.env.step(torch.from_numpy(np.asarray(action, np.int64)).unsqueeze(-1))
        self.obs = step.obs
        return (
            step.final_obs.context.numpy(),
            step.reward.numpy(),
            step.terminated.numpy(),
            step.truncated.numpy(),
            _infos(len(ids)),
        )

    def close(self) -> None:
        pass


def _infos(n: int) -> Any:
    return np.array([{} for _ in range(n)], dtype=object)


def train(env: RecEnv, settings: Settings, seed: int, between: Between) -> None:
    torch.manual_seed(seed)  # it draws from the global generators
    np.random.seed(seed)  # noqa: NPY002
    activation = {"tanh": nn.Tanh, "relu": nn.ReLU}[settings.activation]

    def net() -> Net:
        return Net(state_shape=(env.interface.context_size,), hidden_sizes=HIDDEN, activation=activation)

    actor = DiscreteActor(preprocess_net=net(), action_shape=(env.catalogue.num_items,), softmax_output=False)
    critic = DiscreteCritic(preprocess_net=net())
    for module in [*actor.modules(), *critic.modules()]:  # as in its own example of PPO
        if isinstance(module, nn.Linear):
            nn.init.orthogonal_(module.weight)
            nn.init.zeros_(module.bias)
    venv = BatchedDrift(env)
    policy = DiscreteActorPolicy(
        actor=actor, dist_fn=dist_fn_categorical_from_logits, action_space=venv.action_space[0]
    )
    algorithm = PPO(
        policy=policy,
        critic=critic,
        optim=AdamOptimizerFactory(lr=settings.ppo.lr),
        eps_clip=settings.ppo.clip_eps,
        advantage_normalization=settings.ppo.normalize_advantage,
        vf_coef=settings.ppo.vf_coef,
        ent_coef=settings.ppo.ent_coef,
        max_grad_norm=settings.ppo.max_grad_norm,
        gae_lambda=settings.ppo.gae_lambda,
        gamma=settings.ppo.gamma,
        max_batchsize=max(256, settings.ppo.batch_size),
    )
    collector = Collector(algorithm, venv, VectorReplayBuffer(settings.per_update, len(venv)))
    collector.reset()

    @torch.no_grad()
    def act(context: Tensor, greedy: bool) -> Tensor:
        logits: Tensor = actor(context)[0]
        return logits.argmax(-1) if greedy else torch.distributions.Categorical(logits=logits).sample()

    for update in range(settings.num_updates):
        if not between(act):
            return
        remaining = settings.remaining(update * settings.per_update)
        algorithm.ent_coef, algorithm.eps_clip = settings.ent_coef(remaining), settings.clip_eps(remaining)
        for group in algorithm.optim._optim.param_groups:
            group["lr"] = settings.lr(remaining)
        with policy_within_training_step(policy):
            collector.collect(n_step=settings.per_update)
            algorithm.update(collector.buffer, settings.ppo.batch_size, settings.ppo.update_epochs)
        collector.reset_buffer(keep_statistics=True)
    between(act)
