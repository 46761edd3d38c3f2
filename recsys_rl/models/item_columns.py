"""The features of an item for networks: its embedding, and columns by name.

This is the place where tags, numbers and attributes of a catalogue become columns. The networks know these
by their names and groups alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_rl.types import Catalogue

NUMBERS = ("popularity", "quality", "year")
"""The columns of every catalogue after the tags."""
Column = tuple[str, str]
"""Group and name of a column, such as ("tag", "Drama") or ("number", "popularity")."""


def item_features(catalogue: Catalogue, scaled_as: Catalogue | None = None) -> Tensor:
    """The visible features of each item, (I, D + G + X + 4): the embedding, then ``item_columns``."""
    return torch.cat([catalogue.embedding, item_columns(catalogue, scaled_as)], 1)


def item_columns(catalogue: Catalogue, scaled_as: Catalogue | None = None) -> Tensor:
    """The features of each item beside its embedding, (I, G + X + 4), named by ``column_names``.

    They are the tags (the genres of films, unit norm), the standardised NUMBERS, popularity by its logarithm,
    the X columns of ``feature_columns``, and the constant 1.
    A sum over a session then also holds the number of its items. Means and deviations are those of the
    catalogue ``scaled_as``, None for this one: a trained network needs those of its training.
    """
    of = catalogue if scaled_as is None else scaled_as
    known = _numbers(of, of.year.nanmean())
    numbers = known if of is catalogue else _numbers(catalogue, of.year.nanmean())
    numbers = (numbers - known.mean(0)) / known.std(0, correction=0).clamp_min(1e-6)
    more = feature_columns(catalogue, scaled_as)
    return torch.cat([catalogue.unit_genres, numbers, more, torch.ones_like(numbers[:, :1])], 1)


def column_names(catalogue: Catalogue) -> tuple[Column, ...]:
    """The names of ``item_columns``, in their order; a name is unique within its group."""
    groups = {
        "tag": catalogue.genre_names,
        "number": NUMBERS,
        "feature": feature_names(catalogue),
        "constant": ("1",),
    }
    return tuple((group, name) for group, names in groups.items() for name in names)


def feature_names(catalogue: Catalogue) -> tuple[str, ...]:
    """The names of the X columns of ``feature_columns``, such as "kind ad" of a class, or "bid"."""
    return tuple(
        name
        for feature in catalogue.features
        for name in ([f"{feature.name} {value}" for value in feature.values] or [feature.name])
    )


def feature_columns(catalogue: Catalogue, scaled_as: Catalogue | None = None) -> Tensor:
    """The attributes of the items that a policy sees, by ``Catalogue.features``, as columns (I, X).

    An item of a class without a name has zeros. ``scaled_as`` as in ``item_columns``.
    """
    of = catalogue if scaled_as is None else scaled_as
    columns = [catalogue.popularity.new_zeros(catalogue.num_items, 0)]
    for feature in catalogue.features:
        values, known = catalogue.attributes[feature.name], of.attributes[feature.name]
        if feature.scale == "classes":
            columns.append((values.unsqueeze(1) == torch.arange(len(feature.values)).to(values)).float())
            continue
        if feature.scale == "log":
            values, known = values.log1p(), known.log1p()
        deviation = known.std(correction=0).clamp_min(1e-6)
        columns.append(((values - known.mean()) / deviation).unsqueeze(1))
    return torch.cat(columns, 1)


def _numbers(catalogue: Catalogue, mean_year: Tensor) -> Tensor:
    """(I, 3): log popularity, quality and year, with ``mean_year`` where the year is unknown."""
    year = torch.where(catalogue.year.isnan(), mean_year, catalogue.year)
    return torch.stack([(catalogue.popularity + 1e-3).log(), catalogue.quality, year.nan_to_num()], 1)
