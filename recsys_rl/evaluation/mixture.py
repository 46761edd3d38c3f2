"""Wrappers that give a policy exact action probabilities."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from recsys_rl.protocols import Behaviour, Policy
from recsys_rl.types import Action, Obs


class Fixed:
    """A policy without chance: the same observation always gives the same items, with log-probability 0."""

    def __init__(self, policy: Policy, greedy: bool = False) -> None:
        """``greedy`` is passed to ``policy.act`` in every act."""
        self.policy, self.greedy = policy, greedy
        self._last: tuple[Obs, Tensor] | None = None  # a planner's second answer would take as long

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        action = self.policy.act(obs, self.greedy)
        self._last = obs, action.items
        return dataclasses.replace(action, logprob=torch.zeros(obs.num_rows))

    def place_logprobs(self, obs: Obs, items: Tensor) -> Tensor:
        """(N, K) float64: 0 where the policy shows this item in this place, else -inf."""
        if self._last is None or self._last[0] is not obs:
            self.act(obs)
        assert self._last is not None
        chosen = self._last[1]
        return torch.zeros(items.shape, dtype=torch.float64).masked_fill_(chosen != items, -torch.inf)

    def item_probabilities(self, obs: Obs, num_items: int) -> Tensor:
        """(N, I) float64: 1 at the item that is shown."""
        probabilities = torch.zeros(obs.num_rows, num_items, dtype=torch.float64)
        return probabilities.scatter_(1, self.act(obs).items, 1.0)


class EpsilonMixture:
    """Shows the slate of ``other`` with probability epsilon, else that of ``policy``.

    With p and q the probabilities of a slate under the two, that of the mixture is::

        (1 - epsilon) p(a_1 ... a_K) + epsilon q(a_1 ... a_K)

    Its term of place k is the same sum over the places up to k, divided by the sum up to k - 1.
    """

    def __init__(
        self,
        policy: Behaviour,
        other: Behaviour,
        epsilon: float,
        generator: torch.Generator,
        propose: Callable[[Obs], Obs] = lambda obs: obs,
    ) -> None:
        """Make the mixture.

        Args:
            epsilon: above 0 and below 1.
            propose: adds the candidates of a first stage, from which both policies then choose.
        """
        self.policy, self.other, self.epsilon = policy, other, epsilon
        self.generator, self.propose = generator, propose

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        obs = self.propose(obs)
        explore = torch.rand(obs.num_rows, generator=self.generator) < self.epsilon  # (N,)
        rows = [which.nonzero().squeeze(1) for which in (~explore, explore)]
        ours = self._choose(self.policy, self.other, 1 - self.epsilon, obs.rows(rows[0]))
        theirs = self._choose(self.other, self.policy, self.epsilon, obs.rows(rows[1]))
        order = torch.cat(rows).argsort()
        items, logprob = (torch.cat(parts)[order] for parts in zip(ours, theirs, strict=True))
        return Action(items, logprob, candidates=obs.candidates)

    def _choose(self, policy: Behaviour, other: Behaviour, share: float, obs: Obs) -> tuple[Tensor, Tensor]:
        """The items (B, K) of ``policy`` and their log-probability (B,) float64 under the mixture.

        Each policy scores the items once: where it chooses, or where the other one did.
        """
        action = policy.act(obs)
        above = other.place_logprobs(obs, action.items).sum(1).nan_to_num(nan=-torch.inf, neginf=-torch.inf)
        mixed = torch.logaddexp(math.log(share) + action.logprob.double(), math.log1p(-share) + above)
        return action.items, mixed

    def place_logprobs(self, obs: Obs, items: Tensor) -> Tensor:
        """(N, K) float64."""
        ours = self.policy.place_logprobs(obs, items).cumsum(1)  # (N, K): of the places up to k
        theirs = self.other.place_logprobs(obs, items).cumsum(1)
        mixed = torch.logaddexp(math.log1p(-self.epsilon) + ours, math.log(self.epsilon) + theirs)
        terms = mixed.diff(dim=1, prepend=mixed.new_zeros(len(mixed), 1))
        return terms.nan_to_num(nan=-torch.inf, neginf=-torch.inf)  # NaN: below an impossible place

    def item_probabilities(self, obs: Obs, num_items: int) -> Tensor:
        """(N, I) float64."""
        ours, theirs = (policy.item_probabilities(obs, num_items) for policy in (self.policy, self.other))
        return (1 - self.epsilon) * ours + self.epsilon * theirs
