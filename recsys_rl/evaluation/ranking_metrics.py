"""Ranking metrics on held-out events: full ranking, in expectation over all orders of tied items.

A group of m items with equal scores, r of them relevant, takes the places a+1 .. a+m. Each of these places
then holds a relevant item with probability r/m. So a ranking without any order (all scores equal) has the
metrics of the mean random ranking, and no metric depends on the order of the catalogue. McSherry and Najork
2008, "Computing information retrieval performance measures efficiently in the presence of tied scores".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

PER_USER = ("ndcg", "recall", "hit", "mrr", "similarity", "novelty", "popularity")


@dataclass(frozen=True)
class Ranking:
    """Metrics of N users for lists of K items."""

    ndcg: Tensor  # (N,) DCG@K over the best possible DCG@K, in [0, 1] (Järvelin and Kekäläinen 2002)
    recall: Tensor  # (N,) share of the relevant items in the list, in [0, 1]
    hit: Tensor  # (N,) probability of a relevant item in the list
    mrr: Tensor  # (N,) 1 / place of the first relevant item of the whole ranking
    similarity: Tensor  # (N,) mean cosine of the pairs of a list; NaN if K is 1
    novelty: Tensor  # (N,) mean of -log2 popularity in the list, in bits
    popularity: Tensor  # (N,) mean popularity in the list, over its mean in the catalogue
    listed: Tensor  # (N, I) probability that the item is in the list


def rank(
    scores: Tensor, relevant: Tensor, allowed: Tensor, k: int, embedding: Tensor, popularity: Tensor
) -> Ranking:
    """The metrics of N rankings of I items.

    Args:
        scores: (N, I), finite; the highest comes first.
        relevant: (N, I) bool, at least one True in each row, and only where ``allowed``.
        allowed: (N, I) bool, at least ``k`` True in each row; other items are not ranked.
        embedding: (I, D) of norm 1.
        popularity: (I,) in [0, 1]. A popularity of 0 counts as half of the smallest other one in ``novelty``.
    """
    order = scores.masked_fill(~allowed, -torch.inf).argsort(dim=1, descending=True, stable=True)  # (N, I)
    ordered = scores.masked_fill(~allowed, -torch.inf).gather(1, order)
    group = torch.nn.functional.pad((ordered[:, 1:] != ordered[:, :-1]).cumsum(1), (1, 0))  # (N, I)
    hits = (relevant & allowed).gather(1, order).double()
    size = torch.zeros_like(hits).scatter_add_(1, group, torch.ones_like(hits))  # by group
    good = torch.zeros_like(hits).scatter_add_(1, group, hits)
    chance = (good / size.clamp_min(1)).gather(1, group)  # (N, I): the place holds a relevant item
    total = hits.sum(1)

    gain = 1 / torch.arange(2, k + 2, dtype=torch.float64).log2()  # (k,)
    ideal = gain.cumsum(0)[total.long().clamp(1, k) - 1]
    listed_places = chance[:, :k]
    cut = group[:, k - 1 : k]  # (N, 1): the group at place K
    above = (group < cut).sum(1)  # (N,): places above that group
    inside = (k - above).double()  # (N,): its places in the list
    m = size.gather(1, cut).squeeze(1)
    listed_order = torch.where(group < cut, 1.0, torch.where(group == cut, (inside / m).unsqueeze(1), 0.0))
    listed = torch.zeros_like(hits).scatter(1, order, listed_order)

    popular = popularity.double()
    floor = popular[popular > 0].min() / 2 if bool((popular > 0).any()) else torch.tensor(1.0)
    surprise = -popular.clamp_min(float(floor)).log2()
    return Ranking(
        ndcg=(listed_places * gain).sum(1) / ideal,
        recall=listed_places.sum(1) / total,
        hit=_hit(hits, group, cut, inside, m, good),
        mrr=_reciprocal(group, size, good),
        similarity=_similarity(listed, inside, m, embedding.double(), k),
        novelty=listed @ surprise / k,
        popularity=listed @ popular / k / popular.mean().clamp_min(1e-12),
        listed=listed,
    )


def _log_choose(n: Tensor, k: Tensor) -> Tensor:
    return torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)


def _hit(hits: Tensor, group: Tensor, cut: Tensor, inside: Tensor, m: Tensor, good: Tensor) -> Tensor:
    """1 if a group inside the list has a relevant item, else 1 - C(m - r, t) / C(m, t) of the last group."""
    sure = (hits * (group < cut)).sum(1) > 0
    r = good.gather(1, cut).squeeze(1)
    possible = m - r >= inside
    odds = (_log_choose((m - r).maximum(inside), inside) - _log_choose(m, inside)).exp()
    none = torch.where(possible, odds, 0.0)
    return torch.where(sure, 1.0, 1 - none)


def _reciprocal(group: Tensor, size: Tensor, good: Tensor) -> Tensor:
    """E[1 / place of the first relevant item]: sum over j of C(m - j, r - 1) / C(m, r) / (a + j)."""
    sums = []
    for sizes, goods in zip(size, good, strict=True):
        first = int((goods > 0).nonzero()[0])
        above, m, r = sizes[:first].sum(), sizes[first], goods[first]
        j = torch.arange(1, int(m - r) + 2, dtype=torch.float64)
        odds = (_log_choose(m - j, r - 1) - _log_choose(m, r)).exp()
        sums.append((odds / (above + j)).sum())
    return torch.stack(sums)


def _similarity(listed: Tensor, inside: Tensor, m: Tensor, embedding: Tensor, k: int) -> Tensor:
    """Mean cosine of a list's pairs; a pair of the group at K is in the list with t (t - 1) / (m (m - 1))."""
    if k < 2:
        return torch.full_like(inside, torch.nan)
    certain, partly = (listed == 1).double(), ((listed > 0) & (listed < 1)).double()
    sums = [mask @ embedding for mask in (certain, partly)]  # (N, D) each
    counts = [mask.sum(1) for mask in (certain, partly)]
    pairs = [(total.square().sum(1) - count) / 2 for total, count in zip(sums, counts, strict=True)]
    both = inside * (inside - 1) / (m * (m - 1)).clamp_min(1)
    total = pairs[0] + inside / m * (sums[0] * sums[1]).sum(1) + both * pairs[1]
    return total / math.comb(k, 2)


def coverage(unlisted: Tensor, available: Tensor) -> float:
    """Expected share of the available items that at least one list holds.

    ``unlisted`` (I,): the product over users of 1 - ``Ranking.listed``.
    """
    return float((1 - unlisted)[available].mean())
