"""Recency-weighted sums over the items of each user's history, and products with rows of a table."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_rl.functional import rows


def recency(history: Tensor, decay: Tensor) -> Tensor:
    """(N, L): decay**k for the item shown k steps ago, 0 at padding; ``decay`` is () or (N,)."""
    age = torch.arange(history.shape[1] - 1, -1, -1, device=history.device)  # (L,)
    return decay.unsqueeze(-1) ** age * (history >= 0)


def weighted_rows(weights: Tensor, table: Tensor, index: Tensor) -> Tensor:
    """sum_k weights (N, L) times the rows ``index`` (N, L) of ``table`` (I, F): (N, F); -1 needs weight 0."""
    vectors = torch.nn.functional.embedding(index.clamp_min(0), table)  # (N, L, F)
    return (weights.unsqueeze(1) @ vectors).squeeze(1)


def products(x: Tensor, table: Tensor, items: Tensor | None) -> Tensor:
    """``x`` (N, F) times all rows of ``table`` (I, F), or times the rows ``items`` (N, C), -1 as row 0."""
    return x @ table.T if items is None else rows.dot_rows(x.contiguous(), table, items.clamp_min(0))
