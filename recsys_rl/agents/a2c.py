"""Advantage actor-critic, synchronous (Mnih et al. 2016, arXiv:1602.01783), top to bottom.

docs/04_theory_a2c.md derives each formula. N users are stepped together for n_steps. The rollout serves one
gradient step and is then thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from recsys_rl.functional import losses
from recsys_rl.functional.returns import explained_variance, standardize
from recsys_rl.models.policy import OnPolicyLearner
from recsys_rl.records import Algorithm
from recsys_rl.settings.fields import Size
from recsys_rl.settings.shared import OnPolicyConfig
from recsys_rl.types import Rollout


@dataclass(frozen=True)
class A2CConfig(OnPolicyConfig):
    """Advantage actor-critic (Mnih et al. 2016, arXiv:1602.01783), synchronous."""

    n_steps: Size = 8
    """Steps of a rollout for each user."""
    num_envs: Size = 32
    """Users stepped together."""


class A2C(OnPolicyLearner[A2CConfig]):
    """An actor-critic that takes one gradient step on each rollout."""

    def update(self, rollout: Rollout) -> dict[str, float]:
        """One gradient step. Returns its diagnostics, read from the device once at the end."""
        config, ent_coef = self.config, self.anneal()
        every = self.samples(rollout)
        batch = every.rows(torch.arange(len(every.places), device=every.places.device))  # B = T N
        returns, advantage = batch.targets.returns, batch.targets.advantage  # (B,) each
        if config.normalize_advantage:
            advantage = standardize(advantage)

        distribution, value, beside = self.model.learn(batch.obs, batch.lessons)
        logprob, entropies = distribution.evaluate(batch.places)  # (B,) each
        policy_loss = losses.policy_gradient(logprob, advantage)
        value_loss = losses.value_loss(value, returns)
        entropy = entropies.mean()
        loss = policy_loss - ent_coef * entropy + config.vf_coef * value_loss
        metrics = {
            "loss": loss,
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "explained_variance": explained_variance(batch.targets.old_value, returns),
        }
        if beside is not None:
            metrics |= beside.figures
            loss = loss + beside.loss
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.updates += 1

        values = torch.stack(list(metrics.values())).tolist()
        return dict(zip(metrics, values, strict=True)) | {"lr": self.optimizer.lr}


ALGORITHM = Algorithm(A2CConfig, A2C)
