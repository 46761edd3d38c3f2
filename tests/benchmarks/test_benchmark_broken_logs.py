"""The benchmark of logs that are called broken: its smoke run, its logs and its table."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from benchmarks import broken_logs
from benchmarks.broken_logs import Log, called_broken, log_of, policies, wrong
from tests.doors import benchmark_here


def test_smoke(tmp_path: Path) -> None:
    benchmark_here(
        broken_logs.main,
        tmp_path,
        *("--smoke", "--only", "weights", "--threads", "1", "--json", "table.json"),
    )
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [row["kind"] for row in rows] == [*broken_logs.KINDS]
    assert [row["logs"] for row in rows] == [3, 3, 3, 3, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]


def test_the_propensities_of_a_right_log_are_those_of_its_draws() -> None:
    log = log_of(40_000, 8, "sharp", 1)
    inverse = 1 / (8 * log.propensities)
    assert abs(float(inverse.mean()) - 1) < 4 * float(inverse.std()) / 200
    assert 0.15 < float(log.heldout.double().mean()) < 0.25
    assert all(len(log.heldout[log.users == user].unique()) == 1 for user in range(50))


def test_policies_see_the_training_side_alone_but_for_the_leak() -> None:
    """Two segments' worth of counts by hand: one training row of item 1 in segment 0, held-out rows of 0."""
    log = Log(
        users=torch.tensor([0, 1, 1]),
        segments=torch.zeros(3, dtype=torch.int64),
        items=torch.tensor([1, 0, 0]),
        clicks=torch.ones(3, dtype=torch.float64),
        propensities=torch.full((3,), 0.5, dtype=torch.float64),
        heldout=torch.tensor([False, True, True]),
        number=2,
    )
    found, leaking = (dict(policies(log, leak)) for leak in (False, True))
    assert found["popularity"][0].tolist() == pytest.approx([0.25, 0.75])
    assert leaking["popularity"][0].tolist() == pytest.approx([2.5 / 4, 1.5 / 4])
    assert found["clone"][0].tolist() == pytest.approx([12.5 / 51, 38.5 / 51])
    assert found["greedy"][0].tolist() == [0, 1]


def test_a_wrong_log_is_found_and_a_right_one_is_not() -> None:
    log = log_of(20_000, 8, "mild", 0)
    assert [called_broken(wrong(log, kind)) for kind in ("right", "x 1.1", "x 0.9")] == [False, True, True]


def test_the_table_is_of_the_newest_rows(tmp_path: Path) -> None:
    about = {"date": "2026-12-01", "commit": "abc", "items": 8, "rows": 20_000}
    rows = [
        *(
            {**about, "part": "weights", "kind": kind, "logs": 400, "broken": 0.005}
            for kind in ("right", "x 1.1")
        ),
        {**about, "part": "trained", "kind": "right", "logs": 3, "broken": 0.0, "mean": 1.004},
    ]
    with (tmp_path / "broken_logs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    text = broken_logs.text(tmp_path)
    assert "| 8 | 20,000 | 0.5 | | 0.5 | | |" in text
    assert "400 right logs" in text and "1.004 (8 items)" in text
