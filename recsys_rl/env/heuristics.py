"""Rankings that a platform's trade uses without reinforcement learning."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from recsys_rl.data.attributes import zscore
from recsys_rl.functional import categorical
from recsys_rl.functional.top_k import highest
from recsys_rl.protocols import Policy
from recsys_rl.records import Heuristic
from recsys_rl.types import Action, Catalogue, Interface, Obs

PROFILE_WEIGHTS = (0.0, 0.25, 0.5, 0.75)
POPULARITIES = (0.1, 0.3, 1.0, 3.0)
GAPS = (1, 10)
EVEN = 1e-4  # so that rounding does not delay an ad by a place
LOADS = (0.0, 0.05, 0.1, 0.15, 0.2)
THRESHOLDS = (0.0, 0.3, 0.6, 0.9, 1.2, 1.6, 2.2)
CLICK_BASE, CLICK_GAIN = -3.0, 3.0
"""The trade's model of the clicks of an ad: logits at a cosine of 0, and per unit of the cosine."""


@dataclass(frozen=True)
class UpNext:
    """The K items that are most like the video that plays; at home those that are most like the profile.

    With c the embedding of the video that plays, u the profile and w the weight::

        score_i = (1 - w) c . e_i + w u . e_i
    """

    catalogue: Catalogue
    interface: Interface
    weight: float

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        profile, current = (
            obs.context[:, self.interface.place_of(piece)] for piece in ("profile", "current_item")
        )
        playing = current.any(1, keepdim=True)
        query = torch.where(playing, torch.lerp(current, profile, self.weight), profile)  # (N, D)
        scores = query @ self.catalogue.embedding.T  # (N, I)
        scores = categorical.mask_logits(scores, obs.allowed(self.catalogue.num_items))
        return Action.certain(highest(scores, self.interface.slate_size))


@dataclass(frozen=True)
class FreshCreators:
    """The item with the highest score whose creator is not among those of the last ``gap`` items shown.

    With u the profile: ``score_i = u . e_i + popularity z(log popularity_i)``. Where every creator is among
    them, any allowed item may be shown.
    """

    catalogue: Catalogue
    interface: Interface
    popularity: float
    gap: int

    @cached_property
    def creator(self) -> Tensor:
        """(I,) int64"""
        return self.catalogue.attributes["creator"].long()

    @cached_property
    def popular(self) -> Tensor:
        """(I,): z(log popularity_i)."""
        return zscore((self.catalogue.popularity + 1e-3).log())

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        assert obs.history is not None
        creator = self.creator
        profile = obs.context[:, self.interface.place_of("profile")]
        scores = profile @ self.catalogue.embedding.T + self.popularity * self.popular  # (N, I)
        allowed = obs.allowed(self.catalogue.num_items)  # (N, I)
        last = obs.history[:, -self.gap :]  # (N, G)
        recent = torch.where(last >= 0, creator[last.clamp_min(0)], -1)
        seen = torch.zeros(len(scores), int(creator.max()) + 2, dtype=torch.bool, device=scores.device)
        fresh = allowed & ~seen.scatter(1, recent + 1, True)[:, creator + 1]
        fresh = torch.where(fresh.any(1, keepdim=True), fresh, allowed)
        return Action.certain(highest(categorical.mask_logits(scores, fresh), 1))


@dataclass(frozen=True)
class WithAds:
    """Posts and stories by `mf`, and at some places the allowed ad with the highest value.

    The value of an ad is bid times sigmoid(CLICK_BASE + CLICK_GAIN u . e_i), with u the profile. With a
    ``load`` there are so many ads a place, evenly spread. Otherwise an ad is shown where its value is above
    the ``threshold``.
    """

    catalogue: Catalogue
    interface: Interface
    load: float | None = None
    threshold: float = 0.0

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        attributes, names = self.catalogue.attributes, self.catalogue.classes("kind")
        of_kind = {name: attributes["kind"] == number for number, name in enumerate(names)}  # (I,) each
        affinity = obs.context[:, self.interface.place_of("profile")] @ self.catalogue.embedding.T  # (N, I)
        allowed = obs.allowed(self.catalogue.num_items)  # (N, I)
        value = attributes["bid"] * (CLICK_BASE + CLICK_GAIN * affinity).sigmoid()
        value = categorical.mask_logits(value, allowed & of_kind["ad"])
        best, ad = value.max(1, keepdim=True)  # (N, 1) each
        organic = categorical.mask_logits(affinity, allowed & (of_kind["post"] | of_kind["story"]))
        if self.load is None:
            due = best > self.threshold
        else:
            clock = obs.context[:, self.interface.place_of("clock")]  # (N, 1)
            step = (clock * self.interface.session_length).round()
            due = ((step + 1) * self.load + EVEN).floor() > (step * self.load + EVEN).floor()
            due = due & (best > -torch.inf)
        return Action.certain(torch.where(due, ad, highest(organic, 1)))


def fixed_load(catalogue: Catalogue, interface: Interface) -> dict[str, Policy]:
    return {f"load {100 * load:g} %": WithAds(catalogue, interface, load) for load in LOADS}


def ad_threshold(catalogue: Catalogue, interface: Interface) -> dict[str, Policy]:
    return {
        f"threshold {threshold:g}": WithAds(catalogue, interface, threshold=threshold)
        for threshold in THRESHOLDS
    }


def up_next(catalogue: Catalogue, interface: Interface) -> dict[str, Policy]:
    return {f"profile weight {w:g}": UpNext(catalogue, interface, w) for w in PROFILE_WEIGHTS}


def fresh_creators(catalogue: Catalogue, interface: Interface) -> dict[str, Policy]:
    return {
        f"popularity {weight:g}, gap {gap}": FreshCreators(catalogue, interface, weight, gap)
        for weight in POPULARITIES
        for gap in GAPS
    }


UP_NEXT = Heuristic("Most like the video that plays; at home, most like the profile.", up_next)
FIXED_LOAD = Heuristic("Posts by mf, and a fixed share of ads, the best by bid and fit.", fixed_load)
AD_THRESHOLD = Heuristic(
    "Posts by mf, and an ad where bid times expected click is above a threshold.", ad_threshold
)
FRESH_CREATORS = Heuristic("Profile and popularity, no creator twice within a few videos.", fresh_creators)
