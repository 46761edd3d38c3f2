"""Screens of a retailer: slates of a video, a product, the empty place and a coupon."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.env.assortment import COUPON, EMPTY, PRODUCT, VIDEO
from recsys_rl.types import Catalogue

SCREENS = ((PRODUCT, EMPTY), (VIDEO, EMPTY), (VIDEO, PRODUCT))  # kinds of the places


def patterns(discounts: bool) -> tuple[tuple[int, ...], ...]:
    """The kinds of the places of each screen, with a coupon in the last one with ``discounts``."""
    return tuple((*screen, *([COUPON] if discounts else [])) for screen in SCREENS)


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
