"""The gate and the hinge units of a two-tower head, added to its scores as one node of the autograd graph.

With the score z_i of item i, the logit b_i of its expected reward, the affinity a_i of the user, the place
p_k,i of the item on unit k, and g, v_k, w_k that depend on the user::

    x_k,i = w_k + p_k,i + c_k a_i + d_k b_i        score_i = z_i + g [b_i] + sum_k v_k max(x_k,i, 0)

[b] is b within -MOST .. MOST. From the gradient G (N, I) at the scores the chain rule gives, with the sums
over items that lie above the hinge (x_k,i > 0)::

    dz = G        dg = sum_i G_i [b_i]        dv_k = sum G_i x_k,i        dw_k = v_k sum G_i
    dc_k = sum_rows v_k sum G_i a_i        dd_k = sum_rows v_k sum G_i b_i        dp_k,i = sum_rows v_k G_i

b and a get no gradient. Torch makes (N, K, I) numbers and keeps them; compiled/curves.c takes all of a
block of items while it lies in the cache. It takes a twentieth of the time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recsys_rl.functional.compiled import kernels

MOST = 4.0  # of b at the gate: beyond it the logistic function behind the towers is flat
UNITS = 4  # compiled/curves.c takes so many together
TASKS = 16  # parts of the rows, each with sums of its own: one order of sums for any number of threads


def by_torch(
    scores: Tensor, gates: Tensor, places: Tensor, slopes: Tensor, affinity: Tensor, expected: Tensor
) -> Tensor:
    """``curves`` by torch's operators; ``places`` may also be (N, K, I), different for each row."""
    units = slopes.shape[1]
    gate, heights, shifts = gates.split([1, units, units], 1)
    of_affinity, of_expected = slopes.unsqueeze(2)  # (K, 1) each
    inputs = of_affinity * affinity.unsqueeze(1) + of_expected * expected.unsqueeze(1)  # (N, K, I)
    values = (inputs + places + shifts.unsqueeze(2)).relu()
    units_together: Tensor = (heights.unsqueeze(1) @ values).squeeze(1)  # (N, I)
    result: Tensor = scores + gate * expected.clamp(-MOST, MOST) + units_together
    return result


def curves(
    scores: Tensor, gates: Tensor, places: Tensor, slopes: Tensor, affinity: Tensor, expected: Tensor
) -> Tensor:
    """The scores (N, I) with gate and units.

    Args:
        scores: (N, I), the z_i. They may be overwritten.
        gates: (N, 1 + 2 K): g, the v_k, the w_k.
        places: (K, I), the p_k,i.
        slopes: (2, K): the c_k, the d_k.
        affinity, expected: (N, I), without a gradient.
    """
    each = scores, gates, places, slopes, affinity, expected
    fits = slopes.shape[1] > 0 and slopes.shape[1] % UNITS == 0  # without a unit the loops leave the gate out
    if kernels.library() is None or not fits or not all([kernels.plain(x) for x in each]):  # noqa: C419 (a generator is slower)
        return by_torch(*each)
    _check(*each)
    if torch.is_grad_enabled():
        result: Tensor = _Curves.apply(*each)  # type: ignore[no-untyped-call]
        return result
    return _forward(*each)


def _check(scores: Tensor, gates: Tensor, places: Tensor, slopes: Tensor, *others: Tensor) -> None:
    """Raise ValueError for shapes that don't fit: the loops read the memory behind the tensors."""
    (rows, width), units = scores.shape, slopes.shape[1]
    fitting = gates.shape == (rows, 1 + 2 * units) and places.shape == (units, width)
    if not fitting or slopes.shape[0] != 2 or any(tensor.shape != scores.shape for tensor in others):
        shapes = [tuple(tensor.shape) for tensor in (scores, gates, places, slopes, *others)]
        raise ValueError(f"scores, gates, places, slopes, affinity and expected don't fit: {shapes}")


def _forward(
    scores: Tensor, gates: Tensor, places: Tensor, slopes: Tensor, affinity: Tensor, expected: Tensor
) -> Tensor:
    library = kernels.library()
    assert library is not None
    library.curves(
        *[tensor.data_ptr() for tensor in (gates, places, slopes, affinity, expected)],
        *scores.shape,
        slopes.shape[1],
        kernels.threads(scores),
        scores.data_ptr(),
    )
    return scores


class _Curves(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        scores, *others = tensors
        ctx.save_for_backward(*others)
        return _forward(scores.data, *others)  # marked as dirty, autograd would copy the gradient of a view

    @staticmethod
    def backward(ctx: Any, by_scores: Tensor) -> tuple[Tensor | None, ...]:
        kernels.check_first_derivative()
        gates, places, slopes, affinity, expected = ctx.saved_tensors
        by_scores = by_scores.contiguous()
        by_gates = torch.empty_like(gates)
        by_places, by_slopes = places.new_empty(TASKS, *places.shape), slopes.new_empty(TASKS, *slopes.shape)
        library = kernels.library()
        assert library is not None
        library.curves_gradient(
            *[tensor.data_ptr() for tensor in (by_scores, gates, places, slopes, affinity, expected)],
            *by_scores.shape,
            slopes.shape[1],
            TASKS,
            kernels.threads(by_scores),
            *[tensor.data_ptr() for tensor in (by_gates, by_places, by_slopes)],
        )
        return by_scores, by_gates, by_places.sum(0), by_slopes.sum(0), None, None
