"""Weights for items with other columns: those of a shared column are kept by its name.

A row or a column of several weights belongs to each column of the item features
(``item_columns.column_names``). With other columns, such as other genres of films, these weights have another
shape, and all the rest of the network is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from recsys_rl.models.actor_critic import ActorCritic
from recsys_rl.models.heads import TwoTowerHead
from recsys_rl.models.item_columns import Column


class Place(NamedTuple):
    """The part of a weight that multiplies or makes item features."""

    axis: int
    start: int  # place of the first feature on this axis
    blocks: int = 1  # number of times that all features follow one another


def feature_places(model: ActorCritic) -> dict[str, Place]:
    """The parts of the model's weights that belong to item features, by the name of the weight."""
    found, signals = {}, model.shapes.num_signals
    if model.session is not None:
        found["hidden.weights.0"] = Place(1, model.num_inputs, model.session.num_blocks)
    if model.encoder is not None:
        name, axis = model.encoder.entry_weight
        found[f"encoder.{name}"] = Place(axis, 0, 1 + signals * model.encoder.products)  # sequence.entries
    if model.next_signals is not None:
        found["next_signals.layer.weight"] = Place(1, 0, signals)
        found["next_signals.layer.bias"] = Place(0, 0, signals)
    if isinstance(model.head, TwoTowerHead):
        axes = {"tower.weight": 0, "query.weight": 1, "query.bias": 0, "votes": 1}
        found |= {f"head.{name}": Place(axis, 0) for name, axis in axes.items()}
    return found


def carried(
    weights: Mapping[str, Tensor], model: ActorCritic, old: Sequence[Column], new: Sequence[Column]
) -> dict[str, Tensor]:
    """``weights`` of a model with the item columns ``old``, in the shapes of ``model``, which has ``new``.

    Weights of a column in ``new`` alone are zero, and those of a column in ``old`` alone are left out. A
    weight that differs from that of ``model`` in more than these columns is returned as it is.
    """
    own = model.state_dict()
    place = model.embeddings[0]
    first = place.stop - place.start  # D: the embedding comes first
    place_of = {name: first + at for at, name in enumerate(old)}
    kept = [*range(first), *(place_of.get(name, -1) for name in new)]
    # (F_i,): the place among the old features, -1 for a new column
    before = first + len(old)
    found = dict(weights)
    for name, (axis, start, blocks) in feature_places(model).items():
        x = weights[name]
        if x.ndim <= axis or x.shape[axis] - own[name].shape[axis] != blocks * (len(old) - len(new)):
            continue
        after = range(start + blocks * before, x.shape[axis])
        of_blocks = (at if at < 0 else start + block * before + at for block in range(blocks) for at in kept)
        index = torch.tensor([*range(start), *of_blocks, *after], device=x.device)
        shape = [-1 if place == axis else 1 for place in range(x.ndim)]
        found[name] = x.index_select(axis, index.clamp_min(0)).masked_fill((index < 0).view(shape), 0.0)
    return found
