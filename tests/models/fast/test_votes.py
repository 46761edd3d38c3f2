"""Votes of a two-tower head: by hand, beside torch in double precision, and where the inputs are wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from recsys_rl.functional.compiled import kernels
from recsys_rl.models.fast.votes import by_torch, with_votes
from tests.compiled import each_way as each_way
from tests.compiled import without_kernels as without_kernels


def given(rows: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, list[Tensor]]:
    """A query that is a part of wider rows, as those of a head are, votes, and blocks of two sizes."""
    rng = torch.Generator().manual_seed(rows)
    shapes = [(rows, 31), (5, 19), (rows, 2, 7), (rows, 3, 19)]
    wide, votes, *blocks = (torch.randn(x, generator=rng, dtype=torch.float64).to(dtype) for x in shapes)
    return wide.requires_grad_(), votes.requires_grad_(), [x.requires_grad_() for x in blocks]


def test_by_hand() -> None:
    query = torch.tensor([[1.0, 2.0, 3.0]])
    votes = torch.tensor([[2.0, 9.0], [0.5, -1.0]])
    blocks = [torch.tensor([[[10.0]]]), torch.tensor([[[4.0, 6.0]]])]  # the first has one feature of two
    assert with_votes(query, votes, blocks).tolist() == [[1 + 20 + 2, 2 - 6, 3]]


@pytest.mark.parametrize("rows", [1, 6, 70])
def test_result_and_gradients_equal_torch_in_double(rows: int) -> None:
    def found(of: Callable[..., Tensor], dtype: torch.dtype) -> list[Tensor]:
        wide, votes, blocks = given(rows, dtype)
        result = of(wide[:, :23], votes, blocks)
        weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        return [
            result.detach(),
            *torch.autograd.grad((result * weights.to(dtype)).sum(), [wide, votes, *blocks]),
        ]

    for one, other in zip(found(with_votes, torch.float32), found(by_torch, torch.float64), strict=True):
        assert float((one.double() - other).abs().max() / other.abs().max()) < 5e-7


def test_blocks_without_a_gradient_get_none() -> None:
    wide, votes, blocks = given(4)
    blocks[0] = blocks[0].detach()
    with_votes(wide[:, :23], votes, blocks).sum().backward()
    assert blocks[0].grad is None and blocks[1].grad is not None


def test_acting_gives_the_same_and_threads_change_nothing() -> None:
    before, results = torch.get_num_threads(), []
    wide, votes, blocks = given(2000)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        result = with_votes(wide[:, :23], votes, blocks)
        results.append([result, *torch.autograd.grad(result.square().sum(), [votes, *blocks])])
    torch.set_num_threads(before)
    assert all(torch.allclose(one, other) for one, other in zip(*results, strict=True))
    with torch.no_grad():
        assert torch.equal(with_votes(wide[:, :23], votes, blocks), results[0][0])


def test_shapes_that_do_not_fit() -> None:
    wide, votes, blocks = given(3)
    for wrong in (blocks[:1], [blocks[0][:2], blocks[1]], [blocks[0], torch.ones(3, 3, 20)]):
        with pytest.raises(RuntimeError):
            with_votes(wide[:, :23], votes, wrong)
    if kernels.library() is not None:  # torch would leave out what is too much
        with pytest.raises(RuntimeError):
            with_votes(wide[:, :7], votes, blocks)
