"""The benchmark of large catalogues runs, in both its forms, and counts what it claims."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import catalogue
from benchmarks.harness.memory import peak_mb
from tests.doors import ROOT, benchmark_here


@pytest.mark.proof
def test_cost(tmp_path: Path) -> None:
    """Where Stable-Baselines3 can't be imported."""
    options = ["--smoke", "--threads", "1", "--json", "table.json"]
    benchmark_here(catalogue.main, tmp_path, *options, without=["stable_baselines3"])
    table = json.loads((tmp_path / "table.json").read_text())
    ours: list[dict[str, Any]] = [row for row in table["rows"] if row["system"] == "recsys_rl"]
    assert [row["num_items"] for row in ours] == [200, 2000]
    for row in ours:
        assert row["ms_per_step"] == pytest.approx(row["rollout_ms"] + row["update_ms"], rel=0.01)
        assert row["steps_per_s"] == pytest.approx(8 * 1000 / row["ms_per_step"], rel=0.01)  # 8 users
        assert row["table_mb"] == pytest.approx(row["num_items"] * 8 * 4 / 1e6)  # 8 numbers of 4 bytes
        above = (row["rss_mb"] - table["bare_mb"]) / row["table_mb"]
        assert row["above_bare_over_table"] == pytest.approx(above, rel=0.02) and above > 0
    growth = ours[1]["ms_per_step"] / ours[0]["ms_per_step"]
    assert ours[0]["times_smallest"] == 1.0 and ours[1]["times_smallest"] == pytest.approx(growth, rel=0.01)
    theirs = [row for row in table["rows"] if row["system"] == "stable-baselines3"]
    assert [row["note"] for row in theirs] == ["not installed"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]


def test_peak_memory_is_of_this_process_alone(tmp_path: Path) -> None:
    """100 MB more, and the parent's peak left out."""
    code = "from benchmarks.harness.memory import peak_mb; a = peak_mb(); "
    code += "b = bytearray(10**8); print(a, peak_mb())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split())
    assert before < 60 < peak_mb() and after - before == pytest.approx(100, abs=5)
