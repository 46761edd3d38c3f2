"""Items without events: their vectors by ridge regression from the attributes of all items.

With X the attributes of the items with learned vectors V, a new item of attributes x gets the direction of

    m + (x - mean X) B,   B = (XᵀX + lambda I)^-1 Xᵀ (V - m),   m = mean V   (X centred)

(Hoerl and Kennard 1970; for new items for example Gantner et al. 2010, "Learning attribute-to-feature
mappings for cold-start recommendations"). lambda is chosen, and the error measured, on held-out items.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_rl.data import bias
from recsys_rl.tables.items import ItemFacts
from recsys_rl.types import Catalogue, UserError

LAMBDAS = (1.0, 3.0, 10.0, 30.0, 100.0)
FOLDS = 5
MOST_CLASSES = 100  # of one attribute, the most frequent
_FOLD_STREAM = 22  # one of the independent streams of the seed
Floats = NDArray[np.float64]


def ridge(x: Floats, v: Floats, penalty: float) -> tuple[Floats, Floats, Floats]:
    """The mean of X (F,), B (F, D) and m (D,) of the equation at the top, from X (n, F) and V (n, D)."""
    centre, mean = x.mean(0), v.mean(0)
    centred = x - centre
    gram = centred.T @ centred + penalty * np.eye(x.shape[1])
    return centre, np.linalg.solve(gram, centred.T @ (v - mean)), mean


def predict(x: Floats, fit: tuple[Floats, Floats, Floats]) -> Floats:
    """Unit vectors (n, D) of items with attributes X (n, F)."""
    centre, weights, mean = fit
    vectors = mean + (x - centre) @ weights
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def heldout_cosines(x: Floats, v: Floats, penalty: float, folds: NDArray[np.int64]) -> Floats:
    """(n,): cosine between the vector of each item and its prediction from the items of the other folds."""
    cosines = np.zeros(len(v))
    for fold in np.unique(folds):
        own = folds == fold
        cosines[own] = (predict(x[own], ridge(x[~own], v[~own], penalty)) * v[own]).sum(1)
    return cosines


def with_cold_items(
    catalogue: Catalogue, facts: ItemFacts, seen: set[object], count: int, seed: int
) -> Catalogue:
    """The catalogue and at most ``count`` items of ``facts`` that have no events, with predicted vectors.

    Args:
        facts: attributes of items by id; those of both kinds of items are used.
        seen: the ids of all items with events; the catalogue may hold only some of them.

    The catalogue's ``source`` then gives the mean cosine on held-out items. Popularity is 0 and quality the
    catalogue's mean. Raises UserError if no item without events is described, or if there are no attributes.
    """
    ids = list(catalogue.item_names or catalogue.item_ids.tolist())
    new = [id_ for id_ in facts.ids if id_ not in seen][:count]
    if not new:
        raise UserError("--items names no item without events: leave it out, or add items to the file.")
    everyone = [*ids, *new]
    attributes = facts.tensors(everyone)
    genres = torch.tensor(
        [[float(name in facts.genres.get(id_, ())) for name in catalogue.genre_names] for id_ in everyone]
    ).reshape(len(everyone), len(catalogue.genre_names))
    year = torch.tensor([facts.years.get(id_, float("nan")) for id_ in everyone], dtype=torch.float32)
    x = features([*attributes.values(), year], genres)
    if x.shape[1] == 0:
        raise UserError("--items has no attributes that differ between items: add genres, a year or others.")
    share = bias.share_of(catalogue)
    known = bias.without(catalogue.embedding) if share else catalogue.embedding.double()
    v = known.numpy()
    folds = np.random.default_rng([_FOLD_STREAM, seed]).permutation(len(ids)) % min(FOLDS, len(ids))
    scores = {penalty: heldout_cosines(x[: len(ids)], v, penalty, folds).mean() for penalty in LAMBDAS}
    best = max(scores, key=lambda penalty: scores[penalty])
    mean_alone = heldout_cosines(np.zeros((len(ids), 1)), v, 1.0, folds).mean()
    vectors = torch.from_numpy(predict(x[len(ids) :], ridge(x[: len(ids)], v, best))).float()
    if share:  # a new item is as popular as the least popular one
        vectors = bias.of_items(vectors, catalogue.embedding[:, -1].min().expand(len(new)))
    said = (
        f"{len(new):,} items without events, with vectors from {x.shape[1]:,} columns of attributes (cosine "
        f"on held-out items {scores[best]:.2f}, of the mean vector alone {mean_alone:.2f})"
    )
    return _extended(catalogue, new, facts, attributes, genres, year, vectors, said)


def _extended(
    catalogue: Catalogue,
    new: Sequence[object],
    facts: ItemFacts,
    attributes: dict[str, Tensor],
    genres: Tensor,
    year: Tensor,
    vectors: Tensor,
    said: str,
) -> Catalogue:
    number = len(new)

    def longer(values: Tensor, fill: float) -> Tensor:
        return torch.cat([values, values.new_full((number,), fill)])

    named = bool(catalogue.item_names)
    next_id = int(catalogue.item_ids.max()) + 1
    ids = list(range(next_id, next_id + number)) if named else [int(str(id_)) for id_ in new]
    norm = catalogue.factors["norm"]
    titles = [facts.titles.get(id_, str(id_) if named else f"item {id_}") for id_ in new]
    return dataclasses.replace(
        catalogue,
        embedding=torch.cat([catalogue.embedding, vectors]),
        item_ids=torch.cat([catalogue.item_ids, torch.tensor(ids)]),
        titles=(*catalogue.titles, *titles),
        genres=torch.cat([catalogue.genres, genres[-number:]]),
        popularity=longer(catalogue.popularity, 0.0),
        quality=longer(catalogue.quality, float(catalogue.quality.mean())),
        year=torch.cat([catalogue.year, year[-number:]]),
        available=longer(catalogue.available, 1),
        source=f"{catalogue.source}; {said}",
        attributes=attributes,
        item_names=(*catalogue.item_names, *map(str, new)) if named else (),
        factors={**catalogue.factors, "norm": longer(norm, float(norm.median()))},
    )


def features(attributes: Sequence[Tensor], genres: Tensor) -> Floats:
    """(n, F): genres, numbers in z-scores (0 for a gap), and a column for each class; constant columns go."""
    columns = [genres.double().numpy()]
    for values in attributes:
        if values.is_floating_point():
            column = values.double().numpy()
            known = np.isfinite(column)
            spread = column[known].std() if known.any() else 0.0
            scaled = np.where(known, (column - column[known].mean()) / spread, 0.0) if spread > 0 else None
            columns += [] if scaled is None else [scaled[:, None]]
        else:
            kinds, counts = np.unique(values.numpy(), return_counts=True)
            classes = kinds[np.argsort(-counts, kind="stable")][:MOST_CLASSES]
            columns.append((values.numpy()[:, None] == classes).astype(np.float64))
    x = np.concatenate(columns, axis=1)
    return x[:, x.std(0) > 0]
