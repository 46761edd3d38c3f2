"""Statistics of views: shares of variance, AUCs by rates of users and videos, and the gain of a taste."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recsys_rl.logs.users import real_or_learned

Array = NDArray[Any]
PRIOR = 5.0  # a rate is shrunk as if it had this many more views at the overall rate
RANKS, WEIGHTS = (1, 2, 4), (0.25, 0.5, 1.0)  # of a low-rank taste
FITTED = 0.75  # share of the training views that choose nothing
TRUE_WEIGHTS = (0.5, 1.0, 1.5, 2.0)  # of a true taste; the best counts
HIGHEST = 0.95  # of a chance that is the product of two rates


def variance_share(values: Array, group: Array) -> float:
    """Share of the variance that lies between groups, by the one-way analysis of variance.

    Groups of different sizes n_g count as ones of (N - sum n_g^2 / N) / (G - 1) (Searle, Casella and
    McCulloch 1992, "Variance components", section 3.6).
    """
    group = np.unique(group, return_inverse=True)[1]
    size = np.bincount(group)
    number, total = len(size), len(values)
    mean = np.bincount(group, values) / size
    within = ((values - mean[group]) ** 2).sum() / (total - number)
    between = (size * (mean - values.mean()) ** 2).sum() / (number - 1)
    share = (between - within) / ((total - (size**2).sum() / total) / (number - 1))
    return float(share / (share + within))


def auc(score: Array, label: Array) -> float:
    """``recsys_rl.logs.users.real_or_learned.auc`` of arrays; NaN if all labels are equal."""
    area = real_or_learned.auc(torch.tensor(score), torch.tensor(label))
    return float("nan") if area is None else area


def aucs(user: Array, video: Array, often: Array, seed: int = 0) -> tuple[float, float]:
    """AUC of ``often`` on a random half of the views, by rates in the other half: of videos, of both."""
    first = _half(often, seed)
    of_video = _log_rate(video, often, first)[~first]
    label = often[~first].astype(bool)
    return auc(of_video, label), auc(of_video + _log_rate(user, often, first)[~first], label)


def gain_of_taste(
    user: Array, video: Array, often: Array, affinity: Array | None = None, seed: int = 0
) -> float:
    """By how much a taste raises the AUC of ``aucs`` by users and videos, on the same half of the views.

    The taste is ``affinity`` (V,), the true one, with the best of several weights. Without it, it is a
    low-rank fit to the other half. Its rank and weight are the best ones of a fit to three quarters of that
    half, judged on the last quarter.
    """
    first = _half(often, seed)
    user, video = (np.unique(group, return_inverse=True)[1] for group in (user, video))
    both = _log_rate(user, often, first) + _log_rate(video, often, first)  # (V,)
    label = often.astype(bool)
    base = auc(both[~first], label[~first])
    if affinity is not None:
        areas = (auc((both + weight * affinity)[~first], label[~first]) for weight in TRUE_WEIGHTS)
        return max(areas) - base
    fitted = first & (np.random.default_rng(seed + 1).random(len(often)) < FITTED)
    judged = first & ~fitted
    tried = {
        (rank, weight): auc(score[judged], label[judged])
        for rank in RANKS
        for weight, score in _with_taste(user, video, often, fitted, rank, WEIGHTS)
    }
    rank, weight = max(tried, key=lambda chosen: tried[chosen])
    ((_, score),) = _with_taste(user, video, often, first, rank, [weight])
    return auc(score[~first], label[~first]) - base


def _with_taste(
    user: Array, video: Array, often: Array, seen: Array, rank: int, weights: Sequence[float]
) -> Iterator[tuple[float, Array]]:
    """Each weight and the score (V,) by users, videos and a taste of this rank, fitted to the views ``seen``.

    The taste is made of singular vectors of the table of residuals, (often - p) / sqrt(p (1 - p)) with p by
    the rates, and 0 where nothing was seen.
    """
    both = _log_rate(user, often, seen) + _log_rate(video, often, seen)  # (V,)
    p = np.exp(np.minimum(both - np.log(often[seen].mean()), np.log(HIGHEST)))
    deviation = np.sqrt(p * (1 - p))
    shape = user.max() + 1, video.max() + 1
    cell, residual = (user * shape[1] + video)[seen], ((often - p) / deviation)[seen]
    count = np.bincount(cell, minlength=shape[0] * shape[1])
    table = np.bincount(cell, residual, minlength=len(count)) / np.maximum(1, count)
    torch.manual_seed(0)  # svd_lowrank starts from random vectors
    u, s, v = torch.svd_lowrank(torch.from_numpy(table.reshape(shape)).float(), q=rank + 8, niter=4)
    taste = ((u[:, :rank] * s[:rank]) @ v[:, :rank].T).numpy()[user, video] / deviation
    yield from ((weight, both + weight * taste) for weight in weights)


def _half(often: Array, seed: int) -> Array:
    """(V,) bool: the random half of the views that rates and tastes are fitted to."""
    return np.asarray(np.random.default_rng(seed).random(len(often)) < 0.5)


def _log_rate(group: Array, often: Array, first: Array) -> Array:
    """(V,): logarithm of the shrunk rate of ``often`` in each view's group, by the views of ``first``."""
    group = np.unique(group, return_inverse=True)[1]
    hits = np.bincount(group[first], often[first], minlength=group.max() + 1) + PRIOR * often[first].mean()
    views = np.bincount(group[first], minlength=group.max() + 1) + PRIOR
    return np.asarray(np.log(hits / views)[group])
