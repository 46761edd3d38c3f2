"""The log of many items with a known answer, and its table."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import many_items
from benchmarks.harness.many_items import made
from benchmarks.peers.click_models import two_towers
from tests.doors import benchmark_here


def test_propensities_and_clicks_are_those_of_the_logger_and_of_the_truth() -> None:
    problem = made(12, 20_000, "mild", 0)
    assert np.allclose(problem.logger.sum(1), 1) and problem.logger.min() >= 0.5 / 12
    # E[1 / mu] = I of a logger that can show everything; clicks of the log have the logger's mean
    assert float((1 / problem.propensities).mean()) == pytest.approx(12, rel=0.05)
    mean = float((problem.logger * problem.truth).sum(1).mean())
    assert float(problem.clicks.mean()) == pytest.approx(mean, abs=0.02)


def test_two_towers_find_better_items_than_the_logger() -> None:
    problem = made(12, 6_000, "mild", 0)
    shown = two_towers(problem, np.ones(6_000, bool), True, 0)
    found = problem.truth[np.arange(len(shown)), shown].mean()
    assert found > float((problem.logger * problem.truth).sum(1).mean()) + 0.05


def test_table(tmp_path: Path) -> None:
    about = {"date": "2026-01-01", "commit": "abc", "items": 500, "decisions": 100, "logger": "mild"}
    rows = [
        about | {"features": True, "seed": seed, "policy": name, "greedy": value, "drawn": value / 2}
        for name in many_items.POLICIES
        for seed, value in enumerate((0.5, 0.6, 0.7) if name == "direct" else (0.4, 0.4, 0.4))
    ]
    others = ("direct", *many_items.OF_PEERS)  # not measured on the other log
    rows += [row | {"logger": "sharp"} for row in rows if row["policy"] not in others]
    with (tmp_path / "many_items.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    lines = many_items.text(tmp_path).splitlines()
    cells, lacking = ([cell.strip() for cell in line.split("|")] for line in lines[2:4])
    assert cells[1:6] == ["500", "100", "mild", "vectors", "0.400"] and cells[6] == "0.200"
    # paired: t(2) s / sqrt(3) = 4.303 x .1 / 1.732 = .248
    assert cells[13] == "0.600" and cells[-3:-1] == ["0.300", "+0.200 ± 0.248"]
    assert lacking[3] == "sharp" and [at for at, cell in enumerate(lacking[1:-1], 1) if not cell] == [
        *(11, 12),  # of other libraries
        *(13, 17, 18),  # direct, its draws, and what it earns more
    ]
    assert "--seeds 0,1,2`" in lines[-1]


@pytest.mark.proof
def test_smoke_run(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    benchmark_here(many_items.main, tmp_path, "--smoke", "--json", "table.json")
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [row["policy"] for row in rows] == [
        name for name in many_items.POLICIES if name not in many_items.OF_PEERS
    ]


@pytest.mark.parametrize(("library", "features"), [(many_items.VW, True), (many_items.D3RLPY, False)])
def test_a_peer_finds_better_items_than_the_logger(tmp_path: Path, library: str, features: bool) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed")
    problem = made(12, 6_000, "mild", 0)
    found = many_items.of_peer(problem, library, sys.executable, tmp_path, features, 0)["greedy"]
    assert found > float((problem.logger * problem.truth).sum(1).mean()) + 0.05
