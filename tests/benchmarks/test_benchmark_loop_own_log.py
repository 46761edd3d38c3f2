"""The benchmark of one round over logs of decisions: the story of a candidate, and its table, by hand."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from benchmarks import loop_own_log
from benchmarks.harness.shop_log import shop_of
from benchmarks.loop_own_log import Selling, Turns

FIRST, GOOD, BAD = "a" * 64, "b" * 64, "c" * 64
VALUES = {FIRST: 0.4, GOOD: 0.7, BAD: 0.3}


@pytest.fixture
def turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Turns:
    """Two candidates: the first goes back after 300 sessions, the second is promoted after 200 more."""
    (tmp_path / "first.pt").write_bytes(b"")
    found = Turns(tmp_path, SimpleNamespace(), "http://127.0.0.1:1")
    found.first, found.canaries = FIRST, {BAD: 300, GOOD: 200}
    gate = {"answer": "no harm seen", "by": "dr", "low": 0.01}
    found.gated = {BAD: gate, GOOD: {**gate, "answer": "better", "low": None, "by": "lower-bound"}}
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
        "canary; bc: gate better by lower-bound, truth +0.300, promoted after 200: canary",
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


def test_the_shop_sells_three_per_cent_of_what_its_rule_shows(tmp_path: Path) -> None:
    shop = shop_of(0, people=1_000)
    place = Selling(shop, 4_000, tmp_path / "truth.parquet")
    assert shop.chances.shape == (1_000, 160) and shop.rule.sum() == pytest.approx(1)
    assert float((shop.chances @ shop.rule).mean()) == pytest.approx(0.03, abs=1e-9)
    place.write(tmp_path / "log.parquet")
    log = pl.read_parquet(tmp_path / "log.parquet")
    shown = np.array([int(item[1:]) for item in log["item"]])
    assert log["propensity"].to_numpy() == pytest.approx(shop.rule[shown])
    assert log["purchase"].mean() == pytest.approx(0.03, abs=0.01)  # four standard errors
    assert not {*log["user"]} & {*shop.others.tolist()} and {*log["user"]} <= {*place.mine.tolist()}
    rng, paid = np.random.default_rng(0), 0.0
    best = int(shop.chances[7].argmax())
    for _ in range(2_000):
        paid += place.pays(7, f"i{best}", rng) / 2_000
    assert paid == pytest.approx(shop.chances[7, best], abs=0.05)


def test_the_value_of_a_policy_of_the_shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that shows the second item of its catalogue with .75, whatever the order of its items."""
    shop, names = shop_of(0, people=200), ("i7", "i3")
    place = Selling(shop, 10, tmp_path / "truth.parquet")
    shown = torch.tensor([[0.25, 0.75]]).expand(len(shop.others), -1)
    monkeypatch.setattr(loop_own_log, "probabilities_of", lambda *_: shown)
    catalogue = SimpleNamespace(item_names=names)
    monkeypatch.setattr(loop_own_log, "load", lambda _: SimpleNamespace(catalogue=catalogue))
    wanted = [0.25 * shop.chances[row, 7] + 0.75 * shop.chances[row, 3] for row in shop.others]
    assert place.value(tmp_path / "policy.pt") == pytest.approx(sum(wanted) / len(wanted))


def test_table_of_the_shop_by_hand(tmp_path: Path) -> None:
    about = {"date": "2026-12-01", "commit": "abc", "data": "shop", "first": "clone"}
    rows: list[dict[str, Any]] = [
        {"seed": 0, "before": 0.03, "after": 0.05, "promoted": "bc", "canary": 2250, "candidates": "x; y"},
        {"seed": 1, "before": 0.04, "after": 0.04, "promoted": "", "canary": "", "candidates": "z"},
        {"data": "digits", "seed": 0, "before": 0.4, "after": 0.9, "promoted": "bc", "canary": 1},
    ]
    with (tmp_path / "loop_own_log.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*about, *rows[0]])
        writer.writeheader()
        writer.writerows(about | row for row in rows)
    assert loop_own_log.of_shop(tmp_path).splitlines()[2:5] == [
        "| 0 | 0.0300 | 0.0500 | bc | 2,250 | x<br>y |",
        "| 1 | 0.0400 | 0.0400 | none | – | z |",
        "| **mean** | 0.0350 | 0.0450 | | | |",
    ]


def test_request_of_a_row_has_its_columns() -> None:
    columns = {"pixels": np.array([[0.0, 1.0], [2.0, 3.0]]), "cut": np.array(["good", "fair"])}
    assert loop_own_log.request_of(columns, 1) == {
        "user_id": "1",
        "context": {"pixels": [2.0, 3.0], "cut": "fair"},
    }
