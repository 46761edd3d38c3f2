"""The row `expert`: the form of a platform's own equations, its numbers found on training users by CMA-ES."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.functional import categorical
from recsys_rl.functional.top_k import highest
from recsys_rl.protocols import UserModel
from recsys_rl.records import Expert, FollowedObs
from recsys_rl.rivals import rankers, rule_search
from recsys_rl.rivals.cma_search import Trials, search_numbers
from recsys_rl.rivals.expert_walk import Walker
from recsys_rl.rivals.rankers import Shortlist
from recsys_rl.rivals.tuning import Trainees
from recsys_rl.types import Action, Catalogue, Interface, Obs


@dataclass(frozen=True)
class ByEquations:
    """Shows the K items with the highest scores of an ``Expert``; of a large catalogue, of the Shortlist."""

    expert: Expert
    user_model: UserModel
    catalogue: Catalogue
    interface: Interface
    numbers: Mapping[str, Tensor]  # () or (N,) each

    def reader(self) -> Follower:
        """The lists and the walk for N users, which follow their sessions."""
        # The list is by the profile: without one, all items are scored. So they are where the places have
        # kinds, as the list may lack one of these.
        large = self.catalogue.num_items > rankers.SHORTLIST and self.interface.profile
        large = large and not self.interface.patterns
        walk = self.expert.walk
        return Follower(
            Shortlist(self.catalogue, self.interface.slate_size) if large else None,
            Walker(walk, self.user_model, self.interface, self.numbers) if walk is not None else None,
        )

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        if self.expert.walk is not None and not isinstance(obs, FollowedObs):
            obs = self.reader().follow(obs)
        elif obs.candidates is None:
            obs = self.reader().listed(obs)
        items = obs.candidates  # (N, C)
        scores = self.expert.scores(self.user_model, self.interface, obs, self.numbers, items)
        if items is None:
            scores = categorical.mask_logits(scores, obs.allowed(self.catalogue.num_items))
        else:
            scores = scores.masked_fill(items < 0, -torch.inf)
        best = highest(scores, self.interface.slate_size)  # (N, K)
        allowed = best.masked_fill(scores.gather(1, best) == -torch.inf, -1)  # no item is left for the place
        return Action.certain(allowed if items is None else items.gather(1, best))


@dataclass(frozen=True)
class Follower:
    """The lists of N users of a large catalogue, and the walk through their sessions; None without them."""

    shortlist: Shortlist | None
    walker: Walker | None

    def follow(self, obs: Obs, ended: Tensor | None = None) -> Obs:
        """The observation with its candidates and what the walk keeps; see ``Reader``."""
        listed = self.listed(obs, ended)
        if self.walker is None:
            return listed
        # The walk may ask for what was shown; candidates respect it already.
        given = {**vars(listed), "exclude": obs.exclude}
        return FollowedObs(**given, known=self.walker.follow(obs, ended))

    def listed(self, obs: Obs, ended: Tensor | None = None) -> Obs:
        """The observation with its candidates."""
        if self.shortlist is None or obs.candidates is not None:
            return obs
        return self.shortlist.follow(obs, ended)


def search_expert(
    trainees: Trainees, expert: Expert, user_model: UserModel, budget: int
) -> tuple[Tensor, int]:
    """The numbers (F,) in the order of ``expert.numbers``, and the steps of their search."""
    firsts = torch.tensor(list(expert.numbers.values()), device=trainees.generator.device)  # (F, 2)

    def make(numbers: Tensor) -> ByEquations:
        named = dict(zip(expert.numbers, numbers.unbind(-1), strict=True))
        return ByEquations(expert, user_model, trainees.catalogue, trainees.interface, named)

    trials = Trials(trainees)
    budget = rule_search.most_steps(trainees, budget)
    first, spread = firsts.unbind(1)
    return search_numbers(trials, make, first, spread, budget), trials.steps


def expert_note(expert: Expert, numbers: Mapping[str, Tensor], steps: int) -> str:
    """The form, its numbers, and the number of steps of the search."""
    settings = ", ".join(f"{name} {value.item():.2f}" for name, value in numbers.items())
    return f"{expert.description} {settings}; searched with {steps:,} steps of training users"
