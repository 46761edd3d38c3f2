"""The benchmark of lists of five places: users, logger, the table from the rows of its file; and it runs."""

from __future__ import annotations

import csv
import json
from itertools import permutations
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks import own_log, own_log_lists
from benchmarks.harness.made_lists import Floats, ListLog, ListWorld, Users, draws, first
from tests.doors import benchmark_here

CONTEXT = np.array([[0.5, -1.0, 0.3, 1.2]])


@pytest.mark.parametrize("reads", ["positions", "cascade"])
def test_best_lists_and_expected_clicks(reads: str) -> None:
    """Of all lists of seven items the best one earns most; drawn clicks have the expected mean."""
    world = ListWorld.make(Users(7, reads), 3)  # type: ignore[arg-type]
    every = np.array(list(permutations(range(7), 5)))
    earned = world.earned(CONTEXT.repeat(len(every), 0), every)
    best = world.best(CONTEXT)
    assert every[earned.argmax()].tolist() == best[0].tolist()
    lists = best.repeat(40_000, 0)
    drawn = world.clicks(CONTEXT.repeat(40_000, 0), lists, np.random.default_rng(0)).sum(1)
    assert abs(drawn.mean() - earned.max()) < 5 * drawn.std() / 200


def test_the_logger_draws_with_the_probabilities_that_the_log_has() -> None:
    scores: Floats = np.log(np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])).repeat(30_000, 0)
    lists, terms = draws(scores, np.random.default_rng(1))
    assert first(scores[:1]).tolist() == [[5, 4, 3, 2, 1]]
    begun = (lists[:, 0] == 5) & (lists[:, 1] == 0)
    assert np.allclose(terms[begun, :2], np.log([6 / 21, 1 / 15]))
    assert abs(begun.mean() - 6 / 21 / 15) < 0.004


def test_the_tables_with_the_clicks_of_places_and_with_their_sum(tmp_path: Path) -> None:
    log = ListLog.make(Users(8, "positions"), 50, 0, checked=3)
    log.write(tmp_path / "places.parquet")
    log.write(tmp_path / "sum.parquet", by_place=False)
    log.write_checked(tmp_path / "checked.parquet", by_place=False)
    places, sums, checked = (
        pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("places", "sum", "checked")
    )
    assert np.allclose(places["place_logprobs"].list.sum(), places["logprob"])
    assert places["signal.click"].list.sum().to_list() == sums["reward"].to_list()
    assert sums.columns == checked.columns and len(checked) == 3
    assert log.way(log.value(log.world.best(log.checked))) == 1.0


def test_table_comes_from_the_rows(tmp_path: Path) -> None:
    about = {"date": "2026-12-01", "commit": "abc", "data": "cascade", "decisions": 20_000}
    rows = []
    for seed in (0, 1):
        here = about | {"seed": seed}
        rows += [here | {"policy": "logger, its best", "logged": "", "clicks": 1.5, "way": 0.0, "drawn": ""}]
        rows += [here | {"policy": "best", "logged": "", "clicks": 2.0, "way": 1.0, "drawn": ""}]
        for logged, way in (("places", 0.8 + 0.1 * seed), ("sum", 0.2)):
            for policy in own_log_lists.LEARNERS:
                row = {"policy": policy, "logged": logged, "clicks": 1.8, "way": way, "drawn": 0.9}
                rows.append(
                    here | row | {"estimate": 0.9, "estimate_low": 0.8 + 0.2 * seed, "estimate_high": 1.1}
                )
    with (tmp_path / "own_log_lists.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[-1]))
        writer.writeheader()
        writer.writerows(rows)
    line = own_log_lists.text(tmp_path).splitlines()[2]
    ways = "0.20 ± 0.00 | 0.85 ± 0.64"  # 12.706 x 0.0707 / sqrt(2)
    assert own_log_lists.coverage(tmp_path) == "2 of 4"
    assert line == f"| cascade | 1.50 | 2.00 | {ways} | {ways} | 0.50 | 0.50 |"


@pytest.mark.proof
def test_smoke(tmp_path: Path) -> None:
    benchmark_here(own_log.main, tmp_path, "--slates", "--smoke", "--json", "table.json")
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    policies = ["logger", "logger, its best", "best", *own_log_lists.LEARNERS, *own_log_lists.LEARNERS]
    assert [row["policy"] for row in rows] == policies
    assert [row.get("logged") for row in rows[3:]] == ["places"] * 2 + ["sum"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]
