"""Behaviour cloning: the policy that makes the decisions of a log most likely (Pomerleau 1991).

With the decisions (s, a) of a log, the loss is the cross-entropy::

    L = - mean log pi(a | s)

The cloned policy draws as the logger did. Its most probable items are often better than that, as the mistakes
of a logger that explores differ from one session to the next, and what it prefers does not. With
``best_sessions`` it is cloned from the sessions with the highest return alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from recsys_rl.models.diagnostics import StepMeans
from recsys_rl.models.policy import NetworkPolicy
from recsys_rl.models.sampled import corrected, shown_among
from recsys_rl.records import LOGGED, Algorithm
from recsys_rl.settings.fields import Range
from recsys_rl.settings.shared import LoggedConfig
from recsys_rl.types import Transitions


@dataclass(frozen=True)
class BCConfig(LoggedConfig):
    """Behaviour cloning (Pomerleau 1991, Neural Computation 3(1))."""

    best_sessions: Annotated[float, Range(above=0, high=1)] = 1.0
    """Learn from this share of the log's sessions, those with the highest return."""


class BC(NetworkPolicy[BCConfig]):
    """An actor that learns to repeat the decisions of a log."""

    def update(self, batch: Transitions) -> dict[str, float]:
        """A gradient step for each ``batch_size`` decisions. Returns the means over these steps."""
        self.anneal_lr()
        averages = StepMeans()
        for minibatch in batch.split(self.config.batch_size):
            obs, weights = shown_among(self.model, minibatch.obs, minibatch.items, self.generators["policy"])
            distribution = corrected(self.model(obs)[0], weights)
            logprob, entropy = distribution.evaluate(obs.places_of(minibatch.items))  # (B,) each
            loss = -logprob.mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            averages.add(loss=loss, entropy=entropy.mean())
        self.updates += 1
        return averages.means() | {"lr": self.optimizer.lr}


ALGORITHM = Algorithm(BCConfig, BC, LOGGED)
