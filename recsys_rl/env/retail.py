"""Rules of retailers that sell without reinforcement learning.

Each fills a screen from the kinds of its places: a video by the profile, a product by the rule's score, and a
coupon at a fixed discount. With ``every`` n each n-th screen is a product alone, and the others are a video,
with a product below it if the rule ``pairs``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from recsys_rl.data.attributes import zscore
from recsys_rl.functional import categorical
from recsys_rl.protocols import Policy
from recsys_rl.records import Heuristic
from recsys_rl.types import Action, Catalogue, Interface, Obs

EVERY = {2: "every second a product", 4: "every fourth a product", 1000: "no product alone"}
BOUGHT = ("carted", "purchased")


@dataclass(frozen=True)
class Retailer:
    """A screen from a video, a product and a coupon.

    ``score``: takes the retailer and an observation, and returns the scores (N, I) of the products.
    ``most``: the coupon of the highest discount, else that of the lowest.
    """

    catalogue: Catalogue
    interface: Interface
    score: Callable[[Retailer, Obs], Tensor]
    every: int
    pairs: bool
    most: bool = False

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        scores = {
            "video": self.profile(obs) @ self.catalogue.embedding.T,  # (N, I)
            "product": self.score(self, obs),
            "empty": torch.zeros_like(self.popular),
            "coupon": self.catalogue.attributes["discount"] * (1 if self.most else -1),
        }
        allowed = obs.allowed(self.catalogue.num_items)  # (N, I)
        best = {
            name: categorical.mask_logits(score.expand_as(allowed), allowed & self.of_kind[name]).argmax(1)
            for name, score in scores.items()
        }
        clock = obs.context[:, self.interface.place_of("clock")].squeeze(1)
        step = (clock * self.interface.session_length).round()
        alone = (step + 1) % self.every == 0
        lead = torch.where(alone, best["product"], best["video"])
        below = best["product" if self.pairs else "empty"].masked_fill(alone, 0)
        below = torch.where(alone, best["empty"], below)
        places = [lead, below, best["coupon"]][: self.interface.slate_size]
        return Action.certain(torch.stack(places, 1))

    def profile(self, obs: Obs) -> Tensor:
        return obs.context[:, self.interface.place_of("profile")]

    @cached_property
    def of_kind(self) -> dict[str, Tensor]:
        """(I,) bool of each kind."""
        kind, names = self.catalogue.attributes["kind"], self.catalogue.classes("kind")
        return {name: kind == number for number, name in enumerate(names)}

    @cached_property
    def popular(self) -> Tensor:
        """(I,): z(log popularity_i)."""
        return zscore((self.catalogue.popularity + 1e-3).log())


def best_sellers(retailer: Retailer, obs: Obs) -> Tensor:
    return retailer.popular


def by_profile(retailer: Retailer, obs: Obs) -> Tensor:
    return retailer.profile(obs) @ retailer.catalogue.embedding.T


def also_bought(retailer: Retailer, obs: Obs) -> Tensor:
    """Likeness to the products that the visitor put in the cart in this session; best-sellers before that."""
    embedding, signals = retailer.catalogue.embedding, retailer.interface.signals
    assert obs.history is not None and obs.signals is not None
    taken = obs.signals[..., [signals.index(name) for name in BOUGHT]].amax(2)  # (N, L)
    wanted = (taken.unsqueeze(1) @ embedding[obs.history.clamp_min(0)]).squeeze(1)  # (N, D)
    return torch.where(taken.any(1, keepdim=True), wanted @ embedding.T, retailer.popular)


def _settings(
    score: Callable[[Retailer, Obs], Tensor], most: bool = False
) -> Callable[[Catalogue, Interface], Mapping[str, Policy]]:
    def settings(catalogue: Catalogue, interface: Interface) -> dict[str, Policy]:
        return {
            f"{'pairs' if pairs else 'videos'}, {text}": Retailer(
                catalogue, interface, score, every, pairs, most
            )
            for every, text in EVERY.items()
            for pairs in (True, False)
        }

    return settings


TRADE_RULES = {
    "best-seller": Heuristic("Videos by mf and the most popular products.", _settings(best_sellers)),
    "also-bought": Heuristic(
        "Videos by mf and the products most like those in the cart.", _settings(also_bought)
    ),
    "never-discount": Heuristic("Videos and products by mf, at full price.", _settings(by_profile)),
    "always-discount": Heuristic(
        "Videos and products by mf, at the highest discount there is.", _settings(by_profile, most=True)
    ),
}
