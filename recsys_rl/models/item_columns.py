"""The features of an item for networks: its embedding, and columns by name.

This is the place where tags, numbers and attributes of a catalogue become columns. The networks know these
by their names and groups alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_rl.types import Catalogue, ItemFeature

NUMBERS = ("popularity", "quality")
"""The columns of every catalogue after the tags."""


def item_features(catalogue: Catalogue, scaled_as: Catalogue | None = None) -> Tensor:
    """The visible features of each item, (I, D + G + F + 1): the embedding, then ``network_columns``."""
    return torch.cat([catalogue.embedding, network_columns(catalogue, scaled_as)], 1)


def network_columns(catalogue: Catalogue, scaled_as: Catalogue | None = None) -> Tensor:
    """``item_columns`` as networks see them: without NUMBERS at a team's own place.

    There the popularity is the share of decisions that showed an item, which is 0 for each new one: a network
    that sees it shows none of them. So an item's features are its own, whatever other items there are.
    """
    columns = item_columns(catalogue, scaled_as)
    if not catalogue.own:
        return columns
    tags, _, rest = columns.tensor_split((len(catalogue.tag_names), len(catalogue.tag_names) + 2), 1)
    return torch.cat([tags, rest], 1)


def item_columns(catalogue: Catalogue, scaled_as: Catalogue | None = None) -> Tensor:
    """The features of each item beside its embedding, (I, G + F + 1).

    They are the tags (unit norm), the F columns of ``number_names``, and the constant 1.
    A sum over a session then also holds the number of its items. Means and deviations are those of the
    catalogue ``scaled_as``, None for this one: a trained network needs those of its training.
    """
    of = catalogue if scaled_as is None else scaled_as
    known = _numbers(of, of)
    numbers = known if of is catalogue else _numbers(catalogue, of)
    numbers = (numbers - known.mean(0)) / known.std(0, correction=0).clamp_min(1e-6)
    more = feature_columns(catalogue, scaled_as)
    return torch.cat([catalogue.unit_tags, numbers, more, torch.ones_like(numbers[:, :1])], 1)


def number_names(catalogue: Catalogue) -> tuple[str, ...]:
    """The names of the columns of a network between the tags and the constant.

    They are NUMBERS, except at a team's own place, partial ones and ``feature_names``. All but the last are
    standardised, popularity by its logarithm.
    """
    return (*(() if catalogue.own else NUMBERS), *_partial(catalogue), *feature_names(catalogue))


def feature_names(catalogue: Catalogue) -> tuple[str, ...]:
    """The names of the X columns of ``feature_columns``, such as "kind ad" of a class, or "bid"."""
    return tuple(
        name
        for feature in _complete(catalogue)
        for name in ([f"{feature.name} {value}" for value in feature.values] or [feature.name])
    )


def feature_columns(catalogue: Catalogue, scaled_as: Catalogue | None = None) -> Tensor:
    """The classes and numbers of ``Catalogue.features`` that are known of each item, as columns (I, X).

    An item of a class without a name has zeros. ``scaled_as`` as in ``item_columns``.
    """
    of = catalogue if scaled_as is None else scaled_as
    columns = [catalogue.popularity.new_zeros(catalogue.num_items, 0)]
    for feature in _complete(catalogue):
        values, known = catalogue.attributes[feature.name], of.attributes[feature.name]
        if feature.scale == "classes":
            columns.append((values.unsqueeze(1) == torch.arange(len(feature.values)).to(values)).float())
            continue
        if feature.scale == "plain":
            columns.append(values.unsqueeze(1))
            continue
        if feature.scale == "log":
            values, known = values.log1p(), known.log1p()
        deviation = known.std(correction=0).clamp_min(1e-6)
        columns.append(((values - known.mean()) / deviation).unsqueeze(1))
    return torch.cat(columns, 1)


def _complete(catalogue: Catalogue) -> list[ItemFeature]:
    return [feature for feature in catalogue.features if feature.scale not in ("tags", "partial")]


def _partial(catalogue: Catalogue) -> list[str]:
    return [feature.name for feature in catalogue.features if feature.scale == "partial"]


def _numbers(catalogue: Catalogue, of: Catalogue) -> Tensor:
    """Log popularity, quality, and the partial numbers, with their mean in ``of`` where they are unknown."""
    columns = [(catalogue.popularity + 1e-3).log(), catalogue.quality]
    for name in _partial(catalogue):
        values, mean = catalogue.attributes[name], of.attributes[name].nanmean()
        columns.append(torch.where(values.isnan(), mean, values).nan_to_num())
    return torch.stack(columns, 1)
