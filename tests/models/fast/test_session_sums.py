"""Sums over the sessions of users: by hand, against autograd, and where the inputs are wrong."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.functional.compiled import kernels
from recsys_rl.models.fast.session_sums import session_sums, weigh
from tests.compiled import each_way as each_way
from tests.compiled import without_kernels as without_kernels

N, L, P, F, ITEMS = 37, 6, 4, 19, 11  # users, places, weights, features, items


def inputs(num_signals: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(num_signals)
    history = torch.randint(-1, ITEMS, (N, L), generator=rng)
    signals = torch.randn(N, L, num_signals, generator=rng, dtype=dtype) * (history >= 0).unsqueeze(2)
    weights, table = (torch.randn(size, generator=rng, dtype=dtype) for size in ((P, L), (ITEMS, F)))
    return weights.requires_grad_(), history, signals, table


def strided(x: Tensor) -> Tensor:
    return x.mT.contiguous().mT


def test_by_hand() -> None:
    table = torch.tensor([[1.0, 2.0], [10.0, 20.0]])
    history, signals = torch.tensor([[-1, 0, 1]]), torch.tensor([[[0.0], [3.0], [0.5]]])
    weights = torch.tensor([[7.0, 1.0, 1.0], [7.0, 0.0, 2.0]])
    sums = session_sums(weights, history, signals, table)
    assert sums.tolist() == [[[11.0, 22.0], [20.0, 40.0], [8.0, 16.0], [10.0, 20.0]]]


@pytest.mark.parametrize("num_signals", [0, 1, 3])
def test_sums_and_their_gradient_equal_autograd(num_signals: int) -> None:
    weights, history, signals, table = inputs(num_signals)
    sums = session_sums(weights, history, signals, table)
    expected = weigh(weights, history, signals, table[history])
    assert sums.shape == (N, (1 + num_signals) * P, F)
    assert_close(sums, expected)
    with torch.no_grad():  # as in acting
        assert_close(session_sums(weights, history, signals, table), sums.detach())
    by_sums = torch.randn(sums.shape[2], N, sums.shape[1], generator=torch.Generator().manual_seed(9))
    by_sums = by_sums.permute(1, 2, 0)  # not contiguous
    found, wanted = (torch.autograd.grad(x, weights, by_sums)[0] for x in (sums, expected))
    assert_close(found, wanted, atol=1e-4, rtol=1e-5)


def test_float64_and_inputs_that_are_not_contiguous_have_the_same_sums() -> None:
    weights, history, signals, table = inputs(2, torch.float64)
    assert torch.autograd.gradcheck(lambda x: session_sums(x, history, signals, table), weights)
    w, h, s, t = weights.detach().float(), history, signals.float(), table.float()
    sums = session_sums(w, h, s, t)
    assert_close(session_sums(weights, history, signals, table).float(), sums, atol=1e-5, rtol=1e-5)
    assert_close(session_sums(strided(w), h, s, t), sums)
    assert_close(session_sums(w, strided(h), s, t), sums)
    assert_close(session_sums(w, h, strided(s), t), sums)
    assert_close(session_sums(w, h, s, strided(t)), sums)


def test_independent_of_threads() -> None:
    weights, history, signals, table = inputs(1)
    history, signals = history.repeat(100, 1), signals.repeat(100, 1, 1)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        sums = session_sums(weights, history, signals, table)
        found.append((sums, *torch.autograd.grad(sums, weights, sums.detach())))
    torch.set_num_threads(before)
    for other in found[1:]:
        assert_close(found[0][0], other[0])
        assert_close(found[0][1], other[1], rtol=1e-4, atol=1e-2)


def test_rows_outside_the_table_and_shapes_that_do_not_fit() -> None:
    weights, history, signals, table = inputs(1)
    with pytest.raises(IndexError):
        session_sums(weights, history.clone().fill_(ITEMS), signals, table)
    for wrong in ((weights[:, 1:], history, signals), (weights, history, signals[1:])):
        with pytest.raises(RuntimeError):
            session_sums(*wrong, table)


def test_no_second_derivative() -> None:
    weights, history, signals, table = inputs(1)
    sums = session_sums(weights, history, signals, table)
    if kernels.library() is None:
        torch.autograd.grad(sums.sum(), weights, create_graph=True)
    else:
        with pytest.raises(RuntimeError, match="no second derivative"):
            torch.autograd.grad(sums.sum(), weights, create_graph=True)
