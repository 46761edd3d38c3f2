"""The belief about a learner: a Bayes filter over the hidden bits "knows skill s".

    answer    P(k) <- P(k) P(answer | k_s) / sum over k'
    teaching  k_s  <- 1 with probability rate x ready_s(k), where it was 0
    ready_s(k) = share of the prerequisites of s that are known, 1 without any

With up to EXACT skills the belief is the probability of each of the 2^S states. With more it is a product of
marginals p_s: evidence about s moves p_s alone, and ready_s is the mean of the p of its prerequisites. State
number j has bit s of j for skill s.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

EXACT = 3
"""The largest number of skills with an exact belief."""


@dataclass(frozen=True)
class Belief:
    """The filter of S skills. ``needs`` (S, S): row s holds 1 / number for each prerequisite of s, else 0.

    ``exact``: a belief is of all 2^S states, (N, 2^S); otherwise of marginals, (N, S).
    """

    needs: Tensor
    exact: bool

    @cached_property
    def free(self) -> Tensor:
        """(S,): 1 for a skill without prerequisites."""
        return (self.needs.sum(1) == 0).float()

    @cached_property
    def states(self) -> Tensor:
        """(2^S, S): the bits of each state."""
        number = len(self.needs)
        places = torch.arange(number, device=self.needs.device)
        codes = torch.arange(2**number, device=self.needs.device)
        return ((codes.unsqueeze(1) >> places) & 1).float()

    def ready_of(self, known: Tensor) -> Tensor:
        """(N, S): the share of known prerequisites, from bits or probabilities (N, S)."""
        return known @ self.needs.T + self.free

    def begin(self, prior: float, number: int) -> Tensor:
        """The belief (N, B) that each skill is known with the probability ``prior``."""
        if not self.exact:
            return torch.full((number, len(self.needs)), prior, device=self.needs.device)
        each = torch.where(self.states > 0, prior, 1 - prior).prod(1)  # (2^S,)
        return each.expand(number, -1).clone()

    def known(self, belief: Tensor) -> Tensor:
        """(N, S): the probability that each skill is known."""
        return belief @ self.states if self.exact else belief

    def ready(self, belief: Tensor) -> Tensor:
        """(N, S): the expected share of the prerequisites that are known."""
        return self.ready_of(self.known(belief))

    def after(
        self, belief: Tensor, skill: Tensor, right: Tensor, if_known: Tensor, if_not: Tensor, rate: Tensor
    ) -> Tensor:
        """The belief after an item of ``skill`` (N,) int64.

        ``right`` (N,) is 1 for a right answer and 0 for a wrong one; in between it weighs both outcomes.
        ``if_known`` and ``if_not`` (N,) are the probabilities of a right answer; from equal ones
        nothing follows. ``rate`` (N,): of learning the skill if all prerequisites are known.
        """
        at = skill.unsqueeze(1)  # (N, 1)
        answer, likely, unlikely = (value.unsqueeze(1) for value in (right, if_known, if_not))
        if not self.exact:
            prior = belief.gather(1, at)
            p = torch.lerp(
                _posterior(prior, 1 - likely, 1 - unlikely), _posterior(prior, likely, unlikely), answer
            )
            ready = self.ready(belief).gather(1, at)
            return belief.scatter(1, at, p + (1 - p) * rate.unsqueeze(1) * ready)
        bit = self.states.T.index_select(0, skill)  # (N, 2^S)
        chance = torch.lerp(unlikely, likely, bit)  # of a right answer, by state
        yes, no = belief * chance, belief * (1 - chance)
        yes, no = (part / part.sum(1, keepdim=True).clamp_min(1e-30) for part in (yes, no))
        moved = torch.lerp(no, yes, answer)
        ready = self.ready_of(self.states).T.index_select(0, skill)  # (N, 2^S)
        learned = moved * (1 - bit) * rate.unsqueeze(1) * ready
        codes = torch.arange(len(self.states), device=skill.device)
        return moved - learned + learned.gather(1, codes ^ (1 << at))


def _posterior(prior: Tensor, if_known: Tensor, if_not: Tensor) -> Tensor:
    """P(known) after an outcome with these likelihoods."""
    both = prior * if_known
    return both / (both + (1 - prior) * if_not).clamp_min(1e-30)
