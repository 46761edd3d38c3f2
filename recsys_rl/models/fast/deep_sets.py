"""The mean and the pushes of deep sets of a whole window (deep_sets.py), as one node of the autograd graph.

With the features f_k of the item shown k places ago, its signals s_k, the product a_k of the user's profile
and the item's embedding, and a layer W, b whose rows are those of features, signals and product::

    t_i = f_i W_f + b        x_k = t_(item k) + s_k W_s + a_k w_a        h_k = max(x_k, 0)
    mean = sum_k h_k / L                    push_k = h_k V + c

A layer multiplies the features of all N L entries. Here each of the I items is multiplied once, and
compiled/deep_sets.c takes the rest of an entry. From the gradients G (N, H) at the mean and P (N, L, STOCKS)
at the pushes it makes, with g_k = G / L + P_k V' where x_k > 0::

    dt_i = sum of g_k where item k is i        dW_s = sum s_k g_k        dw_a = sum a_k g_k
    dV = sum h_k' P_k                          dc = sum P_k

The twin in torch is ``DeepSets.encode``, and the mean in ``DeepSets.read``. It saves 19 % of the flagship's
training (docs/speed.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recsys_rl.functional.compiled import kernels
from recsys_rl.models.deep_sets import STOCKS

UNITS = 16  # compiled/deep_sets.c takes so many together


def serves(weight: Tensor, history: Tensor, signals: Tensor, items: Tensor, profile: Tensor | None) -> bool:
    """True if ``session_units`` can take these, and there are fewer items than entries."""
    if kernels.library() is None or weight.shape[1] % UNITS:
        return False
    if items.shape[0] > history.numel() or signals.shape[:2] != history.shape:
        return False
    plain = kernels.plain_ids(history) and kernels.plain(signals) and kernels.plain(items)
    # A profile of no columns has no memory, and its address would stand for "no profile".
    of_profile = profile is None or (profile.dtype == torch.float32 and profile.numel() > 0)
    return plain and kernels.plain(weight) and of_profile


def session_units(
    weight: Tensor,
    bias: Tensor,
    to_stocks: Tensor,
    first: Tensor,
    history: Tensor,
    signals: Tensor,
    items: Tensor,
    profile: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The means (N, H), and the pushes (N, L, STOCKS), 0 at padding. Call it only if ``serves`` is True.

    Args:
        weight, bias, to_stocks, first: (X, H), (H,), V (H, STOCKS), c (STOCKS,), which alone get a gradient.
        history: (N, L) items, -1 for none; ``signals`` (N, L, S).
        items: (I, F), which begin with the embedding.
        profile: (N, D), or None: then no entry has a product.

    Raises IndexError for an item outside the catalogue, ValueError if the shapes don't fit.
    """
    num_features, beside = items.shape[1], signals.shape[2] + (profile is not None)
    if weight.shape[0] != num_features + beside or (profile is not None and len(profile) != len(history)):
        raise ValueError(f"weights {tuple(weight.shape)} don't fit {num_features} + {beside} numbers")
    if to_stocks.shape != (weight.shape[1], STOCKS) or first.shape != (STOCKS,):
        raise ValueError(f"{tuple(to_stocks.shape)} don't fit {weight.shape[1]} units and {STOCKS} stocks")
    if profile is not None and profile.shape[1] > num_features:
        raise ValueError(f"a profile of {profile.shape[1]} numbers doesn't fit items of {num_features}")
    table = torch.addmm(bias, items, weight[:num_features])  # (I, H)
    known = history, signals, items, None if profile is None else profile.contiguous()
    weights = table, weight[num_features:], to_stocks, first
    result: tuple[Tensor, Tensor] = _SessionUnits.apply(*weights, *known)  # type: ignore[no-untyped-call]
    return result


class _SessionUnits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        table: Tensor,
        weights: Tensor,
        to_stocks: Tensor,
        first: Tensor,
        history: Tensor,
        signals: Tensor,
        items: Tensor,
        profile: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        to_stocks, first = to_stocks.contiguous(), first.contiguous()
        beside = signals.new_empty(*history.shape, len(weights))
        mean = table.new_empty(len(history), table.shape[1])
        pushes = table.new_empty(*history.shape, STOCKS)
        library = kernels.library()
        assert library is not None
        outside = library.deep_sets(
            table.data_ptr(),
            *table.shape,
            history.data_ptr(),
            signals.data_ptr(),
            *signals.shape,
            weights.data_ptr(),
            to_stocks.data_ptr(),
            first.data_ptr(),
            None if profile is None else profile.data_ptr(),
            0 if profile is None else profile.shape[1],
            items.data_ptr(),
            items.shape[1],
            kernels.threads(beside.numel() * table.shape[1]),
            beside.data_ptr(),
            mean.data_ptr(),
            pushes.data_ptr(),
        )
        if outside:
            raise IndexError(f"an item is outside -1 .. {len(items) - 1}")
        ctx.save_for_backward(table, weights, to_stocks, history, beside)
        return mean, pushes

    @staticmethod
    def backward(ctx: Any, by_mean: Tensor, by_pushes: Tensor) -> tuple[Tensor | None, ...]:
        kernels.check_first_derivative()
        table, weights, to_stocks, history, beside = ctx.saved_tensors
        by_mean, by_pushes, turned = by_mean.contiguous(), by_pushes.contiguous(), to_stocks.T.contiguous()
        by_table, by_weights, by_stocks = map(torch.empty_like, (table, weights, turned))
        library = kernels.library()
        assert library is not None
        library.deep_sets_gradient(
            table.data_ptr(),
            *table.shape,
            history.data_ptr(),
            beside.data_ptr(),
            *beside.shape,
            weights.data_ptr(),
            turned.data_ptr(),
            by_mean.data_ptr(),
            by_pushes.data_ptr(),
            kernels.threads(beside.numel() * table.shape[1]),
            by_table.data_ptr(),
            by_weights.data_ptr(),
            by_stocks.data_ptr(),
        )
        by_first = (by_pushes * (history >= 0).unsqueeze(2)).sum((0, 1))
        return by_table, by_weights, by_stocks.T, by_first, None, None, None, None
