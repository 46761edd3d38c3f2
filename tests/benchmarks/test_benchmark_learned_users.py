"""The benchmark of learned users: its table comes from the rows of the file, and it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import learned_users
from tests.doors import benchmark_here


def cell(log: str, **known: object) -> dict[str, object]:
    found: dict[str, object] = {"date": "2026-11-28", "commit": "abc", "env": "satiation", "log": log}
    found |= {"seed": 0, "return_mean": 11.5, "inside_return": 10.5, "share": 0.772}
    found |= {"spearman": 0.82, "regret": 0.228, "loss_engagement": 1.026, "classifier_auc": 0.504}
    return found | known


@pytest.mark.proof
def test_smoke(tmp_path: Path) -> None:
    options = ["--smoke", "--logs", "medium", "--json", "table.json"]
    benchmark_here(learned_users.main, tmp_path, *options)
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [(row["env"], row["policies"]) for row in rows] == [("satiation", 14), ("short-video", 14)]
    assert all(-1 <= row["spearman"] <= 1 and row["regret"] >= 0 for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]
