"""Means with intervals, and returns of sessions longer than a rollout."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recsys_rl.utils.metrics import SessionReturns, interval

CPU = torch.device("cpu")


def test_interval_by_hand() -> None:
    # mean 3, deviation sqrt(5/2), and Student's t with 4 degrees of freedom is 2.776445: 2.776445 / sqrt(2)
    found = interval(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert found.mean == 3.0
    assert found.low == pytest.approx(3 - 1.963243, abs=1e-5)
    assert found.high == pytest.approx(3 + 1.963243, abs=1e-5)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=50))
def test_interval_agrees_with_scipy(samples: list[float]) -> None:
    found = interval(torch.tensor(samples))
    error = float(stats.sem(samples))
    assert found.mean == pytest.approx(sum(samples) / len(samples), abs=1e-6)
    if error > 0:
        low, high = stats.t.interval(0.95, len(samples) - 1, loc=found.mean, scale=error)
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6, abs=1e-6)
    else:
        assert found.low == found.high == pytest.approx(found.mean)


def test_one_sample_has_no_interval() -> None:
    found = interval(torch.tensor([2.5]))
    assert found.mean == 2.5 and math.isnan(found.low) and math.isnan(found.high)


def test_interval_covers_the_true_mean_in_95_percent() -> None:
    draws = torch.randn(2000, 5, generator=torch.Generator().manual_seed(0))
    covered = sum(found.low <= 0 <= found.high for found in map(interval, draws))
    assert abs(covered / 2000 - 0.95) < 0.015


def test_session_returns_across_rollouts() -> None:
    sessions = SessionReturns(2, CPU)
    returns, lengths = sessions.add(torch.tensor([[1.0, 10.0], [2.0, 20.0]]), torch.zeros(2, 2) > 0)
    assert returns.tolist() == [] and lengths.tolist() == []
    # user 0 ends with 1 + 2 + 3; user 1 with 10 + 20 + 30 + 40, and both begin again at 0
    done = torch.tensor([[True, False], [False, True], [True, False]])
    returns, lengths = sessions.add(torch.tensor([[3.0, 30.0], [4.0, 40.0], [5.0, 50.0]]), done)
    assert returns.tolist() == [6.0, 100.0, 9.0] and lengths.tolist() == [3.0, 4.0, 2.0]
    returns, lengths = sessions.add(torch.tensor([[7.0, 60.0]]), torch.tensor([[True, True]]))
    assert returns.tolist() == [7.0, 110.0] and lengths.tolist() == [1.0, 2.0]


@given(st.integers(0, 2**32), st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_session_returns_do_not_depend_on_rollout_length(seed: int, cuts: list[int]) -> None:
    rng = torch.Generator().manual_seed(seed)
    rewards = torch.randint(0, 9, (sum(cuts), 3), generator=rng).float()
    done = torch.rand(rewards.shape, generator=rng) < 0.3
    whole = SessionReturns(3, CPU).add(rewards, done)
    pieces, sessions = [], SessionReturns(3, CPU)
    for part, ends in zip(rewards.split(cuts), done.split(cuts), strict=True):
        pieces.append(sessions.add(part, ends))
    for number in (0, 1):
        assert torch.equal(torch.cat([piece[number] for piece in pieces]), whole[number])
