"""The benchmark of a record as a plain CSV file runs, and both ways give returns of the same users."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import plain_log
from tests.doors import benchmark_here


@pytest.mark.proof
def test_smoke(tmp_path: Path) -> None:
    benchmark_here(plain_log.main, tmp_path, "--smoke", "--algos", "bc", "--json", "table.json")
    (row,) = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert row["algo"] == "bc" and row["mean"] == pytest.approx(row["csv"] - row["record"], abs=2e-3)
    assert row["low"] <= row["mean"] <= row["high"]
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]
