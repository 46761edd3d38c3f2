"""The exact highest of many scores, a block of items at a time, without a tensor of size (N, I)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

BLOCK_SCORES = 2**20
"""Scores held at a time. One block is 4 MiB, and still in the cache of a core when its highest are picked."""


def blocks(num_rows: int, num_items: int) -> Iterator[slice]:
    """Consecutive slices of ``num_items``, each with at most BLOCK_SCORES scores for ``num_rows`` rows."""
    size = max(1, BLOCK_SCORES // max(1, num_rows))
    for start in range(0, num_items, size):
        yield slice(start, min(start + size, num_items))


def highest(scores: Tensor, k: int) -> Tensor:
    """Places (N, k) of the ``k`` highest scores in each row of ``scores`` (N, A), highest first."""
    return scores.argmax(1, keepdim=True) if k == 1 else scores.topk(k, 1).indices  # argmax is much faster


def blocked_top_k(
    score: Callable[[slice], Tensor], num_rows: int, num_items: int, k: int
) -> tuple[Tensor, Tensor]:
    """The ``k`` highest of ``num_items`` scores of each row, highest first, as ``torch.topk`` finds them.

    ``score(block)`` returns the scores (N, size of the block) of the items in that slice; -inf forbids an
    item. The choice among equal scores is undefined, as in ``torch.topk``.

    Returns: scores (N, k), and items (N, k) int64 with -1 if fewer than k are allowed.
    Raises ValueError if k is larger than ``num_items``.
    """
    if k > num_items:
        raise ValueError(f"there are only {num_items} items to take the top {k} from")
    best: tuple[Tensor, Tensor] | None = None
    for block in blocks(num_rows, num_items):
        scores, items = _top(score(block), k)  # (N, <= k) each
        items = items + block.start
        if best is not None:
            merged = torch.cat([best[0], scores], 1)  # (N, <= 2k)
            scores, places = _top(merged, k)
            items = torch.cat([best[1], items], 1).gather(1, places)
        best = scores, items
    assert best is not None
    return best[0], best[1].masked_fill(best[0] == -torch.inf, -1)


def _top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and places (N, k at most) of the highest ``scores`` (N, A); the maximum alone is much faster."""
    if k == 1:
        values, places = scores.max(1, keepdim=True)
        return values, places
    top = scores.topk(min(k, scores.shape[1]), 1)
    return top.values, top.indices
