"""Screens of a retailer, and what can be followed of the visitors who see them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.env.assortment import COUPON, EMPTY, PRODUCT, VIDEO
from recsys_rl.records import Known
from recsys_rl.types import Catalogue, Feedback

SCREENS = ((PRODUCT, EMPTY), (VIDEO, EMPTY), (VIDEO, PRODUCT))  # kinds of the places


@dataclass(frozen=True)
class Screen:
    """The first video, product and coupon of each slate."""

    places: Tensor  # (N, K, 2): 1 at the place of the video, and of the product
    video: Tensor  # (N,) int64, any item where there is none
    product: Tensor  # (N,) int64
    has: Tensor  # (N, 2): 1 if there is a video, and a product
    log_share: Tensor  # (N,): ln(1 - d)

    @classmethod
    def of(cls, catalogue: Catalogue, items: Tensor, shown: Tensor) -> Screen:
        named = catalogue.attributes
        kind = named["kind"].index_select(0, items.flatten()).view_as(items).masked_fill(~shown, -1)  # (N, K)
        first = [(kind == number) for number in (VIDEO, PRODUCT, COUPON)]
        first = [there & (there.cumsum(1) == 1) for there in first]
        video, product, coupon = ((items * there).sum(1) for there in first)
        places = torch.stack(first[:2], 2).float()
        discount = named["discount"][coupon] * first[2].any(1)
        return cls(places, video, product, places.sum(1), (1 - discount).log())

    @property
    def alone(self) -> Tensor:
        """(N,): 1 for a product without a video."""
        return self.has[:, 1] * (1 - self.has[:, 0])


LASTING = ("bought", "reference", "cart")
"""The entries of a record that stay from one visit to the next."""


def begin_record(length: int, catalogue: Catalogue, profile: Tensor) -> Known:
    """The retailer's knowledge at the start of the first visit of people with these profiles (N, D).

    The categories bought (N, C); reference r, money spent and share of videos in this visit, the last screen
    (its place in SCREENS, -1 before the first), the product in the cart (-1 for none) and the number of
    screens, (N,) each; and the videos and products of this visit (N, 2 length), -1 padding.
    """
    number, nothing = len(profile), profile.new_zeros(len(profile))
    none = torch.full((number,), -1, device=profile.device)
    return {
        "bought": profile.new_zeros(number, int(catalogue.attributes["category"].max()) + 1),
        **dict.fromkeys(("reference", "spent", "videos"), nothing),
        "last": none,
        "cart": none,
        "steps": torch.zeros_like(none),
        "seen": none.unsqueeze(1).expand(-1, 2 * length).contiguous(),
    }


def after_screen(
    catalogue: Catalogue, record: Known, screen: Screen, seen: Feedback, rate: float, kept: float
) -> dict[str, Tensor]:
    """The record after a screen; the signals of ``seen`` are the visible ones.

    ``rate``: of r, to the price that was shown. ``kept``: share that the fading share of videos keeps.
    """
    # Copies, since a server packs the record as bytes: columns of a matrix are not contiguous.
    named, (has_video, has_product) = catalogue.attributes, screen.has.T.contiguous().unbind()
    of_product = (screen.places[..., 1].unsqueeze(1) @ seen.signals).squeeze(1)  # (N, S)
    _, _, _, carted, bought, _ = of_product.T.contiguous().unbind()
    recovered = seen.signals[..., 5].sum(1).clamp(0, 1)
    bought, cart = bought.clamp(0, 1), record["cart"]
    there = seen.shown.any(1)  # without a screen the cart waits
    waiting = (record["steps"] == 0) & (cart >= 0) & there
    recovered = recovered * waiting
    of_category = record["bought"]
    for item, number in ((screen.product, bought), (cart.clamp_min(0), recovered)):
        at = named["category"][item].clamp_min(0).unsqueeze(1)
        of_category = of_category.scatter_reduce(1, at, number.unsqueeze(1), "amax")
    paid = named["price"][screen.product] * screen.log_share.exp() * bought
    paid = paid + named["price"][cart.clamp_min(0)] * recovered
    left = (carted - bought > 0.5) & (has_product > 0)  # in the cart
    kind = (2 * has_video * has_product + has_video * (1 - has_product)).long()
    shown = torch.stack([screen.video, screen.product], 1).masked_fill(screen.has == 0, -1)
    moved = rate * has_product * (screen.log_share - record["reference"])
    return {
        "bought": of_category,
        "reference": record["reference"] + moved,
        "spent": record["spent"] + paid,
        "videos": torch.lerp(has_video, record["videos"], kept),
        "last": torch.where(has_video + has_product > 0, kind, record["last"]),
        "cart": torch.where(left, screen.product, cart.masked_fill(waiting, -1)),
        "steps": record["steps"] + there,
        "seen": torch.cat([record["seen"][:, 2:], shown], 1),
    }


def pieces_of_record(budget: float, catalogue: Catalogue, record: Known) -> dict[str, Tensor]:
    kinds, cart = torch.arange(len(SCREENS), device=record["last"].device), record["cart"].unsqueeze(1)
    return {
        "cart_item": catalogue.embedding.index_select(0, cart.squeeze(1).clamp_min(0)) * (cart >= 0),
        "last_screen": (record["last"].unsqueeze(1) == kinds).float(),
        "videos": record["videos"].unsqueeze(1),
        "reference": record["reference"].unsqueeze(1),
        "spent": (record["spent"] / budget).clamp_max(1).unsqueeze(1),
        "bought[category]": record["bought"],
    }


def ever_permitted(discounts: bool, catalogue: Catalogue) -> Tensor:
    """(I,) bool: False for coupons without discounts."""
    return (catalogue.attributes["kind"] != COUPON) | discounts


def permitted(discounts: bool, catalogue: Catalogue, record: Known) -> Tensor:
    """(N, I) bool: the items that may be shown."""
    ever = torch.nn.functional.pad(ever_permitted(discounts, catalogue), (0, 1))  # padding writes to the last
    seen = record["seen"]
    allowed = ever.expand(len(seen), -1).scatter(1, torch.where(seen < 0, catalogue.num_items, seen), False)
    return allowed[:, :-1]
