"""A new algorithm in one file: REINFORCE with the mean return of the batch as its baseline.

    python examples/new_agent.py

The record ALGORITHM holds its settings and its learner. The commands accept it by name:

    cd examples
    recsys-rl train --algo new_agent:ALGORITHM --env satiation --data synthetic --clip-advantage 2
    recsys-rl evaluate --algo new_agent:ALGORITHM
    recsys-rl serve --algo new_agent:ALGORITHM --checkpoint checkpoints/new_agent-ALGORITHM.pt

With the returns R of a batch of B steps (Williams 1992, "Simple statistical gradient-following algorithms"):

    A     = clip((R - mean R) / std R, -clip_advantage, clip_advantage)
    loss  = - mean(A log pi(a | s)) - ent_coef H + vf_coef mean((V - R)^2) / 2

The value V is no baseline here. It continues sessions that the end of a rollout cuts off.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from recsys_rl.functional import losses
from recsys_rl.functional.returns import standardize
from recsys_rl.models.policy import OnPolicyLearner
from recsys_rl.records import Algorithm
from recsys_rl.settings.fields import Positive
from recsys_rl.settings.shared import OnPolicyConfig
from recsys_rl.training.train import train
from recsys_rl.types import Rollout


@dataclass(frozen=True)
class SteadyConfig(OnPolicyConfig):
    """REINFORCE with clipped advantages. Each field is an option, with its range and its help."""

    clip_advantage: Positive = 3.0
    """Advantages are clipped to this many standard deviations of the batch."""


class Steady(OnPolicyLearner[SteadyConfig]):
    """A policy that takes one gradient step on each rollout."""

    def update(self, rollout: Rollout) -> dict[str, float]:
        """One gradient step. Returns its diagnostics, read from the device once at the end."""
        config, ent_coef = self.config, self.anneal()
        every = self.samples(rollout)
        batch = every.rows(torch.arange(len(every.places), device=every.places.device))  # B = T N
        returns, limit = batch.targets.returns, config.clip_advantage
        advantage = standardize(returns).clamp(-limit, limit)  # (B,)

        distribution, value, beside = self.model.learn(batch.obs, batch.lessons)
        logprob, entropies = distribution.evaluate(batch.places)  # (B,) each
        policy_loss = losses.policy_gradient(logprob, advantage)
        value_loss, entropy = losses.value_loss(value, returns), entropies.mean()
        loss = policy_loss - ent_coef * entropy + config.vf_coef * value_loss
        if beside is not None:  # what the network learns beside its policy
            loss = loss + beside.loss
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.updates += 1

        metrics = {"loss": loss, "policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
        values = torch.stack(list(metrics.values())).tolist()
        return dict(zip(metrics, values, strict=True)) | {"lr": self.optimizer.lr}


ALGORITHM = Algorithm(SteadyConfig, Steady)


def main(total_timesteps: int = 50_000) -> Path:
    """Train; the checkpoint."""
    return train(
        algo="new_agent:ALGORITHM", env="satiation", data="synthetic", total_timesteps=total_timesteps
    )


if __name__ == "__main__":
    main()
