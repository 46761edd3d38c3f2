"""The benchmark of all pairs of student models."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import tutor_students
from tests.doors import benchmark_here


def test_smoke_of_all_pairs_of_students(tmp_path: Path) -> None:
    benchmark_here(tutor_students.main, tmp_path, "--smoke", "--json", "table.json")
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    pairs = [(row["trained_on"], row["tested_on"]) for row in rows if row["policy"] == "ppo-greedy"]
    students = tutor_students.STUDENTS
    assert sorted(pairs) == sorted((one, other) for one in students for other in students)
    assert all(0 <= row["left_early"] <= 1 for row in rows if row["tested_on"])
    distances = [(row["mean"], row["most"]) for row in rows if row["trained_on"] == "belief"]
    assert len(distances) == 2 and all(0 <= mean <= most <= 1 for mean, most in distances)
    assert sum(row["policy"].startswith("trade-") and bool(row["tested_on"]) for row in rows) == 9
