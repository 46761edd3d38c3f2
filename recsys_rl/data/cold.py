"""Items without events: their vectors by ridge regression from the attributes of all items.

With X the attributes of the items with learned vectors V, a new item of attributes x gets the direction of

    m + (x - mean X) B,   B = (XᵀX + lambda I)^-1 Xᵀ (V - m),   m = mean V   (X centred)

(Hoerl and Kennard 1970; for new items for example Gantner et al. 2010, "Learning attribute-to-feature
mappings for cold-start recommendations"). lambda is chosen, and the error measured, on held-out items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_rl.data import bias
from recsys_rl.data.tables.items import ItemFacts
from recsys_rl.types import Catalogue, UserError

LAMBDAS = (1.0, 3.0, 10.0, 30.0, 100.0)
FOLDS = 5
MOST_CLASSES = 100  # of one attribute, the most frequent
FOLD_SEED = [22, 0]
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


def vectors_of_new(catalogue: Catalogue, facts: ItemFacts, new: Sequence[Any]) -> tuple[Tensor, str]:
    """Predicted vectors (n, D) of the items ``new``, and a note with the mean cosine on held-out items.

    ``facts`` are those of both kinds of items. Raises UserError if nothing in them differs between items.
    """
    ids = list(catalogue.item_names or catalogue.item_ids.tolist())
    everyone = [*ids, *new]
    known = facts.genres_and_years(everyone, catalogue.tag_names)
    x = features([*facts.tensors(everyone).values(), known["year"]], known["genres"])
    if x.shape[1] == 0:
        raise UserError("--items has no attributes that differ between items: add genres, a year or others.")
    share = bias.share_of(catalogue)
    v = (bias.without(catalogue.embedding) if share else catalogue.embedding.double()).numpy()
    folds = np.random.default_rng(FOLD_SEED).permutation(len(ids)) % min(FOLDS, len(ids))
    scores = {penalty: heldout_cosines(x[: len(ids)], v, penalty, folds).mean() for penalty in LAMBDAS}
    best = max(scores, key=lambda penalty: scores[penalty])
    mean_alone = heldout_cosines(np.zeros((len(ids), 1)), v, 1.0, folds).mean()
    vectors = torch.from_numpy(predict(x[len(ids) :], ridge(x[: len(ids)], v, best))).float()
    if share:  # a new item is as popular as the least popular one
        vectors = bias.of_items(vectors, catalogue.embedding[:, -1].min().expand(len(new)))
    return vectors, (
        f"with vectors from {x.shape[1]:,} columns of attributes (cosine on held-out items "
        f"{scores[best]:.2f}, of the mean vector alone {mean_alone:.2f})"
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
