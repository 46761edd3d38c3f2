"""Advantage actor-critic, synchronous (Mnih et al. 2016, arXiv:1602.01783), top to bottom.

docs/04_theory_a2c.md derives each formula. N users are stepped together for n_steps. The rollout serves one
gradient step and is then thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from recsys_rl.dials import OnPolicyConfig
from recsys_rl.functional import losses
from recsys_rl.functional.returns import explained_variance, gae, standardize
from recsys_rl.models.next_signals import next_entries
from recsys_rl.models.policy import NetworkPolicy
from recsys_rl.protocols import Algorithm
from recsys_rl.schema import Size
from recsys_rl.types import Rollout


@dataclass(frozen=True)
class A2CConfig(OnPolicyConfig):
    """Advantage actor-critic (Mnih et al. 2016, arXiv:1602.01783), synchronous."""

    n_steps: Size = 8
    """Steps of a rollout for each user."""
    num_envs: Size = 32
    """Users stepped together."""


class A2C(NetworkPolicy[A2CConfig]):
    """An actor-critic that takes one gradient step on each rollout."""

    def update(self, rollout: Rollout) -> dict[str, float]:
        """One gradient step. Returns its diagnostics, read from the device once at the end."""
        config = self.config
        remaining = self.remaining
        self.optimizer.lr = config.lr * (remaining if config.anneal_lr else 1)
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
            rollout.discounts,
        )  # (T, N)
        returns = (advantages + rollout.values).flatten()  # (B,), B = T N from here on
        advantage = advantages.flatten()
        if config.normalize_advantage:
            advantage = standardize(advantage)

        obs = self.model.summarised(rollout.obs.map(lambda x: x.flatten(0, 1).clone()))
        places = obs.places_of(rollout.items.flatten(0, 1).clone())  # (B, K)
        distribution, value = self.model(obs)
        logprob, entropies = distribution.evaluate(places)  # (B,) each
        policy_loss = losses.policy_gradient(logprob, advantage)
        value_loss = losses.value_loss(value, returns)
        entropy = entropies.mean()
        loss = policy_loss - ent_coef * entropy + config.vf_coef * value_loss
        metrics = {"loss": loss}
        if self.model.next_signals is not None:
            metrics["signal_loss"] = self.model.signal_loss(obs, next_entries(rollout.obs, done))
            loss = loss + self.model.signal_coef * metrics["signal_loss"]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.updates += 1

        metrics |= {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "explained_variance": explained_variance(rollout.values.flatten(), returns),
        }
        values = torch.stack(list(metrics.values())).tolist()
        return dict(zip(metrics, values, strict=True)) | {"lr": self.optimizer.lr}


ALGORITHM = Algorithm(A2CConfig, A2C)
