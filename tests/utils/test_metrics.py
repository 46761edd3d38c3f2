"""Means with intervals."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recsys_rl.utils.metrics import interval


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
