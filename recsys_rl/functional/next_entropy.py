"""The entropy of what a log shows next, after each item or set of items.

Gao et al. 2023, "Alleviating Matthew Effect of Offline Reinforcement Learning in Interactive Recommendation"
(DORL), SIGIR, arXiv:2307.04571.

For a set s of items that were shown last, in any order, and the shares p(i | s) of the items shown next::

    H(s) = - sum_i p(i | s) log p(i | s) / log I

It is between 0, one item always follows, or the log lacks s, and 1, all I items follow equally often.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def next_entropies(items: Tensor, num_items: int, order: int) -> tuple[Tensor, Tensor]:
    """The sets that the log shows, and the entropy of what follows each.

    Args:
        items: (G, T, K) int64 of G sessions, -1 at empty places and after the end.
        num_items: I.
        order: items of a set: 1, or more if the steps show single items.

    Returns: ``keys`` (M,) int64, ascending (``keys_of``), and ``entropies`` (M,) float32.
    """
    t = items.shape[1]
    if t <= order:
        return items.new_zeros(0), torch.zeros(0)
    sets = torch.stack([items[:, x : t - order + x] for x in range(order)], -1)  # (G, T', K, order)
    key, following = keys_of(sets, num_items), items[:, order:]  # (G, T', K) each
    pairs = torch.stack(torch.broadcast_tensors(key.unsqueeze(3), following.unsqueeze(2)), -1)
    pairs = pairs.flatten(0, 3)  # (G T' K K, 2)
    pairs = pairs[(pairs >= 0).all(1)]
    found, counts = pairs.unique(dim=0, return_counts=True)  # by key, then by what follows
    keys, place, rows = found[:, 0].unique_consecutive(return_inverse=True, return_counts=True)
    if not len(rows):
        return items.new_zeros(0), torch.zeros(0)
    number = counts.double()
    total = torch.zeros(len(keys), dtype=torch.float64).index_add_(0, place, number)
    share = number / total[place]
    entropy = torch.zeros(len(keys), dtype=torch.float64).index_add_(0, place, -share * share.log())
    return keys, (entropy / math.log(max(2, num_items))).float()


def keys_of(sets: Tensor, num_items: int) -> Tensor:
    """(...) int64: a number for each set of ``sets`` (..., order), in any order; -1 where an item is -1."""
    ordered = sets.sort(-1).values
    key = torch.zeros_like(ordered[..., 0])
    for item in ordered.unbind(-1):
        key = key * num_items + item
    return torch.where((sets >= 0).all(-1), key, -1)


def look_up(keys: Tensor, entropies: Tensor, wanted: Tensor) -> Tensor:
    """(...): the entropies of the sets ``wanted`` (...); 0 for a set that is not among ``keys`` (M,)."""
    if not len(keys):
        return torch.zeros_like(wanted, dtype=torch.float32)
    place = torch.searchsorted(keys, wanted.contiguous()).clamp_max(len(keys) - 1)
    return torch.where(keys[place] == wanted, entropies[place], 0.0)
