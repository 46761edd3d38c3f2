"""The policy `expert`, for the table of an evaluation as any other of a user's own.

    recsys-rl evaluate --policy benchmarks.experts.policy:expert

Its numbers are found on training users by CMA-ES, with as many environment steps as the policy had that it
stands beside.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.experts import long_video, satiation, shop, short_video, social_feed, tutor
from benchmarks.experts.form import Expert, FollowedObs
from benchmarks.experts.walker import Walker
from recsys_rl.env.long_video import LongVideo
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.env.satiation import Satiation
from recsys_rl.env.shop import Shop
from recsys_rl.env.short_video import ShortVideo
from recsys_rl.env.social_feed import SocialFeed
from recsys_rl.env.tutor import Tutor
from recsys_rl.errors import UserError
from recsys_rl.evaluation.rivals import rankers, rule_search
from recsys_rl.evaluation.rivals.form_search import Trials, search_numbers
from recsys_rl.evaluation.rivals.rankers import Shortlist
from recsys_rl.evaluation.rivals.tuning import Trainees
from recsys_rl.functional import categorical
from recsys_rl.functional.top_k import highest
from recsys_rl.protocols import UserModel
from recsys_rl.types import Action, Catalogue, Interface, Obs
from recsys_rl.utils.seeding import generators

EXPERTS: dict[type, Expert] = {
    Satiation: satiation.EXPERT,
    ShortVideo: short_video.EXPERT,
    LongVideo: long_video.EXPERT,
    SocialFeed: social_feed.EXPERT,
    Tutor: tutor.EXPERT,
    Shop: shop.EXPERT,
}
"""By the class of the user model."""
NAME, SPEC = "expert", "benchmarks.experts.policy:expert"
"""The row of the tables, and the policy as `recsys-rl evaluate --policy` takes it."""


def expert(catalogue: Catalogue, trainees: Trainees, steps: int) -> Following:
    """The expert of the trainees' platform. Raises UserError if it has none."""
    noise = generators(0, NAME, device=trainees.generator.device)[NAME]  # the same numbers under any name
    trainees = dataclasses.replace(trainees, generator=noise)
    env = trainees.make_env(trainees.population, 1, noise)
    model = env.user_model if isinstance(env, RecEnv) else None
    form = EXPERTS.get(type(model))
    if form is None or model is None:
        raise UserError("The users of this environment have no expert: leave it out.")
    print(f"searching `{NAME}` with at most {steps:,} steps of training users", file=sys.stderr, flush=True)
    values, taken = search_expert(trainees, form, model, steps)
    numbers = dict(zip(form.numbers, values.unbind(), strict=True))
    print(f"{NAME}: {expert_note(form, numbers, taken)}", file=sys.stderr, flush=True)
    return Following(ByEquations(form, model, catalogue, trainees.interface, numbers))


class Following:
    """An expert that follows the sessions of a table by their observations, in the order of ``play``."""

    def __init__(self, agent: ByEquations) -> None:
        self.agent = agent
        self.follower: Follower | None = None

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        shown = [x for x in (obs.history, obs.exclude) if x is not None]
        if self.follower is None or not any(bool((x >= 0).any()) for x in shown):  # all sessions begin
            self.follower = self.agent.reader()
        return self.agent.act(self.follower.follow(obs), greedy)


@dataclass(frozen=True)
class ByEquations:
    """Shows the K items with the highest scores of an ``Expert``; of a large catalogue, of the Shortlist.

    It follows the sessions of ``play``, by its reader.
    """

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
