"""Batch-constrained Q-learning for single items (Fujimoto et al. 2019, arXiv:1910.01708) from a log.

The maximum of Q-learning is taken only over items that the log might hold. A clone G of the log's behaviour
says which these are::

    likely(s) = {a : G(a | s) >= threshold max_b G(b | s)}
    a*        = argmax of Q(s', a; theta) over likely(s')        y = r + g Q(s', a*; theta')
    L         = mean (Q(s, a) - y)^2 / 2 - mean log G(a | s)

The policy shows the best likely item. Threshold 0 is double Q-learning, and 1 shows what G finds most
probable. G and Q have weights of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.functional.losses import value_loss
from recsys_rl.models.diagnostics import StartValues, StepMeans
from recsys_rl.models.q_learner import QLearner
from recsys_rl.models.q_network import ConstrainedQNetwork
from recsys_rl.models.sampled import corrected, shown_among
from recsys_rl.records import LOGGED, Algorithm
from recsys_rl.settings.fields import Share
from recsys_rl.settings.shared import LoggedConfig, QConfig
from recsys_rl.types import Transitions


@dataclass(frozen=True)
class BCQConfig(QConfig, LoggedConfig):
    """Batch-constrained Q-learning (Fujimoto et al. 2019, arXiv:1910.01708)."""

    threshold: Share = 0.3
    """An item may be chosen if its estimated probability in the log is at least this share of the largest
    one."""


class BCQ(QLearner[BCQConfig]):
    """A Q-network that chooses among the items that its log might show."""

    model: ConstrainedQNetwork

    def __init__(
        self,
        model: ConstrainedQNetwork,
        config: BCQConfig,
        num_updates: int,
        generators: Mapping[str, torch.Generator],
        average: Callable[[Tensor], None] | None = None,
    ) -> None:
        """As QLearner."""
        super().__init__(model, config, num_updates, generators, average)
        model.threshold = config.threshold

    def update(self, batch: Transitions) -> dict[str, float]:
        """A gradient step for each ``batch_size`` decisions. Returns the means over these steps."""
        self.anneal_lr()
        averages = StepMeans()
        starts = StartValues()
        for minibatch in batch.split(self.config.batch_size):
            target = self.targets(minibatch)  # (B,)
            obs, weights = shown_among(self.model, minibatch.obs, minibatch.items, self.generators["policy"])
            q_shown = self.q_of(obs, minibatch.items)[2]  # (B,)
            clone = corrected(self.model.behaviour_of(obs), weights)
            clone_loss = -clone.logprob(obs.places_of(minibatch.items)).mean()
            loss = value_loss(q_shown, target) + clone_loss
            self.step(loss + self.reward_loss(minibatch, obs))
            starts.add(minibatch, lambda rows: self.value(self.propose(rows.obs, greedy=True)))
            averages.add(loss=loss, clone_loss=clone_loss, q_mean=q_shown.mean(), target_mean=target.mean())
        self.updates += 1
        return averages.means() | starts.means() | {"lr": self.optimizer.lr}


ALGORITHM = Algorithm(BCQConfig, BCQ, LOGGED, ConstrainedQNetwork, needs=("rewards", "single items"))
