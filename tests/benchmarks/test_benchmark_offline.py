"""The benchmark of learners from logs: its table comes from the rows of the file, and it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import offline
from benchmarks.harness.offline_logs import LOGS
from tests.doors import benchmark_here


def cell(log: str, policy: str, seed: int, value: float, over: float | None) -> dict[str, object]:
    about = {"date": "2026-11-28", "commit": "abc"}
    found: dict[str, object] = {"log": log, "policy": policy, "seed": seed, "users": 9, "return_mean": value}
    found |= {"return_low": value - 1, "return_high": value + 1, "drawn_mean": value - 2, "value_start": ""}
    for versus in ("bc", "behaviour"):
        for end, shift in (("mean", 0.0), ("low", -0.5), ("high", 0.5)):
            found[f"over_{versus}_{end}"] = "" if over is None else over + shift
    return about | found | {"seconds": 20}


# 12.706 x 0.5


@pytest.mark.proof
def test_smoke(tmp_path: Path) -> None:
    benchmark_here(offline.main, tmp_path, "--smoke", "--algos", "cql", "--json", "table.json")
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [(row["log"], row["policy"]) for row in rows] == [
        (log, policy) for log in LOGS for policy in ("behaviour", "bc", "cql")
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]
