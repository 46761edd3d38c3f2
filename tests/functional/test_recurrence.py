"""The gated recurrent unit over many steps, beside torch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.functional import recurrence

T, N, H = 6, 3, 4


Given = tuple[Tensor, Tensor, Tensor, Tensor]


def made(dtype: torch.dtype) -> tuple[Given, Tensor]:
    """The inputs a (T, N, 3 H), the first state, U and b; and where the state ends."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(T, N, 3 * H), (N, H), (3 * H, H), (3 * H,)]
    inputs, hidden, across, bias = (torch.randn(x, generator=generator, dtype=dtype) for x in sizes)
    empty = torch.zeros(T, N, dtype=torch.bool)
    empty[1, 0] = empty[3, 2] = empty[3, 0] = empty[5, 1] = True
    return (inputs, hidden, across, bias), empty


def one_by_one(inputs: Tensor, hidden: Tensor, across: Tensor, bias: Tensor, empty: Tensor) -> Tensor:
    """The states (T, N, H) by torch.gru_cell, whose entries are here the inputs themselves."""
    identity, zero = torch.eye(3 * H, dtype=inputs.dtype), torch.zeros(3 * H, dtype=inputs.dtype)
    states = []
    for t in range(T):
        stays = inputs[t, :, H : 2 * H].isinf().all(1, keepdim=True)  # (N, 1)
        finite = inputs[t].masked_fill(stays, 0.0)
        hidden = torch.where(stays, hidden, torch.gru_cell(finite, hidden, identity, across, zero, bias))
        hidden = hidden.masked_fill(empty[t].unsqueeze(1), 0.0)
        states.append(hidden)
    return torch.stack(states)


def test_states_are_those_of_torch() -> None:
    given, empty = made(torch.float32)
    assert_close(recurrence.gru(*given, empty), one_by_one(*given, empty), atol=1e-6, rtol=0)
    given[0][2, 1, H : 2 * H] = given[0][0, 0, H : 2 * H] = torch.inf
    found = recurrence.gru(*given, empty)
    assert_close(found, one_by_one(*given, empty), atol=1e-6, rtol=0)
    assert_close(found[2, 1], found[1, 1])
    assert_close(found[0, 0], given[1][0])
    assert not found[empty].any() and bool(found[~empty].all())


def test_gradients_are_those_of_automatic_differentiation() -> None:
    given, empty = made(torch.float64)
    given[0][2, 1, H : 2 * H] = torch.inf  # this row stays as it is, and its inputs have gradient 0
    weights = torch.randn(T, N, H, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    of: list[list[Tensor | None]] = []
    for states in (recurrence.gru, one_by_one):
        inputs, hidden, across, bias = leaves = [x.clone().requires_grad_() for x in given]
        (states(inputs, hidden, across, bias, empty) * weights).sum().backward()
        of.append([x.grad for x in leaves])
    assert_close(of[0], of[1], atol=1e-12, rtol=0)
    assert all(x is not None and bool(x.any()) for x in of[0])
    assert of[0][0] is not None and not of[0][0][2, 1].any()


def test_gradients_agree_with_differences() -> None:
    given, empty = made(torch.float64)
    leaves = [x.requires_grad_() for x in given]
    assert torch.autograd.gradcheck(recurrence.gru, (*leaves, empty))


def test_there_is_no_second_derivative() -> None:
    given, empty = made(torch.float32)
    inputs = given[0].requires_grad_()
    states = recurrence.gru(*given, empty)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(states.sum(), inputs, create_graph=True)
