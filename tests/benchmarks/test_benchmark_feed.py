"""The benchmarks of limits, loads of ads and heads on the social feed, and the table of limits."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from benchmarks import feed_load, feed_variants
from benchmarks import limits as feed_limits
from benchmarks.limits import ads_by_place, chosen
from tests.doors import benchmark_here

ABOUT = {"date": "2026-11-28", "commit": "abc", "steps": 300_000, "items": 300}


@pytest.mark.proof
def test_smoke_of_limits(tmp_path: Path) -> None:
    only = ("--only", "paid-limit", "hard-rule")
    benchmark_here(feed_limits.main, tmp_path, "--smoke", *only, "--json", "table.json")
    trained, rule = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert trained["limit"] == "ads" and trained["bound"] == 0.1 and trained["multiplier"] >= 0
    assert 0 <= trained["ads"] <= 0.4 and len(trained["ads_by_place"].split()) <= 8
    # an ad at the first place of each visit, and then at most one in five places
    assert rule["broken"] == 0 and 0.1 < rule["ads"] < 0.3 and rule["steps"] >= 10_000


@pytest.mark.proof
@pytest.mark.parametrize(
    ("benchmark", "options", "column"),
    [(feed_variants, ["--only", "gated"], "follows"), (feed_load, [], "spent")],
)
def test_smoke_of_variants_and_loads(
    benchmark: ModuleType, options: list[str], column: str, tmp_path: Path
) -> None:
    benchmark_here(benchmark.main, tmp_path, "--smoke", *options, "--json", "table.json")
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert rows and all(row[column] >= 0 for row in rows)


def test_rewards_relative_to_no_ads_by_hand() -> None:
    """Two loads, two users: (1 + 3) / 2 = 2 without ads, (1 + 2) / 2 with."""
    sums = np.array([[1.0, 3.0], [1.0, 2.0]])
    first, both = np.array([0, 0]), np.array([1, 1])  # resamples: the first user twice, the second twice
    none, some = feed_load.relative(sums, [first, both])
    assert none == (1.0, 1.0, 1.0)
    assert some == pytest.approx((0.75, 2 / 3 + 0.025 / 3, 1 - 0.025 / 3))  # between 2/3 and 1


def test_ads_are_counted_among_the_places_of_visits_that_go_on() -> None:
    """Two visits of seven and two places; item 1 is an ad."""
    items = torch.tensor([[1, 0], [0, 1], [0, -1], [0, -1], [0, -1], [1, -1], [0, -1]])
    assert ads_by_place(items, torch.tensor([False, True])) == [2 / 7, 0.5]


def test_an_ad_is_chosen_wherever_one_is_allowed() -> None:
    allowed = torch.tensor([[True, True, True], [True, False, True], [False, False, True]])
    items = chosen(allowed, torch.tensor([False, True, False]), torch.Generator().manual_seed(0))
    assert items[0] == 1 and items[1] in (0, 2) and items[2] == 2
