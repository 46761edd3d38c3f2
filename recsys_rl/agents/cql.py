"""Conservative Q-learning (Kumar et al. 2020, arXiv:2006.04779) from the decisions of a log.

Double Q-learning believes every value, also of items that the log hardly shows. A penalty pushes the values
of all items down and the value of the logged item up. With y the target of models/q_learner.py::

    L = mean (Q(s, a) - y)^2 / 2 + alpha mean (log sum_b exp Q(s, b) - Q(s, a))

The sum is over the items that could be shown. An item that the log shows with probability mu ends at
y - alpha (softmax(Q) / mu - 1): the rarer it is, the lower its value. docs/11_offline.md derives it.
"""

from __future__ import annotations

from dataclasses import dataclass

from recsys_rl.functional.losses import conservative, value_loss
from recsys_rl.models.diagnostics import StartValues, StepMeans
from recsys_rl.models.q_learner import QLearner
from recsys_rl.models.q_network import QNetwork
from recsys_rl.models.sampled import shown_among
from recsys_rl.records import LOGGED, Algorithm
from recsys_rl.settings.fields import NonNegative
from recsys_rl.settings.shared import LoggedConfig, QConfig
from recsys_rl.types import Transitions


@dataclass(frozen=True)
class CQLConfig(QConfig, LoggedConfig):
    """Conservative Q-learning (Kumar et al. 2020, arXiv:2006.04779)."""

    alpha: NonNegative = 0.5
    """Weight of the penalty, in units of return; 0 is double Q-learning."""


class CQL(QLearner[CQLConfig]):
    """A Q-network that mistrusts what its log hardly shows."""

    def update(self, batch: Transitions) -> dict[str, float]:
        """A gradient step for each ``batch_size`` decisions. Returns the means over these steps."""
        self.anneal_lr()
        averages = StepMeans()
        starts = StartValues()
        for minibatch in batch.split(self.config.batch_size):
            target = self.targets(minibatch)  # (B,)
            obs, weights = shown_among(self.model, minibatch.obs, minibatch.items, self.generators["policy"])
            q, shown, q_shown = self.q_of(obs, minibatch.items)
            penalty = conservative(q if weights is None else q + weights, shown)
            loss = value_loss(q_shown, target) + self.config.alpha * penalty
            self.step(loss + self.reward_loss(minibatch, obs))
            starts.add(minibatch, lambda rows: self.value(self.propose(rows.obs, greedy=True)))
            averages.add(loss=loss, penalty=penalty, q_mean=q_shown.mean(), target_mean=target.mean())
        self.updates += 1
        return averages.means() | starts.means() | {"lr": self.optimizer.lr}


ALGORITHM = Algorithm(CQLConfig, CQL, LOGGED, QNetwork, needs=("rewards", "single items"))
