"""The expert of `satiation`: appeal, with prices of patience and of items near the favourites."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from benchmarks.experts.form import Expert, FollowedObs, Walk
from recsys_rl.env.satiation import Satiation, SatiationState
from recsys_rl.functional.recency import products
from recsys_rl.records import Known
from recsys_rl.types import Interface, Obs


def begin(users: Satiation, interface: Interface, obs: Obs) -> Known:
    """The hidden state at the start of a session, with the profile for the taste."""
    profile = obs.context[:, interface.place_of("profile")]
    return {
        "taste": profile,
        "weary_of": torch.zeros_like(profile),
        "weary_of_genres": profile.new_zeros(len(profile), users.genres.shape[1]),
        "patience": profile.new_full((len(profile),), users.config.patience_start),
    }


def step(
    users: Satiation, known: Known, items: Tensor, signals: Tensor, numbers: Mapping[str, Tensor]
) -> Known:
    """The state after the equations; the taste moves along the item by ``learned`` times the residual."""
    state = SatiationState(**known, profile=known["taste"])
    items = items.unsqueeze(1)  # (N, 1)
    told = users.respond(state, items, torch.ones_like(items, dtype=torch.bool), None)
    after, _ = users.advance(state, items, told)
    residual = numbers["learned"] * (signals[:, 0] - told.signals[:, 0, 0])  # (N,)
    return {
        "taste": state.taste.addcmul(residual.unsqueeze(1), users.catalogue.embedding[items[:, 0]]),
        "weary_of": after.weary_of,
        "weary_of_genres": after.weary_of_genres,
        "patience": after.patience.clamp_min(LEAST_PATIENCE),
    }


def prospects(users: Satiation, state: SatiationState, items: Tensor | None) -> tuple[Tensor, Tensor]:
    """``Satiation.prospects`` of the ``items`` (N, C), -1 padding; None for all items."""
    base = users._base(  # (N, C)
        products(state.taste, users.catalogue.embedding, items),
        products(state.weary_of, users.catalogue.embedding, items),
        products(state.weary_of_genres, users.genres, items),
        state.patience,
    )
    return users._outlook(
        base, users.catch if items is None else users.catch[items.clamp_min(0)], state.patience
    )


def tiresomeness(users: Satiation, state: SatiationState, items: Tensor | None) -> Tensor:
    """``Satiation.tiresomeness`` by the profile, of the ``items`` (N, C), -1 padding; None for all items."""
    if items is None:
        return users.tiresomeness(users.as_known(state))
    of_items, of_genres, user = users.favourites(state.profile)
    wear = products(of_items[user], users.catalogue.embedding, items)
    return users.config.satiation_strength * (wear + products(of_genres[user], users.genres, items))


def scores(
    users: Satiation,
    interface: Interface,
    obs: FollowedObs,
    numbers: Mapping[str, Tensor],
    items: Tensor | None,
) -> Tensor:
    """Appeal, with a price of patience and one of items near the favourites, by the state of the walk.

    ::

        score_i = appeal_i + price min(change of patience_i, 1 - p) - near (n - 1) / 10 tiresomeness_i
        price   = patience + ahead n / 10 + last [n <= 3]                        [n steps are left]
    """
    number = {name: value.unsqueeze(-1) for name, value in numbers.items()}  # (1,) or (N, 1)
    state = SatiationState(**obs.known, profile=obs.context[:, interface.place_of("profile")])
    reward, change = prospects(users, state, items)  # (N, C) each
    assert obs.history is not None
    left = interface.session_length - (obs.history >= 0).sum(1, keepdim=True)  # (N, 1)
    price = number["patience"] + number["ahead"] * left / 10 + number["last"] * (left <= 3)
    near = number["near"] * (left - 1) / 10
    return reward.addcmul_(price, change).addcmul_(near, tiresomeness(users, state, items), value=-1)


LEAST_PATIENCE = 0.01
"""The walk's lower bound of the patience: a user who is still there has some left."""
EXPERT = Expert(
    "Appeal, with a price of patience by the steps that are left and one of items near the favourites; "
    "patience and weariness are followed by the equations, the profile for the taste.",
    {
        "learned": (0.1, 0.1),
        "patience": (-0.5, 0.5),
        "ahead": (5.0, 1.0),
        "last": (0.0, 0.5),
        "near": (0.6, 0.2),
    },
    scores,
    Walk(begin, step, stock="patience"),
)
