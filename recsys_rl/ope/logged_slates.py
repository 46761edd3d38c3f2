"""The slate estimators of a policy on a log of slates, in sessions of any length.

    V = sum_t g^t w_{0:t-1} f_t

with w_{0:t-1} the weight of the whole slates of the steps before, and f_t the estimator of one slate
(ope/slate.py). The estimator decides only which places the reward of a step depends on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.decisions.transitions import observations
from recsys_rl.ope.judging import Terms
from recsys_rl.ope.logged import Prepared
from recsys_rl.ope.slate import SLATE, Slates, pseudo_inverse_weights
from recsys_rl.ope.slate_choices import Choices
from recsys_rl.types import Feedback

UNIFORM_ERROR = 1e-4  # of a log-probability, up to which a logger counts as uniform
DRAWN = (
    "The logger's probability of an item at its place is a mean over {} drawn slates: the weights of items "
    "that it rarely shows there are inexact, and the interval does not cover this error."
)


@dataclass(frozen=True)
class Places:
    """The probabilities of a policy for the places of the logged slates."""

    logprobs: Tensor | None  # (E, K) float64: of each place's item, given those above; None if unknown
    choices: Choices | None  # whatever stands above; None if unknown


# r_k = r(feedback without the signals of the other places)
def place_rewards(rewards: Callable[[Feedback], Tensor], feedback: Feedback) -> Tensor | None:
    """The rewards (E, K) of the places of each slate; None if they don't sum to the reward of the slate.

    ``rewards`` gives (E,) from the signals. It is called once for each place, with all other signals 0.
    Rewards of events, or of two places together, belong to no place.
    """
    events = feedback.events
    if events is not None:
        events = dataclasses.replace(events, signals=torch.zeros_like(events.signals))
    found = []
    for place in range(feedback.signals.shape[1]):
        signals = torch.zeros_like(feedback.signals)
        signals[:, place] = feedback.signals[:, place]
        found.append(rewards(dataclasses.replace(feedback, signals=signals, events=events)))
    each, whole = torch.stack(found, 1).double(), rewards(feedback).double()
    return each if torch.allclose(each.sum(1), whole, rtol=1e-4, atol=1e-5) else None


def showable(prepared: Prepared) -> Tensor:
    """(E,) int64: the number of items that could be shown."""
    numbers = torch.zeros(prepared.log.num_rows, dtype=torch.int64)
    for at, obs in observations(prepared.log, prepared.catalogue):
        numbers[at] = obs.showable(prepared.catalogue.num_items).sum(1)
    return numbers


def uniform_choices(prepared: Prepared) -> Tensor | None:
    """(E,) int64: the number n of ``showable`` items, if the log's slates are uniform among them.

    A uniform slate shows each of n items at place k with probability 1/n. None for another logger.
    """
    log, numbers = prepared.log, showable(prepared)
    left = numbers.unsqueeze(1) - torch.arange(log.items.shape[1])  # (E, K)
    expected = -left.clamp_min(1).double().log()
    terms = log.logprobs.unsqueeze(1) if log.items.shape[1] == 1 else log.place_logprobs
    if terms is None:
        terms, expected = log.logprobs.unsqueeze(1), expected.sum(1, keepdim=True)
    return numbers if bool(((terms - expected).abs() <= UNIFORM_ERROR).all()) else None


def uniform_marginals(numbers: Tensor, places: int) -> Tensor:
    """(E, K, K): the marginals of the uniform policy, 1 / n, with n (E,) from ``showable``."""
    return (1 / numbers.double()).view(-1, 1, 1).expand(-1, places, places)


# 1_pi' G^+ 1_s for a logger that draws K of n items uniformly, without replacement: G has the eigenvalue
# K / n at the constant, (n - K) / (n (n - 1)) at differences of items, 1 / (n - 1) at differences of both
def uniform_additive(marginals: Tensor, numbers: Tensor) -> Tensor:
    """(E,): the pseudo-inverse weight of uniform slates, from ``marginals`` (E, K, K) and n (E,)."""
    places, n = marginals.shape[1], numbers.double()
    anywhere = marginals.sum((1, 2)) / places  # (E,): mean over places of the mass of the slate's items
    here = marginals.diagonal(dim1=1, dim2=2).sum(1)
    of_items = torch.where(n > places, n * (n - 1) / (n - places).clamp_min(1), 0.0)
    return 1 + of_items * (anywhere - places / n) + (n - 1) * (here - anywhere)


@dataclass(frozen=True)
class SlateBench:
    """The slates of a log and the rewards of their places, for all policies."""

    prepared: Prepared
    rewards: Tensor | None  # (E, K) of each place (``place_rewards``)
    numbers: Tensor | None  # (E,) of ``uniform_choices``
    slates: Tensor | None = None  # (M, K) of ``possible_slates``
    logging: Choices | None = None  # of the logger, if it is known and not uniform
    unknown: str = ""  # why ``logging`` is not known, as the end of a sentence

    @property
    def known(self) -> bool:
        """True if the logger's probability of an item at a place, whatever stands above, is known."""
        return self.numbers is not None or self.logging is not None

    def reasons(self, places: Places) -> dict[str, str]:
        """The estimators that can't be computed for a policy, each with the reason."""
        log = self.prepared.log
        found: dict[str, str] = {}
        if log.logger_logprobs is not None:
            several = "the log has the probability of a whole slate under each of its loggers, not of places"
            found |= dict.fromkeys(("rips", "iips", "pi"), several)
        elif log.place_logprobs is None:
            found["rips"] = "the log has no place_logprobs"
        elif places.logprobs is None:
            found["rips"] = "the target file has no column place_logprobs"
        if not self.known:
            unknown = (
                "it is not known how often the log's policy puts an item at a place, whatever stands above: "
                f"its slates are not uniform{self.unknown}"
            )
            found = dict.fromkeys(("iips", "pi"), unknown) | found
        elif places.choices is None:
            found = (
                dict.fromkeys(("iips", "pi"), "the target file holds no policy to draw slates from") | found
            )
        elif self.numbers is None and self.slates is None:
            many = "the log's slates are not uniform, and too many slates are possible to score each one"
            found = {"pi": many} | found
        if self.rewards is None:
            whole = "the reward is not a sum of rewards of places"
            found = dict.fromkeys(("rips", "iips"), whole) | found
        return found

    def terms(self, weights: Tensor, places: Places) -> tuple[dict[str, Terms], dict[str, str]]:
        """The estimators of slates that the log and the policy allow, and the reasons for the others.

        ``weights`` (N, T) of whole slates.
        """
        of = self.prepared
        total = of.rewards  # (E,)
        found = {"sips": Terms((weights * of.on_grid(total)) @ self._discounts(weights), weights[:, -1])}
        left_out = self.reasons(places)
        log = of.log
        each = self.rewards if self.rewards is not None else total.unsqueeze(1).expand(log.items.shape)
        by_place: dict[str, tuple[Slates, Tensor]] = {}
        if "rips" not in left_out and places.logprobs is not None and log.place_logprobs is not None:
            ratios = (places.logprobs - log.place_logprobs).exp()
            by_place["rips"] = Slates(ratios, each), ratios.cumprod(1).mean(1)
        if places.choices is not None and self.known:
            alone = self._alone(places.choices)
            by_place["iips"] = Slates(alone, each), alone.mean(1)
            additive = None if "pi" in left_out else self._additive(places.choices)
            if additive is not None:
                of_slate = torch.zeros_like(alone)
                of_slate[:, 0] = total  # `pi` reads only the sum
                by_place["pi"] = Slates(alone, of_slate, additive=additive), additive
            elif "pi" not in left_out:
                left_out["pi"] = "the policy shows items at places where the log's policy never does"
        for name, (slates, own) in by_place.items():
            if name not in left_out:
                found[name] = self._over_steps(SLATE[name](slates), own, weights)
        if "iips" in found and self.logging is not None and self.logging.draws:
            text = DRAWN.format(self.logging.draws)
            found["iips"] = dataclasses.replace(found["iips"], warnings=(text,))
        return {name: found[name] for name in SLATE if name in found}, left_out

    def _alone(self, choices: Choices) -> Tensor:
        """(E, K): the weight of each place's item, whatever stands above it."""
        mine = choices.marginals.diagonal(dim1=1, dim2=2)
        if self.numbers is not None:
            return mine * self.numbers.unsqueeze(1)
        assert self.logging is not None
        return mine / self.logging.marginals.diagonal(dim1=1, dim2=2)

    def _additive(self, choices: Choices) -> Tensor | None:
        """(E,): the weight of `pi`; None if the logger does not cover the policy."""
        if self.numbers is not None:
            return uniform_additive(choices.marginals, self.numbers)
        assert self.logging is not None and self.slates is not None
        assert self.logging.every is not None and choices.every is not None
        of = self.prepared
        return pseudo_inverse_weights(
            choices.every, self.logging.every, self.slates, of.log.items, of.catalogue.num_items
        )

    def _discounts(self, weights: Tensor) -> Tensor:
        return self.prepared.gamma ** torch.arange(weights.shape[1], dtype=torch.float64)

    def _over_steps(self, terms: Tensor, own: Tensor, weights: Tensor) -> Terms:
        """From the terms (E,) and the weights ``own`` (E,) of single slates to those of sessions."""
        of = self.prepared
        before = torch.cat([torch.ones_like(weights[:, :1]), weights[:, :-1]], 1)  # (N, T): w_{0:t-1}
        last = (of.alive.sum(1) - 1).unsqueeze(1)  # (N, 1)
        of_session = (before * of.on_grid(own)).gather(1, last).squeeze(1)
        return Terms((before * of.on_grid(terms)) @ self._discounts(weights), of_session)
