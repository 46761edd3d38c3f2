"""The expert of `shop`: the best screen by the equations.

The profile stands for the taste, and the sameness is that of the screens of this visit. Video v and product
p are the best of their kind by the expected reward R of each alone. With s the satisfaction, the screen with
the highest value is shown: its items have the highest scores::

    video: R_v + patience s_v        product: R_p + patience s_p + alone
    both: R_v + patience s_v + R_p + pair

A search finds the numbers patience, alone and pair, and wear and weary, which multiply the sameness and the
share of videos.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.experts.form import Expert
from recsys_rl.env import shop as platform
from recsys_rl.env.assortment import COUPON, EMPTY, PRODUCT, VIDEO
from recsys_rl.functional.recency import products, weighted_rows
from recsys_rl.types import Interface, Obs

NUMBERS = {
    "wear": (1.0, 0.5),
    "weary": (1.0, 0.5),
    "patience": (0.3, 0.3),
    "alone": (0.0, 0.2),
    "pair": (0.0, 0.1),
}
"""First value and first deviation of each number."""


def scores(
    user_model: Any, interface: Interface, obs: Obs, numbers: Mapping[str, Tensor], items: Tensor | None
) -> Tensor:
    """Scores (N, C) of the ``items`` (N, C), or (N, I) of all for None; see ``Expert``."""
    users, catalogue = user_model, user_model.catalogue
    number = {name: value.unsqueeze(-1) for name, value in numbers.items()}  # (1,) or (N, 1)
    profile, videos, reference, met = (
        obs.context[:, interface.place_of(name)]
        for name in ("profile", "videos", "reference", "bought[category]")
    )
    at = slice(None) if items is None else items.clamp_min(0)
    kind, discount = (catalogue.attributes[name][at] for name in ("kind", "discount"))
    facts, category = users.facts[at], users.category[at]
    allowed = obs.allowed(catalogue.num_items) if items is None else items >= 0
    need = met.index_select(1, category) if items is None else met.gather(1, category)
    near = number["wear"] * products(sameness(users, interface, obs), catalogue.embedding, items)
    dots = torch.stack([products(profile, catalogue.embedding, items), near], -1)
    zero = torch.zeros_like(videos)  # (N, 1)
    appeal = users.appeal(dots, facts[..., 0], zero, number["weary"] * videos)
    match = users.match(dots, facts[..., 0], zero, need)
    wish = users.wish(match, facts[..., 3], reference)
    reward = users.rewards_of(appeal, match, wish, 1.0, facts)
    satisfaction = torch.where(kind == VIDEO, appeal.sigmoid(), users.interest(match))
    value = reward + number["patience"] * satisfaction
    (of_video, video), (of_product, product), (_, empty) = (
        value.masked_fill(~(allowed & (kind == place)), -torch.inf).max(1, keepdim=True)
        for place in (VIDEO, PRODUCT, EMPTY)
    )
    below = reward.gather(1, product) + number["pair"]
    screen = torch.cat([of_product + number["alone"], of_video, of_video + below], 1).argmax(1, keepdim=True)
    result: Tensor = reward - 50 * (kind == EMPTY) + (kind == COUPON) * (1 - discount)
    for place, needed, above in (
        (video, screen != 0, 100.0),
        (product, screen != 1, 90.0),
        (empty, screen != 2, 80.0),
    ):
        result = result.scatter_add(1, place, above * needed.to(result))
    return result


def sameness(user_model: Any, interface: Interface, obs: Obs) -> Tensor:
    """m (N, D) after the screens of the history: a fading mean of their videos, or products alone."""
    assert obs.history is not None
    catalogue = user_model.catalogue
    kind = catalogue.attributes["kind"][obs.history.clamp_min(0)].masked_fill(obs.history < 0, -1)
    kind = kind.unflatten(1, (-1, interface.slate_size))  # (N, screens, K)
    video = kind == VIDEO
    main = video | ((kind == PRODUCT) & ~video.any(2, keepdim=True))
    age = torch.arange(kind.shape[1] - 1, -1, -1, device=kind.device).unsqueeze(1)  # (screens, 1)
    kept = platform.MONOTONY_KEPT
    weights = (1 - kept) * kept**age * main
    return weighted_rows(weights.flatten(1), catalogue.embedding, obs.history)


EXPERT = Expert(
    "The screen with the highest expected reward by the equations, with a price of patience and of kinds.",
    NUMBERS,
    scores,
)
