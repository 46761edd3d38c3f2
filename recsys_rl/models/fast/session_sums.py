"""Weighted sums over the items of each user's session, as one node of the autograd graph.

With the features f_k of the item shown k places ago, its signals s_1 ... s_S, and weights w_p(k)::

    out_p = sum_k w_p(k) f_k        out_{p,i} = sum_k w_p(k) s_{i,k} f_k

    dw_p(k) = sum_users f_k . (d(out_p) + sum_i s_{i,k} d(out_{p,i}))

Torch copies the features of all places, empty ones too, and multiplies a small matrix for each user.
compiled/rows.c reads the rows of the items that were shown.

It saves 5 % of the flagship's training (docs/speed.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding as rows_of

from recsys_rl.functional.compiled import kernels

WIDEST = 2**16  # P times F: compiled/rows.c keeps a row of that many floats on the stack
TASKS = 16  # parts of the users, each with a sum of its own: one order of sums for any number of threads


def weigh(weights: Tensor, history: Tensor, signals: Tensor, features: Tensor) -> Tensor:
    """``session_sums`` by torch's operators. ``features`` (N, L, F) count only where history is not -1."""
    shown = (history >= 0).to(signals.dtype).unsqueeze(1)  # (N, 1, L)
    scales = torch.cat([shown, shown * signals.mT], 1)  # (N, 1 + S, L): no gradient flows here
    return (scales.unsqueeze(2) * weights).flatten(1, 2) @ features  # (N, (1 + S) P, F)


def session_sums(weights: Tensor, history: Tensor, signals: Tensor, table: Tensor) -> Tensor:
    """The sums (N, (1 + S) P, F): first those without a signal, then those of each signal.

    Args:
        weights: (P, L), of the oldest place first. They alone need a gradient.
        history: (N, L) rows of the table, the latest last, -1 for none; no other negative number.
        signals: (N, L, S).
        table: (I, F).

    Raises IndexError if the table has no such row, RuntimeError if the shapes don't fit.
    """
    if not _served(weights, history, signals, table):
        return weigh(weights, history, signals, rows_of(history.clamp_min(0), table))
    if torch.is_grad_enabled():
        sums: Tensor = _SessionSums.apply(weights, history, signals, table)  # type: ignore[no-untyped-call]
        return sums
    return _forward(weights, history, signals, table)


def _served(weights: Tensor, history: Tensor, signals: Tensor, table: Tensor) -> bool:
    """True if the compiled loops can take these: they read the memory behind tensors that must fit."""
    if kernels.library() is None or not kernels.plain_ids(history):
        return False
    fitting = signals.shape[:2] == history.shape and weights.shape[1] == history.shape[1]
    fitting = fitting and len(weights) * table.shape[1] <= WIDEST
    return fitting and kernels.plain(weights) and kernels.plain(signals) and kernels.plain(table)


def _forward(weights: Tensor, history: Tensor, signals: Tensor, table: Tensor) -> Tensor:
    num_weights, size = len(weights), table.shape[1]
    spread = weights.T.unsqueeze(2).expand(-1, -1, size).contiguous()  # (L, P, F)
    sums = table.new_empty(len(history), (1 + signals.shape[2]) * num_weights, size)
    _call(spread, history, signals, table, False, sums)
    return sums


def _call(
    spread: Tensor, history: Tensor, signals: Tensor, table: Tensor, backward: bool, sums: Tensor
) -> None:
    """Write ``sums``, or from the gradient at them add to that at ``spread`` (TASKS, L, P, F)."""
    library = kernels.library()
    assert library is not None
    outside = library.session_sums(
        table.data_ptr(),
        *table.shape,
        history.data_ptr(),
        signals.data_ptr(),
        *signals.shape,
        spread.shape[-2] * spread.shape[-1],
        TASKS,
        kernels.threads(sums),
        backward,
        spread.data_ptr(),
        sums.data_ptr(),
    )
    if outside:
        raise IndexError(f"a row is outside -1 .. {len(table) - 1}")


class _SessionSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, history: Tensor, signals: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(history, signals, table)
        ctx.num_weights = len(weights)
        return _forward(weights, history, signals, table)

    @staticmethod
    def backward(ctx: Any, by_sums: Tensor) -> tuple[Tensor, None, None, None]:
        kernels.check_first_derivative()
        history, signals, table = ctx.saved_tensors
        length, size = history.shape[1], table.shape[1]
        by_spread = table.new_zeros(TASKS, length, ctx.num_weights, size)
        _call(by_spread, history, signals, table, True, by_sums.contiguous())
        return by_spread.sum((0, 3)).T, None, None, None
