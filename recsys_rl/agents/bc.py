"""Behaviour cloning: the policy that makes the decisions of a log most likely (Pomerleau 1991).

With the decisions (s, a) of a log, the loss is the cross-entropy::

    L = - mean log pi(a | s)

The cloned policy draws as the logger did. Its most probable items are often better than that, as the mistakes
of a logger that explores differ from one session to the next, and what it prefers does not. With
``best_sessions`` it is cloned from the sessions with the highest return alone.

With ``weighted`` each decision counts by what followed it and by how rarely the logger makes it: the weighted
log-likelihood of Aouali and Sakhi (2025, arXiv:2509.03456). With mu the logged propensity and G the return
that followed the decision (its reward, where a session is one decision)::

    L = - mean w log pi(a | s)        w = G min(1 / mu, CAP)

Without the cap, the best pi(a | s) is E[G | s, a] / sum_b E[G | s, b], whatever the logger preferred: the
most probable item is the one with the highest return. Unlike the objective of a policy gradient, L is convex
in the logits. Where a G is negative it has no minimum, so such a log is refused.

A slate of which each place has a reward is learned by place: with r_k that of place k, mu_k and pi_k the
probabilities of its item given those above it, and G - sum_j r_j what followed the slate::

    L = - mean sum_k w_k log pi_k        w_k = (r_k + G - sum_j r_j) min(1 / mu_k, CAP)

Such a policy would show an item in proportion to what it pays, which is far from the best list. So it draws
by the order of the items (plackett_luce.by_rank).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from recsys_rl.functional.plackett_luce import PlackettLuce
from recsys_rl.models.diagnostics import StepMeans
from recsys_rl.models.policy import NetworkPolicy
from recsys_rl.models.sampled import corrected, shown_among
from recsys_rl.records import LOGGED, Algorithm
from recsys_rl.settings.fields import Range
from recsys_rl.settings.shared import LoggedConfig, Need
from recsys_rl.types import Transitions

CAP = 100.0
"""Largest inverse of a propensity in the weights."""


@dataclass(frozen=True)
class BCConfig(LoggedConfig):
    """Behaviour cloning (Pomerleau 1991, Neural Computation 3(1))."""

    best_sessions: Annotated[float, Range(above=0, high=1)] = 1.0
    """Learn from this share of the log's sessions, those with the highest return."""
    weighted: bool = False
    """Weigh each decision by the return that followed, divided by its propensity. No reward may be
    negative."""

    @property
    def needs(self) -> tuple[Need, ...]:
        return ("propensities", "gains") if self.weighted else ()


class BC(NetworkPolicy[BCConfig]):
    """An actor that learns to repeat the decisions of a log."""

    def update(self, batch: Transitions) -> dict[str, float]:
        """A gradient step for each ``batch_size`` decisions. Returns the means over these steps."""
        self.anneal_lr()
        averages = StepMeans()
        for minibatch in batch.split(self.config.batch_size):
            obs, weights = shown_among(self.model, minibatch.obs, minibatch.items, self.generators["policy"])
            distribution, index = corrected(self.model(obs)[0], weights), obs.places_of(minibatch.items)
            if self.config.weighted and minibatch.place_rewards is not None:
                assert isinstance(distribution, PlackettLuce)
                self.draw_by_rank()
                terms, entropy = distribution.terms(index), distribution.entropy()  # (B, K), (B,)
                loss = -(place_weights_of(minibatch) * terms).sum(1).mean()
            else:
                logprob, entropy = distribution.evaluate(index)  # (B,) each
                loss = -(weights_of(minibatch) * logprob if self.config.weighted else logprob).mean()
            self.optimizer.zero_grad()
            (loss + self.reward_loss(minibatch, obs)).backward()
            self.optimizer.step()
            averages.add(loss=loss, entropy=entropy.mean())
        self.updates += 1
        return averages.means() | {"lr": self.optimizer.lr}


def weights_of(batch: Transitions) -> Tensor:
    """w (B,) of the decisions: G min(1 / mu, CAP)."""
    assert batch.returns_to_go is not None
    inverse = (-batch.logprobs).exp().clamp_max(CAP)  # (B,) float64
    return batch.returns_to_go * inverse.to(batch.returns_to_go)


def place_weights_of(batch: Transitions) -> Tensor:
    """w_k (B, K) of the places of slates: (r_k + what followed the slate) min(1 / mu_k, CAP)."""
    assert batch.returns_to_go is not None
    assert batch.place_rewards is not None and batch.place_logprobs is not None
    later = batch.returns_to_go - batch.rewards  # (B,)
    inverse = (-batch.place_logprobs).exp().clamp_max(CAP)  # (B, K) float64
    return (batch.place_rewards + later.unsqueeze(1)) * inverse.to(later)


ALGORITHM = Algorithm(BCConfig, BC, LOGGED)
