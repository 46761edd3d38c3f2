"""The evidence of slates: the weight of each place under a policy and the log's own, and its reward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from recsys_rl.logs.ope.estimators import ADDITIVE, ALONE, GIVEN_ABOVE, PLACE_REWARDS, Slates
from recsys_rl.logs.ope.replay import ReplayedLog
from recsys_rl.logs.ope.slate_choices import Choices, possible_slates, showable

UNIFORM_ERROR = 1e-4  # of a log-probability, up to which a logger counts as uniform
DRAWN = (
    "The logger's probability of an item at its place is a mean over {} drawn slates: the weights of items "
    "that it rarely shows there are inexact, and the interval does not cover this error."
)


def uniform_choices(log: ReplayedLog) -> Tensor | None:
    """(E,) int64: the number n of ``showable`` items, if the log's slates are uniform among them.

    A uniform slate shows each of n items at place k with probability 1/n. None for another logger.
    """
    of, numbers = log.log, showable(log)
    left = numbers.unsqueeze(1) - torch.arange(log.places)  # (E, K)
    expected = -left.clamp_min(1).double().log()
    terms = of.logprobs.unsqueeze(1) if log.places == 1 else of.place_logprobs
    if terms is None:
        terms, expected = of.logprobs.unsqueeze(1), expected.sum(1, keepdim=True)
    return numbers if bool(((terms - expected).abs() <= UNIFORM_ERROR).all()) else None


# 1_pi' G^+ 1_s for a logger that draws K of n items uniformly, without replacement: G has the eigenvalue
# K / n at the constant, (n - K) / (n (n - 1)) at differences of items, 1 / (n - 1) at differences of both
def uniform_additive(marginals: Tensor, numbers: Tensor) -> Tensor:
    """(E,): the pseudo-inverse weight of uniform slates, from ``marginals`` (E, K, K) and n (E,)."""
    places, n = marginals.shape[1], numbers.double()
    anywhere = marginals.sum((1, 2)) / places  # (E,): mean over places of the mass of the slate's items
    here = marginals.diagonal(dim1=1, dim2=2).sum(1)
    of_items = torch.where(n > places, n * (n - 1) / (n - places).clamp_min(1), 0.0)
    return 1 + of_items * (anywhere - places / n) + (n - 1) * (here - anywhere)


# 1_pi' G^+ 1_s: Swaminathan et al. 2017; (sum_k w_k - K + 1) where the logger's places are independent
def pseudo_inverse_weights(
    policy: Tensor, logging: Tensor, slates: Tensor, items: Tensor, size: int
) -> Tensor | None:
    """(E,): the weight of ``pi`` for loggers whose places depend on each other.

    None if the policy's slates lie outside the span of the logger's, where no weight is unbiased.

    Args:
        policy, logging: (E, M) probabilities of the M possible slates under both policies.
        slates: (M, K) int64, the possible slates.
        items: (E, K) int64, the logged slates.
        size: A, the number of items.
    """
    number, places = slates.shape
    at, width = torch.arange(places) * size, places * size
    shown = torch.zeros(number, width, dtype=torch.float64)  # (M, K A): 1_s of each slate
    shown.scatter_(1, slates + at, 1.0)
    mean = policy.double() @ shown  # (E, K A): 1_pi
    pairs = (shown.unsqueeze(2) * shown.unsqueeze(1)).flatten(1)  # (M, K A K A): 1_s 1_s'
    second = (logging.double() @ pairs).view(-1, width, width)  # (E, K A, K A): G
    solved = torch.linalg.pinv(second, hermitian=True) @ mean.unsqueeze(2)  # (E, K A, 1)
    if bool(((second @ solved - mean.unsqueeze(2)).abs() > 1e-8).any()):
        return None
    chosen: Tensor = solved.squeeze(2).gather(1, items + at)  # (E, K)
    return chosen.sum(1)


@dataclass(frozen=True)
class SlateEvidence:
    """Evidence of a policy for the estimators of slates."""

    slates: Slates
    lacking: dict[str, str]  # the reason of each need that is missing
    doubts: dict[str, str]  # a warning about what a need is met with


@dataclass(frozen=True)
class SlateLog:
    """The slates of a log and its logger's choices, for all policies."""

    log: ReplayedLog
    rewards: Tensor | None  # (E, K) of each place (``place_rewards``)
    # From ``possible_slates`` to the choices of the log's only policy; None if that policy is unknown.
    logger: Callable[[Tensor | None], Choices | None]
    unknown: str = ""  # why the logger is not known, as the end of a sentence

    @cached_property
    def numbers(self) -> Tensor | None:
        """(E,) of ``uniform_choices``; None for another logger than the uniform one."""
        return None if self.log.log.logger_logprobs is not None else uniform_choices(self.log)

    @cached_property
    def slates(self) -> Tensor | None:
        """(M, K) of ``possible_slates``"""
        return None if self.log.log.logger_logprobs is not None else possible_slates(self.log)

    @cached_property
    def logging(self) -> Choices | None:
        """The choices of the logger, if it is known and not uniform; else None."""
        if self.numbers is not None or self.log.log.logger_logprobs is not None:
            return None
        return self.logger(self.slates)

    @property
    def known(self) -> bool:
        """True if the logger's marginal probability of an item at a place is known."""
        return self.numbers is not None or self.logging is not None

    def lacking(self, places: Tensor | None, choices: Choices | None) -> dict[str, str]:
        """The reason of each need that is missing for a policy; see ``evidence``."""
        log, reasons = self.log.log, {}
        if self.rewards is None:
            reasons[PLACE_REWARDS] = "the reward is not a sum of rewards of places"
        if log.logger_logprobs is not None:
            several = "the log has the probability of a whole slate under each of its loggers, not of places"
            return reasons | {GIVEN_ABOVE: several, ALONE: several}
        if log.place_logprobs is None:
            reasons[GIVEN_ABOVE] = "the log has no place_logprobs"
        elif places is None:
            reasons[GIVEN_ABOVE] = "the target file has no column place_logprobs"
        if not self.known:
            reasons[ALONE] = (
                "it is not known how often the log's policy puts an item at a place, whatever stands above: "
                f"its slates are not uniform{self.unknown}"
            )
        elif choices is None:
            reasons[ALONE] = "the target file holds no policy to draw slates from"
        elif self.numbers is None and self.slates is None:
            reasons[ADDITIVE] = (
                "the log's slates are not uniform, and too many slates are possible to score each one"
            )
        return reasons

    def evidence(self, places: Tensor | None, choices: Choices | None) -> SlateEvidence:
        """Evidence of a policy for the estimators of slates.

        Args:
            places: (E, K) float64, its log-probability of each place's item, given those above; None if
                unknown.
            choices: its probabilities whatever stands above; None if unknown.
        """
        of, lacking, doubts = self.log, self.lacking(places, choices), dict[str, str]()
        given_above = alone = additive = None
        if GIVEN_ABOVE not in lacking and places is not None and of.log.place_logprobs is not None:
            given_above = of.on_grid((places - of.log.place_logprobs).exp())
        if ALONE not in lacking and choices is not None:
            alone = of.on_grid(self._alone(choices))
            if ADDITIVE not in lacking:
                weights = self._additive(choices)
                additive = None if weights is None else of.on_grid(weights)
                if additive is None:
                    lacking[ADDITIVE] = "the policy shows items at places where the log's policy never does"
            if self.logging is not None and self.logging.draws:
                doubts[ALONE] = DRAWN.format(self.logging.draws)
        rewards = None if self.rewards is None else of.on_grid(self.rewards)
        return SlateEvidence(Slates(given_above, alone, additive, rewards), lacking, doubts)

    def _alone(self, choices: Choices) -> Tensor:
        """(E, K): the weight of each place's item, by its marginal probability at this place."""
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
        return pseudo_inverse_weights(
            choices.every, self.logging.every, self.slates, self.log.log.items, self.log.num_items
        )
