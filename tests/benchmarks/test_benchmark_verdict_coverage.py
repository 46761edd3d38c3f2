"""The benchmark of promised intervals and verdicts: its smoke run, its games and its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import verdict_coverage
from benchmarks.harness import tables
from tests.doors import benchmark_here


def test_smoke(tmp_path: Path) -> None:
    benchmark_here(verdict_coverage.main, tmp_path, "--smoke", "--threads", "1", "--json", "table.json")
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [row["rule"] for row in rows[:2]] == ["before", "after"] and rows[0]["logs"] == 3
    assert all(row["covered"] <= row["promised"] <= row["logs"] for row in rows)


@pytest.mark.parametrize(("kind", "gain"), [("near", 0.0), ("far", 0.5), ("far", -0.3)])
def test_a_policy_earns_what_its_case_says(kind: str, gain: float) -> None:
    case = ("mild", 0.3, kind, gain, 1_000, 10)
    of = verdict_coverage.game(case, torch.Generator().manual_seed(3))
    ones = torch.ones(verdict_coverage.CONTEXTS, dtype=torch.float64)
    assert torch.allclose(of.policy.sum(1), ones) and torch.allclose(of.logging.sum(1), ones)
    assert of.gain == pytest.approx(gain * of.earned(of.logging), abs=1e-9)


def test_counts_are_of_their_parts_and_make_the_table(tmp_path: Path) -> None:
    """Four logs of one case: a gain that both rules find, one that the new rule finds, and two without."""

    def log(
        gain: float, before: tuple[bool, bool], after: tuple[bool, bool], covered: bool
    ) -> verdict_coverage.Judged:
        return verdict_coverage.Judged(
            ("sharp", 0.03, "far", 1.5, 4_000, 10),
            gain,
            {"before": before[0], "after": after[0]},
            {"before": before[1], "after": after[1]},
            covered,
            covered_difference=True,
        )

    logs = [
        log(0.5, (True, True), (True, True), True),
        log(0.2, (False, False), (False, True), True),
        log(0.0, (True, False), (True, False), False),
        log(-0.3, (True, False), (False, False), False),
    ]
    rows = [*verdict_coverage.counted(logs)]
    whole = {row["rule"]: row for row in rows if row["part"] == "all"}
    assert (whole["before"]["promised"], whole["before"]["covered"], whole["before"]["found"]) == (3, 1, 1)
    assert (whole["after"]["promised"], whole["after"]["covered"], whole["after"]["found"]) == (2, 1, 2)
    assert (whole["after"]["gains"], whole["after"]["no_gains"], whole["after"]["wrong"]) == (2, 2, 0)
    assert {row["part"] for row in rows} == {"all", "3% of rewards", "far", "logger sharp", "4,000 rows"}
    tables._append(
        tmp_path / "verdict_coverage.csv", [{"date": "2026-12-01", "commit": "abc", **row} for row in rows]
    )
    said = verdict_coverage.text(tmp_path)
    assert "| all | 4 | 75.0 → 50.0 | 33.3 → 50.0 | 50.0 → 100.0 | 0.0 → 0.0 |" in said
