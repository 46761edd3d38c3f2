"""Advantage actor-critic, synchronous (Mnih et al. 2016, arXiv:1602.01783), top to bottom.

docs/04_theory_a2c.md derives each formula. N users are stepped together for n_steps; one gradient
step is taken on all of it, and the record is thrown away.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from recsys_rl.config import A2CConfig
from recsys_rl.functional import choice, losses
from recsys_rl.functional.returns import explained_variance, gae
from recsys_rl.models.actor_critic import ActorCritic
from recsys_rl.models.state import pack, unpack
from recsys_rl.types import Action, Obs, Rollout


class A2C:
    """An actor-critic that takes one gradient step on each rollout."""

    def __init__(
        self,
        model: ActorCritic,
        config: A2CConfig,
        num_updates: int,
        generators: Mapping[str, torch.Generator],
    ) -> None:
        """``num_updates`` is the length of the run, over which dials are annealed.

        ``generators`` holds the stream "policy" (actions).
        """
        self.model = model
        self.config = config
        self.num_updates = num_updates
        self.generators = generators
        self.optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, eps=1e-5)
        self.updates = 0

    @torch.inference_mode()
    def act(self, obs: Obs, greedy: bool = False) -> Action:
        obs = self.model.propose(obs, greedy, self.generators["policy"])
        logits, value = self.model(obs)  # (N, K, A), (N,)
        index = logits.argmax(-1) if greedy else choice.sample(logits, self.generators["policy"])  # (N, K)
        return Action(obs.items_at(index), choice.logprob(logits, index).sum(-1), value, obs.candidates)

    @torch.inference_mode()
    def value(self, obs: Obs) -> Tensor:
        return self.model.value(obs)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """One gradient step. Returns its diagnostics, read from the device once at the end."""
        config = self.config
        remaining = 1 - self.updates / self.num_updates  # 1 at the first update, towards 0 at the last
        self.optimizer.param_groups[0]["lr"] = config.lr * (remaining if config.anneal_lr else 1)
        ent_coef = config.ent_coef * (remaining if config.anneal_ent else 1)

        done = rollout.terminated | rollout.truncated
        advantages = gae(
            rollout.rewards,
            rollout.values,
            rollout.next_values,
            rollout.terminated if config.bootstrap_time_limit else done,
            done,
            config.gamma,
            config.gae_lambda,
        )  # (T, N)
        returns = (advantages + rollout.values).flatten()  # (B,), B = T N from here on
        advantage = advantages.flatten()
        if config.normalize_advantage:
            advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)

        obs = rollout.obs.map(lambda x: x.flatten(0, 1).clone())
        logits, value = self.model(obs)
        index = obs.places_of(rollout.items.flatten(0, 1).clone())  # (B, K)
        logprob = choice.logprob(logits, index).sum(-1)  # (B,)
        policy_loss = losses.policy_gradient(logprob, advantage)
        value_loss = losses.value_loss(value, returns)
        entropy = choice.entropy(logits).sum(-1).mean()
        loss = policy_loss + config.vf_coef * value_loss - ent_coef * entropy

        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), config.max_grad_norm)
        self.optimizer.step()
        self.updates += 1

        explained = explained_variance(rollout.values.flatten(), returns)
        names = ("loss", "policy_loss", "value_loss", "entropy", "explained_variance")
        values = torch.stack([loss, policy_loss, value_loss, entropy, explained]).tolist()
        return dict(zip(names, values, strict=True)) | {"lr": self.optimizer.param_groups[0]["lr"]}

    def state_dict(self) -> dict[str, Tensor]:
        return pack(self.model, self.optimizer) | {"updates": torch.tensor(self.updates)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        unpack(state, self.model, self.optimizer)
        self.updates = int(state["updates"])
