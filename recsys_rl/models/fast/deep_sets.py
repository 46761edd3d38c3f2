"""The summary of deep sets of a whole window (deep_sets.py), as one node of the autograd graph.

With the features f_k of the item shown k places ago, its signals s_k, the product a_k of the user's profile
and the item's embedding, and a layer W, b whose rows are those of features, signals and product::

    t_i = f_i W_f + b        x_k = t_(item k) + s_k W_s + a_k w_a        summary = sum_k max(x_k, 0) / L

A layer multiplies the features of all N L entries. Here each of the I items is multiplied once, and
compiled/deep_sets.c takes the rest of an entry. From the gradient G (N, H) at the summary it makes, with
g_k = G / L where x_k > 0::

    dt_i = sum of g_k where item k is i        dW_s = sum s_k g_k        dw_a = sum a_k g_k

The twin in torch is ``DeepSets.read(DeepSets.encode(...))``. It saves 12 % of the flagship's training
(docs/speed.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recsys_rl.functional.compiled import kernels

UNITS = 16  # compiled/deep_sets.c takes so many together


def serves(weight: Tensor, history: Tensor, signals: Tensor, items: Tensor, profile: Tensor | None) -> bool:
    """True if ``session_units`` can take these, and there are fewer items than entries."""
    if kernels.library() is None or weight.shape[1] % UNITS:
        return False
    if items.shape[0] > history.numel() or signals.shape[:2] != history.shape:
        return False
    plain = kernels.plain_ids(history) and kernels.plain(signals) and kernels.plain(items)
    return plain and kernels.plain(weight) and (profile is None or profile.dtype == torch.float32)


def session_units(
    weight: Tensor, bias: Tensor, history: Tensor, signals: Tensor, items: Tensor, profile: Tensor | None
) -> Tensor:
    """The summaries (N, H). Call it only if ``serves`` is True.

    Args:
        weight, bias: (X, H) and (H,), which alone get a gradient.
        history: (N, L) items, -1 for none; ``signals`` (N, L, S).
        items: (I, F), which begin with the embedding.
        profile: (N, D), or None: then no entry has a product.

    Raises IndexError for an item outside the catalogue, ValueError if the shapes don't fit.
    """
    num_features, beside = items.shape[1], signals.shape[2] + (profile is not None)
    if weight.shape[0] != num_features + beside or (profile is not None and len(profile) != len(history)):
        raise ValueError(f"weights {tuple(weight.shape)} don't fit {num_features} + {beside} numbers")
    table = torch.addmm(bias, items, weight[:num_features])  # (I, H)
    known = history, signals, items, None if profile is None else profile.contiguous()
    summary: Tensor = _SessionUnits.apply(table, weight[num_features:], *known)  # type: ignore[no-untyped-call]
    return summary


class _SessionUnits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        table: Tensor,
        weights: Tensor,
        history: Tensor,
        signals: Tensor,
        items: Tensor,
        profile: Tensor | None,
    ) -> Tensor:
        beside = signals.new_empty(*history.shape, len(weights))
        summary = table.new_empty(len(history), table.shape[1])
        library = kernels.library()
        assert library is not None
        outside = library.deep_sets(
            table.data_ptr(),
            *table.shape,
            history.data_ptr(),
            signals.data_ptr(),
            *signals.shape,
            weights.data_ptr(),
            None if profile is None else profile.data_ptr(),
            0 if profile is None else profile.shape[1],
            items.data_ptr(),
            items.shape[1],
            kernels.threads(beside.numel() * table.shape[1]),
            beside.data_ptr(),
            summary.data_ptr(),
        )
        if outside:
            raise IndexError(f"an item is outside -1 .. {len(items) - 1}")
        ctx.save_for_backward(table, weights, history, beside)
        return summary

    @staticmethod
    def backward(ctx: Any, by_summary: Tensor) -> tuple[Tensor | None, ...]:
        kernels.check_first_derivative()
        table, weights, history, beside = ctx.saved_tensors
        by_summary = by_summary.contiguous()
        by_table, by_weights = torch.empty_like(table), torch.empty_like(weights)
        library = kernels.library()
        assert library is not None
        library.deep_sets_gradient(
            table.data_ptr(),
            *table.shape,
            history.data_ptr(),
            beside.data_ptr(),
            *beside.shape,
            weights.data_ptr(),
            by_summary.data_ptr(),
            kernels.threads(beside.numel() * table.shape[1]),
            by_table.data_ptr(),
            by_weights.data_ptr(),
        )
        return by_table, by_weights, None, None, None, None
