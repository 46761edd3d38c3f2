"""Votes of several inputs on the features of an item, added to a query, as one node of the autograd graph.

With inputs x_b of a user in the space of item features, and weights v_b::

    query' = query + sum_b v_b * x_b        (elementwise products)

    d(query) = d(query')        dv_b = sum_users d(query') * x_b        dx_b = d(query') * v_b

Torch writes the products to memory and reads them again. compiled/rows.c takes one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recsys_rl.functional.compiled import kernels


def add_votes(query: Tensor, votes: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    """``query`` (N, Q) plus the sum of ``votes`` (B, F) times the x_b, in its first columns: (N, Q).

    ``blocks`` (N, number, size) each hold the x_b, B together, with size <= F <= Q. Features beyond ``size``
    count as 0. Raises ValueError if the shapes don't fit.
    """
    numbers, sizes = [x.shape[1] for x in blocks], [x.shape[2] for x in blocks]
    fitting = {len(x) for x in blocks} == {len(query)} and sum(numbers) == len(votes)
    if not fitting or not max(sizes) <= votes.shape[1] <= query.shape[1]:
        shapes = [tuple(x.shape) for x in (query, votes, *blocks)]
        raise ValueError(f"a query {shapes[0]}, votes {shapes[1]} and inputs {shapes[2:]} don't fit")
    if kernels.library() is not None and all(map(kernels.plain, (query, votes, *blocks))):
        if torch.is_grad_enabled():
            result: Tensor = _AddVotes.apply(query, votes, *blocks)  # type: ignore[no-untyped-call]
            return result
        return _forward(query, votes, blocks)
    for block, of_block in zip(blocks, votes.split(numbers), strict=True):
        vote = (of_block[:, : block.shape[2]] * block).sum(1)  # (N, size)
        query = query + nn.functional.pad(vote, (0, query.shape[1] - block.shape[2]))
    return query


def _forward(query: Tensor, votes: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    result, library, at = query.clone(), kernels.library(), votes.data_ptr()
    assert library is not None
    for block in blocks:
        sizes = *block.shape, votes.shape[1], query.shape[1], kernels.threads(block)
        library.add_votes(at, block.data_ptr(), *sizes, result.data_ptr())
        at += block.shape[1] * votes[0].nbytes
    return result


class _AddVotes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, votes: Tensor, *blocks: Tensor) -> Tensor:
        ctx.save_for_backward(votes, *blocks)
        return _forward(query, votes, blocks)

    @staticmethod
    def backward(ctx: Any, by_query: Tensor) -> tuple[Tensor | None, ...]:
        kernels.check_first_derivative()
        votes, *blocks = ctx.saved_tensors
        by_votes, by_blocks, at = torch.zeros_like(votes), [], 0
        for block, needed in zip(blocks, ctx.needs_input_grad[2:], strict=True):
            number, size = block.shape[1:]
            by_vote = by_query[:, :size].unsqueeze(1)  # (N, 1, size)
            by_votes[at : at + number, :size] = (by_vote * block).sum(0)
            by_blocks.append(by_vote * votes[at : at + number, :size] if needed else None)
            at += number
        return by_query, by_votes, *by_blocks
