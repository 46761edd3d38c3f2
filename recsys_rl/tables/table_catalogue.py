"""The catalogue of a log without a checkpoint: its items, and their attributes from a file."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recsys_rl.tables.items import ItemFacts
from recsys_rl.types import Catalogue

MOST_ALONE = 256  # items without a known fact that get a feature each
MOST_CLASSES = 50


def catalogue_of_items(ids: Sequence[object], facts: ItemFacts, shown: Tensor, source: str) -> Catalogue:
    """The catalogue of the items ``ids`` (I,); its embedding holds what is known of them.

    That is: genres, standardised numbers, and classes one by one. Without any fact each of up to MOST_ALONE
    items has a feature of its own. ``shown`` (I,) float32, the share of rows that show an item, is the
    popularity; no reward of the log is in a feature, so that cross-fitting leaks nothing.
    """
    number = len(ids)
    names = tuple(sorted({name for row in facts.genres.values() for name in row}))
    genres = torch.tensor([[float(name in facts.genres.get(id_, ())) for name in names] for id_ in ids]).view(
        number, len(names)
    )
    parts = [genres] if names else []
    for values in facts.tensors(ids).values():
        if values.is_floating_point():
            parts.append(((values - values.mean()) / values.std().clamp_min(1e-6)).nan_to_num().unsqueeze(1))
        elif int(values.max()) < MOST_CLASSES:
            parts.append(torch.nn.functional.one_hot(values).float())
    if not parts and number <= MOST_ALONE:
        parts = [torch.eye(number)]
    embedding = torch.cat([*parts, torch.zeros(number, 2)], 1)  # never of size 1, as single pieces are
    return Catalogue(
        embedding=embedding,
        item_ids=torch.tensor(ids) if number and isinstance(ids[0], int) else torch.arange(number),
        titles=tuple(str(facts.titles.get(id_, id_)) for id_ in ids),
        genres=genres,
        genre_names=names,
        popularity=shown,
        quality=torch.zeros(number),
        year=torch.tensor([facts.years.get(id_, float("nan")) for id_ in ids]),
        available=torch.ones(number, dtype=torch.bool),
        source=source,
    )


def knows_items(catalogue: Catalogue) -> bool:
    """True if the embedding of ``catalogue_of_items`` holds more than the identity of an item."""
    of = catalogue.embedding[:, :-2]
    return of.shape[1] > 0 and not (len(of) == of.shape[1] and torch.equal(of, torch.eye(len(of))))
