"""The record of a visitor that a retailer can keep, from the items shown and the visible signals alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from recsys_rl.env import sales
from recsys_rl.env.assortment import COUPON
from recsys_rl.env.screens import SCREENS, Screen
from recsys_rl.functional import rows
from recsys_rl.records import Known
from recsys_rl.types import Catalogue, Feedback

LASTING = ("bought", "reference", "cart")
"""The entries of a record that stay from one visit to the next."""


@dataclass(frozen=True)
class Follower:
    """Keeps the records of N visitors.

    A record holds the categories bought (N, C); reference r, money spent and share of videos in this visit,
    the last screen (its place in SCREENS, -1 before the first), the product in the cart (-1 for none) and the
    number of screens, (N,) each; and the videos and products of this visit (N, 2 length), -1 padding.
    """

    catalogue: Catalogue
    length: int  # most screens of a visit
    discounts: bool  # True if screens have a coupon
    budget: float  # money that counts as 1 when it is spent
    rate: float  # share by which a product moves r to the price that was shown
    kept: float  # share that the fading share of videos keeps after one screen

    def begin(self, profile: Tensor) -> Known:
        """The records at the start of the first visit of people with these profiles (N, D)."""
        number, nothing = len(profile), profile.new_zeros(len(profile))
        none = torch.full((number,), -1, device=profile.device)
        return {
            "bought": profile.new_zeros(number, int(self.catalogue.attributes["category"].max()) + 1),
            **dict.fromkeys(("reference", "spent", "videos"), nothing),
            "last": none,
            "cart": none,
            "steps": torch.zeros_like(none),
            "seen": none.unsqueeze(1).expand(-1, 2 * self.length).contiguous(),
        }

    def next_visit(self, record: Known, profile: Tensor) -> Known:
        """The records at the start of a later visit."""
        return {**self.begin(profile), **{name: record[name] for name in LASTING}}

    def after(self, record: Known, screen: Screen, seen: Feedback) -> dict[str, Tensor]:
        """The records after a screen; the signals of ``seen`` are the visible ones."""
        # Copies, since a server packs the record as bytes: columns of a matrix are not contiguous.
        named, (has_video, has_product) = self.catalogue.attributes, screen.has.T.contiguous().unbind()
        of_product = (screen.places[..., 1].unsqueeze(1) @ seen.signals).squeeze(1)  # (N, S)
        carted = sales.of(of_product, "carted")
        bought = sales.of(of_product, "purchased").clamp(0, 1)
        recovered = sales.of(seen.signals, "recovered").sum(1).clamp(0, 1)
        there, cart = seen.shown.any(1), record["cart"]  # without a screen the cart waits
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
        moved = self.rate * has_product * (screen.log_share - record["reference"])
        return {
            "bought": of_category,
            "reference": record["reference"] + moved,
            "spent": record["spent"] + paid,
            "videos": torch.lerp(has_video, record["videos"], self.kept),
            "last": torch.where(has_video + has_product > 0, kind, record["last"]),
            "cart": torch.where(left, screen.product, cart.masked_fill(waiting, -1)),
            "steps": record["steps"] + there,
            "seen": torch.cat([record["seen"][:, 2:], shown], 1),
        }

    def pieces(self, record: Known) -> dict[str, Tensor]:
        """The pieces of the context, (N, size) each."""
        kinds, cart = torch.arange(len(SCREENS), device=record["last"].device), record["cart"].unsqueeze(1)
        of_cart = self.catalogue.embedding.index_select(0, cart.squeeze(1).clamp_min(0))
        return {
            "cart_item": of_cart * (cart >= 0),
            "last_screen": (record["last"].unsqueeze(1) == kinds).float(),
            "videos": record["videos"].unsqueeze(1),
            "reference": record["reference"].unsqueeze(1),
            "spent": (record["spent"] / self.budget).clamp_max(1).unsqueeze(1),
            "bought[category]": record["bought"],
        }

    @cached_property
    def ever(self) -> Tensor:
        """(I,) bool: False for coupons where screens have none."""
        return (self.catalogue.attributes["kind"] != COUPON) | self.discounts

    def permits(self, record: Known, items: Tensor | None = None) -> Tensor:
        """Bool of the ``items`` (N, K), or (N, I) of all for None: True if they may be shown."""
        seen = record["seen"]
        if items is not None:
            return self.ever[items] & ~rows.rows_hold(seen, items)
        ever = torch.nn.functional.pad(self.ever, (0, 1))  # padding writes to the last
        at = torch.where(seen < 0, self.catalogue.num_items, seen)
        return ever.expand(len(seen), -1).scatter(1, at, False)[:, :-1]

    def possible(self, record: Known) -> bool:
        """True if these numbers can be those of visits under way."""
        within = (record["videos"] >= 0) & (record["videos"] <= 1) & (record["spent"] >= 0)
        within &= (record["reference"] <= 0) & (record["steps"] >= 0)
        within &= (record["last"] >= -1) & (record["last"] < len(SCREENS))
        bought, items = record["bought"], torch.cat([record["seen"], record["cart"].unsqueeze(1)], 1)
        known = (items >= -1) & (items < self.catalogue.num_items)
        return bool(within.all()) and bool(((bought >= 0) & (bought <= 1)).all()) and bool(known.all())
