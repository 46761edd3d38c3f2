"""Operations of a simulator's step on rows of tables, each in one pass.

A simulator multiplies users by the embeddings of items, adds these to the weariness of users, and appends
items to histories. Torch copies the rows first and then reads the copies; rows.c reads the rows without a
copy. Without the compiled loops torch's operators are used.

Rows outside a table raise IndexError.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from recsys_rl.functional.compiled import kernels


def dot_rows(x: Tensor, table: Tensor, items: Tensor) -> Tensor:
    """``x`` (N, D) times the rows ``items`` (N, K) of ``table`` (I, D): (N, K)."""
    library = _serving(x, table, items)
    if library is None:
        return (x.unsqueeze(1) * _gather(table, items)).sum(-1)
    (number, size), (rows, places) = table.shape, items.shape
    result = x.new_empty(rows, places)
    outside = library.dot_rows(
        x.data_ptr(),
        table.data_ptr(),
        items.data_ptr(),
        rows,
        places,
        size,
        number,
        kernels.threads(rows * size),
        result.data_ptr(),
    )
    return _checked(result, outside, table)


def add_rows(x: Tensor, table: Tensor, items: Tensor, shown: Tensor, scale: float = 1.0) -> Tensor:
    """``x`` (N, D) plus ``scale`` times the sum of the rows ``items`` (N, K) that are ``shown`` (N, K)."""
    library = _serving(x, table, items)
    if shown.shape != items.shape or shown.dtype != torch.bool:
        raise ValueError(f"shown {tuple(shown.shape)} doesn't fit items {tuple(items.shape)}")
    if library is None or not shown.is_contiguous():
        total = _gather(table, items).masked_fill_(~shown.unsqueeze(-1), 0).sum(1)  # (N, D)
        return total.mul_(scale).add_(x)
    (number, size), (rows, places) = table.shape, items.shape
    result = torch.empty_like(x)
    outside = library.add_rows(
        x.data_ptr(),
        table.data_ptr(),
        items.data_ptr(),
        shown.data_ptr(),
        rows,
        places,
        size,
        number,
        scale,
        kernels.threads(rows * size),
        result.data_ptr(),
    )
    return _checked(result, outside, table)


def beside_rows(x: Tensor, table: Tensor, items: Tensor) -> Tensor:
    """``x`` (N, D) beside the rows ``items`` (N, 1) of ``table`` (I, D), with zeros for -1: (N, 2D)."""
    library = _serving(x, table, items)
    if items.shape[1] != 1:
        raise ValueError(f"items are {tuple(items.shape)}: they must be ({len(x)}, 1), one for each user")
    if library is None:
        if bool((items < -1).any()):
            raise IndexError(f"a row is outside -1 .. {len(table) - 1}")
        last = table.index_select(0, items[:, 0].clamp_min(0))
        return torch.cat([x, last.masked_fill_(items < 0, 0.0)], -1)
    rows, size = x.shape
    result = x.new_empty(rows, 2 * size)
    outside = library.beside_rows(
        x.data_ptr(),
        table.data_ptr(),
        items.data_ptr(),
        rows,
        size,
        table.shape[0],
        kernels.threads(2 * rows * size),
        result.data_ptr(),
    )
    return _checked(result, outside, table)


def push_rows(old: Tensor, fresh: Tensor, shown: Tensor) -> Tensor:
    """``old`` (N, L, ...) without its first entry, then ``fresh`` (N, 1, ...), where ``shown`` (N, 1).

    Other rows stay as they are.
    """
    rows, length, *rest = old.shape
    if fresh.shape != (rows, 1, *rest) or fresh.dtype != old.dtype:
        raise ValueError(f"entries {tuple(fresh.shape)} don't fit the ends of {tuple(old.shape)}")
    if shown.shape != (rows, 1) or shown.dtype != torch.bool:
        raise ValueError(f"shown {tuple(shown.shape)} doesn't fit {rows} rows")
    library = _plain(old, fresh, shown)
    numbers = old.numel()
    if library is None or not numbers:
        moved = torch.cat([old[:, 1:], fresh], 1)
        return torch.where(shown.view(-1, *[1] * (old.ndim - 1)), moved, old)
    result = torch.empty_like(old)
    library.push_rows(
        old.data_ptr(),
        fresh.data_ptr(),
        shown.data_ptr(),
        rows,
        length,
        fresh.nbytes // rows,
        kernels.threads(numbers),
        result.data_ptr(),
    )
    return result


def rows_hold(ids: Tensor, sought: Tensor) -> Tensor:
    """(N, K) bool: True where the row of ``ids`` (N, L) holds this one of its ``sought`` (N, K)."""
    rows, length = ids.shape
    if sought.ndim != 2 or sought.shape[0] != rows:
        raise ValueError(f"sought is {tuple(sought.shape)}: it must have {rows} rows of ids")
    library = _plain(ids, sought)
    if library is None or ids.dtype != torch.int64 or sought.dtype != torch.int64:
        return torch.cat([(ids == one).any(1, keepdim=True) for one in sought.split(1, 1)], 1)
    result = torch.empty_like(sought, dtype=torch.bool)
    library.rows_hold(
        ids.data_ptr(),
        sought.data_ptr(),
        rows,
        length,
        sought.shape[1],
        kernels.threads(rows * length),
        result.data_ptr(),
    )
    return result


def _gather(table: Tensor, items: Tensor) -> Tensor:
    """The same as table[items], in half the time."""
    return table.index_select(0, items.flatten()).view((*items.shape, table.shape[1]))


def _serving(x: Tensor, table: Tensor, items: Tensor) -> ctypes.CDLL | None:
    """The compiled loops; None if they can't take users ``x``, this table and these items."""
    (rows, size), (number, _) = x.shape, items.shape
    if table.shape[1] != size or number != rows:
        raise ValueError(
            f"users {tuple(x.shape)}, a table {tuple(table.shape)} and items {tuple(items.shape)} don't fit"
        )
    if x.dtype != torch.float32 or table.dtype != torch.float32 or items.dtype != torch.int64:
        return None
    return _plain(x, table, items)


def _plain(first: Tensor, *others: Tensor) -> ctypes.CDLL | None:
    """The compiled loops; None unless all tensors are contiguous and in the CPU's memory."""
    if not (first.is_cpu and first.is_contiguous()):
        return None
    for tensor in others:  # a generator would take longer than the checks
        if not (tensor.is_cpu and tensor.is_contiguous()):
            return None
    return kernels.library()


def _checked(result: Tensor, outside: int, table: Tensor) -> Tensor:
    if outside:
        raise IndexError(f"a row is outside 0 .. {len(table) - 1}")
    return result
