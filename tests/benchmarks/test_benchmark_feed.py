"""The benchmarks of limits, loads of ads and heads on the social feed, and the texts of their tables."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from benchmarks import feed_load, feed_variants
from benchmarks import limits as feed_limits
from benchmarks.feed_load import text as loads
from benchmarks.feed_variants import text as variants
from benchmarks.limits import ads_by_place, chosen
from benchmarks.limits import text as limits
from tests.benchmarks.test_written_tables import write_rows
from tests.doors import benchmark_here

ABOUT = {"date": "2026-11-28", "commit": "abc", "steps": 300_000, "items": 300}


@pytest.mark.slow
def test_smoke_of_limits(tmp_path: Path) -> None:
    only = ("--only", "paid-limit", "hard-rule")
    benchmark_here(feed_limits.main, tmp_path, "--smoke", *only, "--json", "table.json")
    trained, rule = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert trained["limit"] == "ads" and trained["bound"] == 0.1 and trained["multiplier"] >= 0
    assert 0 <= trained["ads"] <= 0.4 and len(trained["ads_by_place"].split()) <= 8
    # an ad at the first place of each visit, and then at most one in five places
    assert rule["broken"] == 0 and 0.1 < rule["ads"] < 0.3 and rule["steps"] >= 10_000


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


def test_text_of_loads(tmp_path: Path) -> None:
    each = {f"earned{paid}{bound}": 1.0 for paid in ("", "_paid") for bound in ("", "_low", "_high")}
    about = {**ABOUT, "lives": 40, **each}
    of_load = {"load": 0.2, "earned_paid": 1.5, "earned_paid_low": 1.4, "earned_paid_high": 1.6}
    rows = [
        {**about, "load": 0.0, "time": "the first month"},
        {**about, "time": "the first month", **of_load},
    ]
    found = loads(write_rows(tmp_path, "feed_load", rows))
    assert "| weights | ads, % | the first month |" in found
    assert "| revenue=4 | 20 | +50 % (40 to 60) |" in found and "40 lives of a year" in found


def test_ads_are_counted_among_the_places_of_visits_that_go_on() -> None:
    """Two visits of seven and two places; item 1 is an ad."""
    items = torch.tensor([[1, 0], [0, 1], [0, -1], [0, -1], [0, -1], [1, -1], [0, -1]])
    assert ads_by_place(items, torch.tensor([False, True])) == [2 / 7, 0.5]


def test_an_ad_is_chosen_wherever_one_is_allowed() -> None:
    allowed = torch.tensor([[True, True, True], [True, False, True], [False, False, True]])
    items = chosen(allowed, torch.tensor([False, True, False]), torch.Generator().manual_seed(0))
    assert items[0] == 1 and items[1] in (0, 2) and items[2] == 2


def test_texts_of_the_tables(tmp_path: Path) -> None:
    each = {"tail_exposure": 0.4, "creator_gini": 0.6, "return_mean": 13.0, "multiplier_mean": ""}
    rows = [
        {**ABOUT, **each, "run": "paid", "seed": seed, "ads": ads, "learned_return": 30.0}
        for seed, ads in ((1, 0.19), (0, 0.2))
    ]
    rows.append({**ABOUT, "run": "hard-rule", "seed": 0, "steps": 1_003_520, "broken": 0})
    found = limits(write_rows(tmp_path, "limits", rows))
    assert "| revenue=4 | one ad in five places | 2 | 20.0, 19.0 | 40.0, 40.0 | |" in found
    assert "breaks the rule at 0 of 1,003,520 places" in found and "ads<=0.1" not in found
    each = {"follows": 0.5, "suggestion_share": 0.1, "ad_share": 0.05, "seed": 0, "variant": "gated"}
    rows = [
        {**ABOUT, **each, "policy": policy, "return_mean": value}
        for policy, value in (("ppo", 12.0), ("ppo-greedy", 12.5))
    ]
    found = variants(write_rows(tmp_path, "feed_variants", rows))
    assert "| gated: first the kind, then the item | 1 | 12.00 | 12.50 | 0.50 | 10.0 | 5.0 |" in found
