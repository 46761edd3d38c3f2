"""The votes of a two-tower head as one node of the autograd graph.

With the inputs x_b in the space of item features, and a weight for each of them and each feature::

    query = W h + sum_b weight_b x_b        dweight_b = sum_rows G x_b        dx_b = weight_b G

from the gradient G at the query. Torch reads the inputs once for the product and once for the sum, backwards
twice, and has a dozen operators; compiled/votes.c reads them once. A head has two queries (expected.py). It
saves 5 % of the flagship's training (docs/speed.md).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recsys_rl.functional.compiled import kernels

TASKS = 16  # parts of the rows, each with sums of its own: one order of sums for any number of threads


def by_torch(query: Tensor, votes: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    """``with_votes`` by torch's operators."""
    of_blocks = votes.split([block.shape[1] for block in blocks])  # (number, F) each
    for block, of_block in zip(blocks, of_blocks, strict=True):
        vote = (of_block[:, : block.shape[2]] * block).sum(1)  # (N, size)
        query = query + nn.functional.pad(vote, (0, query.shape[1] - block.shape[2]))
    return query


def with_votes(query: Tensor, votes: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    """``query`` with the votes added, (N, Q).

    Args:
        query: (N, Q), Q >= F.
        votes: (P, F).
        blocks: (N, number, size) each, P together. Features beyond ``size`` <= F count as 0.
    """
    if not _served(query, votes, blocks):
        return by_torch(query, votes, blocks)
    rows, numbers = query.shape[0], sum(block.shape[1] for block in blocks)
    if any(block.shape[0] != rows or block.shape[2] > votes.shape[1] for block in blocks) or (
        numbers != votes.shape[0] or votes.shape[1] > query.shape[1]
    ):
        raise RuntimeError(f"votes {tuple(votes.shape)} don't fit {[tuple(block.shape) for block in blocks]}")
    if torch.is_grad_enabled():
        result: Tensor = _Votes.apply(query, votes, *blocks)  # type: ignore[no-untyped-call]
        return result
    return _forward(query, votes, blocks)


def _served(query: Tensor, votes: Tensor, blocks: Sequence[Tensor]) -> bool:
    if kernels.library() is None or query.dtype != torch.float32 or query.stride(1) != 1 or not query.is_cpu:
        return False
    return kernels.plain(votes) and all([kernels.plain(block) for block in blocks])  # noqa: C419 (a generator is slower)


def _described(blocks: Sequence[Tensor]) -> tuple[Any, ...]:
    """Addresses, numbers, sizes and the number of the blocks."""
    array = ctypes.c_int64 * len(blocks)
    numbers, sizes = array(*[x.shape[1] for x in blocks]), array(*[x.shape[2] for x in blocks])
    return kernels.addresses(blocks), numbers, sizes, len(blocks)


def _forward(query: Tensor, votes: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    library, result = kernels.library(), votes.new_empty(query.shape)
    assert library is not None
    library.votes(
        query.data_ptr(),
        query.stride(0),
        *query.shape,
        votes.data_ptr(),
        votes.shape[1],
        *_described(blocks),
        kernels.threads(votes.shape[0] * query.numel()),
        result.data_ptr(),
    )
    return result


class _Votes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, votes: Tensor, *blocks: Tensor) -> Tensor:
        ctx.save_for_backward(votes, *blocks)
        return _forward(query, votes, blocks)

    @staticmethod
    def backward(ctx: Any, by_query: Tensor) -> tuple[Tensor | None, ...]:
        kernels.check_first_derivative()
        votes, *blocks = ctx.saved_tensors
        by_query = by_query.contiguous()
        by_votes = votes.new_empty(TASKS, *votes.shape)
        wanted = ctx.needs_input_grad[2:]
        by_blocks = [torch.empty_like(x) if need else None for x, need in zip(blocks, wanted, strict=True)]
        places = [None if by is None else by.data_ptr() for by in by_blocks]
        library = kernels.library()
        assert library is not None
        library.votes_gradient(
            by_query.data_ptr(),
            *by_query.shape,
            votes.data_ptr(),
            votes.shape[1],
            *_described(blocks),
            TASKS,
            kernels.threads(votes.shape[0] * by_query.numel()),
            by_votes.data_ptr(),
            (ctypes.c_void_p * len(blocks))(*places),
        )
        return by_query, by_votes.sum(0), *by_blocks
