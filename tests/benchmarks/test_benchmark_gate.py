"""The benchmark of the gate runs, and counts what went wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gate import main, summary
from tests.doors import benchmark_here


@pytest.mark.proof
def test_smoke(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark_here(main, tmp_path, "--smoke", "--json", "gate.json")
    said = capsys.readouterr().out
    assert all(name in said for name in ("ppo", "cql of reversed rewards", "random", "popularity"))
    assert (tmp_path / "gate.json").exists()


def test_summary() -> None:
    rows = [
        {"good": False, "answer": "better", "truth": 0.5},
        {"good": False, "answer": "no harm seen", "truth": -0.1},
        {"good": False, "answer": "no harm seen", "truth": -0.2},
        {"good": False, "answer": "worse", "truth": -3.0},
        {"good": True, "answer": "no harm seen", "truth": 1.0},
        {"good": True, "answer": "can't tell", "truth": 1.0},
    ]
    assert summary(rows).startswith("1 of 4 bad candidates better, 1 no harm seen")
    assert summary(rows).endswith("1 of 2 good ones let through")
