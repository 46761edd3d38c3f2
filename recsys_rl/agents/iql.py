"""Implicit Q-learning (Kostrikov et al. 2021, arXiv:2110.06169) from the decisions of a log.

It never asks for the value of an item that the log does not hold. V(s) is a high expectile of Q(s, a) over
the items that the log shows in s; it takes the place of the maximum. With Q' the target network of Q and
A = Q'(s, a) - V(s)::

    L_V  = mean |tau - 1(A < 0)| A^2
    L_Q  = mean (Q(s, a) - r - g V(s'))^2 / 2
    L_pi = - mean min(exp(beta A / std(A)), largest) log pi(a | s)

The policy is cloned from the log, with more weight on better items. Its critic is V; Q has its own weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from recsys_rl.functional.losses import advantage_weights, expectile_loss, value_loss
from recsys_rl.models.diagnostics import StartValues, StepMeans
from recsys_rl.models.policy import NetworkPolicy
from recsys_rl.models.q_learner import check_single_items, targets_of
from recsys_rl.models.q_network import QNetwork, QualityActorCritic
from recsys_rl.models.sampled import corrected, shown_among
from recsys_rl.models.target_network import copied, follow, load_target, target_state
from recsys_rl.records import LOGGED, Algorithm
from recsys_rl.settings.fields import NonNegative, Positive, Range
from recsys_rl.settings.shared import LoggedConfig, TargetConfig
from recsys_rl.types import Obs, Transitions


@dataclass(frozen=True)
class IQLConfig(TargetConfig, LoggedConfig):
    """Implicit Q-learning (Kostrikov et al. 2021, arXiv:2110.06169)."""

    expectile: Annotated[float, Range(above=0, below=1)] = 0.7
    """The value of a state is this expectile over the logged items: 0.5 is their mean, near 1 the best."""
    beta: NonNegative = 3.0
    """Weights of decisions are exp(beta A), with advantages A divided by their spread; 0 is cloning."""
    largest_weight: Positive = 100.0
    """Largest weight of a decision."""


class IQL(NetworkPolicy[IQLConfig]):
    """An actor cloned from the better decisions of a log; its critic is V."""

    model: QualityActorCritic

    def __init__(
        self,
        model: QualityActorCritic,
        config: IQLConfig,
        num_updates: int,
        generators: Mapping[str, torch.Generator],
        average: Callable[[Tensor], None] | None = None,
    ) -> None:
        """As NetworkPolicy. Raises UserError for actions of several positions."""
        check_single_items(model.shapes, "iql")
        super().__init__(model, config, num_updates, generators, average)
        self.target = copied(model.quality)

    def update(self, batch: Transitions) -> dict[str, float]:
        """A gradient step for each ``batch_size`` decisions. Returns the means over these steps."""
        self.anneal_lr()
        config = self.config
        averages = StepMeans()
        starts = StartValues()
        for minibatch in batch.split(config.batch_size):
            obs, log_weights = shown_among(
                self.model, minibatch.obs, minibatch.items, self.generators["policy"]
            )
            target = self.targets(minibatch)  # (B,)
            with torch.no_grad():
                judged = quality(self.target, minibatch.obs, minibatch.items)  # (B,)
            distribution, value = self.model(obs)
            advantage = (judged - value).detach()
            weights = advantage_weights(advantage, config.beta, config.largest_weight)  # (B,)
            q = quality(self.model.quality, minibatch.obs, minibatch.items)
            logprob = corrected(distribution, log_weights).logprob(obs.places_of(minibatch.items))  # (B,)
            clone_loss = -(weights * logprob).mean()
            loss = expectile_loss(judged - value, config.expectile) + value_loss(q, target) + clone_loss
            self.optimizer.zero_grad()
            (loss + self.reward_loss(minibatch, obs)).backward()
            self.optimizer.step()
            follow(self.target, list(self.model.quality.parameters()), config.tau)
            starts.add(minibatch, lambda rows: self.value(rows.obs))
            means = {"q_mean": q.mean(), "target_mean": target.mean()}
            averages.add(
                loss=loss, clone_loss=clone_loss, **means, largest_share=weights.amax() / weights.sum()
            )
        self.updates += 1
        return averages.means() | starts.means() | {"lr": self.optimizer.lr}

    @torch.no_grad()
    def targets(self, batch: Transitions) -> Tensor:
        """The targets r + g V(s') (B,), within what is possible."""
        value = self.model.value(batch.next_obs)  # (B,)
        return targets_of(batch, value, self.config)

    def state_dict(self) -> dict[str, Tensor]:
        """Weights of all networks, optimiser and count of updates, on the CPU."""
        return super().state_dict() | target_state(self.target)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of ``state_dict``. Raises KeyError, RuntimeError or ValueError if it doesn't fit."""
        super().load_state_dict(state)
        load_target(self.target, state, self.model.quality, trained=self.updates > 0)


def quality(network: QNetwork, obs: Obs, items: Tensor) -> Tensor:
    """Q (B,) of the ``items`` (B, 1) alone: no other is scored."""
    return network.q(obs.among(items)).squeeze(1)


ALGORITHM = Algorithm(IQLConfig, IQL, LOGGED, QualityActorCritic, needs=("rewards", "single items"))
