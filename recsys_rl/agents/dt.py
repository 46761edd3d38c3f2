"""Decision transformer (Chen et al. 2021, arXiv:2106.01345) from the decisions of a log.

It learns what the log showed where a return followed, and is then asked for a high return. With G the share
of the possible return that followed the decision, V the share that it asks for, and q a high quantile::

    L = - mean log pi(a | history, G) + vf_coef mean max(q (G - V(s)), (q - 1) (G - V(s)))

The published one gets a return at the start of an episode and subtracts the rewards on the way. A policy here
sees no rewards, so V, a quantile of the returns of the log in this state, decides at each step what to ask
for, as in the elastic decision transformer (Wu et al. 2023, arXiv:2307.02484). What was earned so far is in
the signals of the history. pi(a | s, G) is proportional to P(G | s, a) mu(a | s), so it takes luck for skill:
docs/11_offline.md has a lottery.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from recsys_rl.functional.losses import quantile_loss
from recsys_rl.models.diagnostics import StartValues, StepMeans
from recsys_rl.models.policy import NetworkPolicy
from recsys_rl.models.return_network import ReturnNetwork
from recsys_rl.models.sampled import corrected, shown_among
from recsys_rl.records import LOGGED, Algorithm
from recsys_rl.settings.fields import Positive, Range
from recsys_rl.settings.shared import LoggedConfig
from recsys_rl.types import Transitions


@dataclass(frozen=True)
class DTConfig(LoggedConfig):
    """Decision transformer (Chen et al. 2021, arXiv:2106.01345)."""

    quantile: Annotated[float, Range(above=0, below=1)] = 0.9
    """The policy asks for the return that this share of the log's sessions stays below from here on."""
    vf_coef: Positive = 0.5
    """Weight of the loss of that return."""


class DT(NetworkPolicy[DTConfig]):
    """An actor that is asked for a return."""

    model: ReturnNetwork

    def update(self, batch: Transitions) -> dict[str, float]:
        """A gradient step for each ``batch_size`` decisions. Returns the means over these steps."""
        self.anneal_lr()
        averages = StepMeans()
        starts = StartValues()
        for minibatch in batch.split(self.config.batch_size):
            share = share_of_possible(minibatch)  # (B,)
            obs, weights = shown_among(self.model, minibatch.obs, minibatch.items, self.generators["policy"])
            distribution, asked = corrected(self.model.given(obs, share), weights), self.model.value(obs)
            clone_loss = -distribution.logprob(obs.places_of(minibatch.items)).mean()
            loss = clone_loss + self.config.vf_coef * quantile_loss(share - asked, self.config.quantile)
            self.optimizer.zero_grad()
            (loss + self.reward_loss(minibatch, obs)).backward()
            self.optimizer.step()
            starts.add(minibatch, lambda rows: possible_at(rows, self.value(rows.obs)))
            averages.add(loss=loss, clone_loss=clone_loss, asked_share=asked.mean())
        self.updates += 1
        return averages.means() | starts.means() | {"lr": self.optimizer.lr}


def share_of_possible(batch: Transitions) -> Tensor:
    """(B,) in 0 .. 1: the return that followed each decision, from the least possible to the largest."""
    assert batch.returns_to_go is not None and batch.possible is not None
    low, high = batch.possible.unbind(1)
    return ((batch.returns_to_go - low) / (high - low).clamp_min(1e-8)).clamp(0, 1)


def possible_at(batch: Transitions, share: Tensor) -> Tensor:
    """The inverse of ``share_of_possible``: returns (B,)."""
    assert batch.possible is not None
    low, high = batch.possible.unbind(1)
    return low + share * (high - low)


ALGORITHM = Algorithm(DTConfig, DT, LOGGED, ReturnNetwork, needs=("rewards", "steps"))
