"""The benchmark of one round over logs of decisions: the story of a candidate, and its table, by hand."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import loop_own_log
from benchmarks.loop_own_log import Turns

FIRST, GOOD, BAD = "a" * 64, "b" * 64, "c" * 64
VALUES = {FIRST: 0.4, GOOD: 0.7, BAD: 0.3}


@pytest.fixture
def turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Turns:
    """Two candidates: the first goes back after 300 sessions, the second is promoted after 200 more."""
    (tmp_path / "first.pt").write_bytes(b"")
    found = Turns(tmp_path, SimpleNamespace(), "http://127.0.0.1:1")
    found.first, found.canaries = FIRST, {BAD: 300, GOOD: 200}
    gate = {"answer": "no harm seen", "by": "dr", "low": 0.01}
    found.gated = {BAD: gate, GOOD: {**gate, "answer": "better", "low": None, "by": "clipped-ips"}}
    rows = [("start", BAD), ("back", BAD), ("start", GOOD), ("promote", GOOD)]
    history = [{"kind": kind, "challenger": name, "reason": "canary"} for kind, name in rows]
    monkeypatch.setattr(Turns, "releases", SimpleNamespace(history=lambda: history))
    monkeypatch.setattr(Turns, "value", lambda _, sha256: VALUES[sha256])
    monkeypatch.setattr(Turns, "name", lambda _, sha256: {GOOD: "bc", BAD: "reinforce"}[sha256])
    return found


def test_row_by_hand(turns: Turns) -> None:
    assert turns.row() == {
        "before": 0.4,
        "after": 0.7,
        "promoted": "bc",
        "canary": 500,
        "worse": 0,
        "candidates": "reinforce: gate no harm seen by dr from +0.010 on, truth -0.100, went back after 300: "
        "canary; bc: gate better by clipped-ips, truth +0.300, promoted after 200: canary",
    }


def test_table_and_candidates_by_hand(turns: Turns, tmp_path: Path) -> None:
    promoted = turns.row()
    nobody = {
        **promoted,
        "after": 0.4,
        "promoted": "",
        "canary": "",
        "candidates": "bc: gate can't tell, truth +0.1",
    }
    about: dict[str, Any] = {"date": "2026-11-30", "commit": "abc", "data": "digits", "first": "clone"}
    rows = [{**about, "seed": seed, **row} for seed, row in enumerate((promoted, nobody))]
    with (tmp_path / "loop_own_log.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    line = loop_own_log.text(tmp_path).splitlines()[2]
    assert line == "| digits | clone | 0, 1 | 0.400 | 0.550 | 1 of 2 | 500 | 0 |"
    assert loop_own_log.candidates(tmp_path) == (
        "2 of 3 candidates, 1 of them by the lower bound; 1 are better in truth"
    )


def test_request_of_a_row_has_its_columns() -> None:
    columns = {"pixels": np.array([[0.0, 1.0], [2.0, 3.0]]), "cut": np.array(["good", "fair"])}
    assert loop_own_log.request_of(columns, 1) == {
        "user_id": "1",
        "context": {"pixels": [2.0, 3.0], "cut": "fair"},
    }
