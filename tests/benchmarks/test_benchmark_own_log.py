"""The benchmark of a team's own log: logs, rivals, the table from the rows of its file; and it runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks import own_log
from benchmarks.harness.classified import Classified, Problem
from benchmarks.peers.classifiers import RIVALS, rivals_of
from recsys_rl.data.catalogue import split_users
from tests.doors import benchmark_here


def small() -> Classified:
    """300 rows of three classes that one number separates, with a text that says nothing."""
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=300)
    numbers = np.stack([labels + 0.1 * rng.standard_normal(300), rng.standard_normal(300)], 1)
    return Classified({"x": numbers, "day": rng.choice(["mon", "tue"], 300)}, labels, ("a", "b", "c"))


def test_features_are_in_units_of_their_spread_and_texts_are_codes() -> None:
    features = small().features
    assert features.shape == (300, 4)
    assert np.allclose(features[:, :2].mean(0), 0) and np.allclose(features[:, :2].std(0), 1)
    assert (features[:, 2:].sum(1) == 1).all()


def made(logger: str) -> Problem:
    pytest.importorskip("sklearn")
    from benchmarks.harness.classified import problem_of

    return problem_of(small(), 4_000, logger, 3)


@pytest.mark.parametrize(("logger", "least"), [("mild", 0.5 / 3), ("sharp", 0.05 / 3)])
def test_a_logger_draws_with_the_propensities_that_the_log_has(logger: str, least: float) -> None:
    problem = made(logger)
    assert np.allclose(problem.probabilities.sum(1), 1) and problem.probabilities.min() >= least
    assert abs((1 / (3 * problem.propensities)).mean() - 1) < 0.1
    assert set(problem.rewards) == {0.0, 1.0}
    assert not set(problem.rows.tolist()) & set(problem.others.tolist())
    assert (problem.heldout == split_users(problem.rows.tolist(), 0.2, 3)).all()


def test_the_table_of_decisions(tmp_path: Path) -> None:
    problem = made("mild")
    problem.write(tmp_path / "log.parquet")
    problem.write_truth(tmp_path / "truth.parquet")
    frame = pl.read_parquet(tmp_path / "log.parquet")
    assert frame.columns == ["user", "item", "reward", "propensity", "context.x", "context.day"]
    assert frame["item"][0] == "abc"[problem.chosen[0]] and frame["context.x"].list.len().unique().item() == 2
    truth = pl.read_parquet(tmp_path / "truth.parquet")
    assert truth["item"].to_list() == ["abc"[x] for x in problem.data.labels[problem.others]]


def test_rivals_find_the_class_that_a_number_tells() -> None:
    found = rivals_of(made("mild"), 0)
    assert tuple(found) == RIVALS and all(right > 0.95 for right, _ in found.values())


def test_table_and_coverage_come_from_the_rows(tmp_path: Path) -> None:
    about = {"date": "2026-11-30", "commit": "abc", "data": "digits", "decisions": 5000, "logger": "mild"}
    rows = []
    for seed, right, low in ((0, 0.8, 0.7), (1, 0.9, 0.95), (9, 0.1, 0.0)):
        estimate = {"drawn": right, "estimate": 0.9, "estimate_low": low, "estimate_high": 0.99}
        rows.append(about | {"seed": seed, "policy": "reinforce", "right": right, **estimate})
        if seed < 2:  # seed 9 is of --estimates
            rows.append(about | {"seed": seed, "policy": "logger", "right": 0.5})
    with (tmp_path / "own_log.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    line = own_log.text(tmp_path).splitlines()[2]
    # 12.706 x 0.0707 / sqrt(2)
    assert line == "| digits | 5,000 | mild | 0.500 | 0.850 ± 0.635 |"
    assert own_log.coverage(tmp_path) == "2 of 3 logs"


@pytest.mark.proof
def test_smoke(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    benchmark_here(own_log.main, tmp_path, "--smoke", "--json", "table.json")
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [row["policy"] for row in rows] == list(own_log.POLICIES)
    assert all(0 <= row["right"] <= 1 for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]
