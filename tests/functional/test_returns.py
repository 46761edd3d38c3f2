"""Advantages and returns, against numbers worked out by hand and properties of the recursion."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.functional.returns import explained_variance, gae, standardize, standardize_parts

REWARDS = torch.tensor([[1.0], [2.0], [3.0]])
VALUES = torch.tensor([[0.5], [1.0], [1.5]])
NEXT_VALUES = torch.tensor([[1.0], [1.5], [2.0]])
NEVER = torch.zeros(3, 1, dtype=torch.bool)
Record = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, float, float]
AT_ONE = torch.tensor([[False], [True], [False]])


def test_gae_without_ends() -> None:
    # deltas 1 + 0.5 - 0.5 = 1, 2 + 0.75 - 1 = 1.75, 3 + 1 - 1.5 = 2.5; each carries a quarter of the next
    advantages = gae(REWARDS, VALUES, NEXT_VALUES, NEVER, NEVER, 0.5, 0.5)
    assert advantages.flatten().tolist() == [1.59375, 2.375, 2.5]


def test_termination_removes_bootstrap_and_trace() -> None:
    # delta_1 = 2 - 1 = 1, and A_0 = 1 + 0.25 * 1
    advantages = gae(REWARDS, VALUES, NEXT_VALUES, AT_ONE, AT_ONE, 0.5, 0.5)
    assert advantages.flatten().tolist() == [1.25, 1.0, 2.5]


def test_time_limit_cuts_the_trace_and_keeps_the_bootstrap() -> None:
    # V(final_obs) = 4 where the next row's value is 1.5: delta_1 = 2 + 2 - 1 = 3, and A_0 = 1 + 0.25 * 3
    next_values = torch.tensor([[1.0], [4.0], [2.0]])
    advantages = gae(REWARDS, VALUES, next_values, NEVER, AT_ONE, 0.5, 0.5)
    assert advantages.flatten().tolist() == [1.75, 3.0, 2.5]


def test_discounts_multiply_gamma_in_bootstrap_and_trace() -> None:
    """Half of what follows the second step counts: delta_1 = 2 + 0.25 * 1.5 - 1, A_1 = delta_1 + 2.5 / 8."""
    discounts = torch.tensor([[1.0], [0.5], [1.0]])
    advantages = gae(REWARDS, VALUES, NEXT_VALUES, NEVER, NEVER, 0.5, 0.5, discounts)
    assert advantages.flatten().tolist() == [1 + 0.25 * 1.6875, 1.6875, 2.5]
    none = gae(REWARDS, VALUES, NEXT_VALUES, NEVER, NEVER, 0.5, 0.5, 0 * discounts)
    assert none.flatten().tolist() == [0.5, 1.0, 1.5]


def test_lambda_one_gives_n_step_returns() -> None:
    # 1 + 2/2 + 3/4 + 2/8, 2 + 3/2 + 2/4, 3 + 2/2
    returns = gae(REWARDS, VALUES, NEXT_VALUES, NEVER, NEVER, 0.5, 1.0) + VALUES
    assert returns.flatten().tolist() == [3.0, 4.0, 4.0]
    # ended after the second step: 1 + 2/2, 2
    returns = gae(REWARDS, VALUES, NEXT_VALUES, AT_ONE, AT_ONE, 0.5, 1.0) + VALUES
    assert returns.flatten().tolist() == [2.0, 2.0, 4.0]


def test_lambda_zero_gives_the_temporal_difference() -> None:
    assert gae(REWARDS, VALUES, NEXT_VALUES, NEVER, NEVER, 0.5, 0.0).flatten().tolist() == [1.0, 1.75, 2.5]


def test_gamma_zero_uses_one_reward() -> None:
    assert gae(REWARDS, VALUES, NEXT_VALUES, NEVER, NEVER, 0.0, 0.9).flatten().tolist() == [0.5, 1.0, 1.5]


def test_values_after_termination_are_ignored() -> None:
    next_values = torch.tensor([[1.0], [math.nan], [2.0]])
    advantages = gae(REWARDS, VALUES, next_values, AT_ONE, AT_ONE, 0.5, 0.5)
    assert advantages.flatten().tolist() == [1.25, 1.0, 2.5]


def test_exact_value_of_an_endless_session_has_zero_advantage() -> None:
    """Reward 1 for ever at gamma 0.9 has the value 10, wherever a session is cut."""
    ones, tens = torch.ones(50, 2), torch.full((50, 2), 10.0)
    cuts = torch.arange(50).remainder(7).eq(6).unsqueeze(1).expand(50, 2)
    advantages = gae(ones, tens, tens, torch.zeros_like(cuts), cuts, 0.9, 0.95)
    assert_close(advantages, torch.zeros(50, 2), atol=1e-5, rtol=0)


@st.composite
def records(draw: st.DrawFn) -> Record:
    """Rewards, values, next values, terminated, done (T, N each), gamma, lambda."""
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 5)))
    rewards, values, next_values = torch.randn(3, *shape, generator=rng, dtype=torch.float64)
    done = torch.rand(shape, generator=rng) < 0.3
    terminated = done & (torch.rand(shape, generator=rng) < 0.5)
    return rewards, values, next_values, terminated, done, draw(st.floats(0, 1)), draw(st.floats(0, 1))


@given(records())
def test_users_are_independent(record: Record) -> None:
    rewards, values, next_values, terminated, done, gamma, lam = record
    together = gae(rewards, values, next_values, terminated, done, gamma, lam)
    for n in range(together.shape[1]):
        own = [x[:, n : n + 1] for x in (rewards, values, next_values, terminated, done)]
        alone = gae(own[0], own[1], own[2], own[3], own[4], gamma, lam)
        assert_close(alone[:, 0], together[:, n])  # vectors and what is left over may round otherwise


@given(records(), st.integers(0, 11))
def test_advantages_ignore_steps_after_the_end(record: Record, end: int) -> None:
    rewards, values, next_values, terminated, done, gamma, lam = record
    end %= len(rewards)
    done = done.clone()
    done[end] = True
    whole = gae(rewards, values, next_values, terminated, done, gamma, lam)
    head = [x[: end + 1] for x in (rewards, values, next_values, terminated, done)]
    assert_close(whole[: end + 1], gae(head[0], head[1], head[2], head[3], head[4], gamma, lam))


@given(records(), st.floats(0.1, 10))
def test_advantages_scale_with_the_unit_of_the_reward(record: Record, unit: float) -> None:
    rewards, values, next_values, terminated, done, gamma, lam = record
    scaled = gae(unit * rewards, unit * values, unit * next_values, terminated, done, gamma, lam)
    assert_close(scaled, unit * gae(rewards, values, next_values, terminated, done, gamma, lam))


@pytest.mark.parametrize(
    ("predicted", "target", "expected"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], 1.0),
        ([11.0, 12.0, 13.0], [1.0, 2.0, 3.0], 1.0),  # a constant error leaves the variance explained
        ([5.0, 5.0, 5.0], [1.0, 2.0, 3.0], 0.0),
        ([0.0, 2.0, 4.0, 10.0], [0.0, 2.0, 4.0, 6.0], 0.4),  # 1 - 3 / 5
        ([3.0, 2.0, 1.0], [1.0, 2.0, 3.0], -3.0),
        ([0.0, 1.0], [2.0, 2.0], math.nan),
    ],
)
def test_explained_variance(predicted: list[float], target: list[float], expected: float) -> None:
    found = explained_variance(torch.tensor(predicted), torch.tensor(target))
    assert_close(found, torch.tensor(expected), equal_nan=True)


def test_standardize() -> None:
    # mean 2, deviation sqrt(2/3) with B in the denominator
    found = standardize(torch.tensor([1.0, 2.0, 3.0]))
    assert_close(found, torch.tensor([-1.0, 0.0, 1.0]) * 1.5**0.5)
    assert standardize(torch.tensor([5.0])).tolist() == [0.0]
    assert standardize(torch.full((4,), 2.0)).tolist() == [0.0] * 4


@pytest.mark.parametrize("size", [2, 3, 7, 9])
def test_standardize_parts(size: int) -> None:
    """Each part is standardised by itself, also the shorter last part."""
    advantage = torch.tensor([1.0, 2.0, 4.0, 8.0, -3.0, 0.5, 7.0])
    found = standardize_parts(advantage, size)
    assert_close(found, torch.cat([standardize(part) for part in advantage.split(size)]))
    assert_close(found[:size].mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
