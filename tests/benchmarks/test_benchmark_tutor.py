"""The benchmark of all pairs of student models."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import tutor_students
from tests.doors import benchmark_here


def test_smoke_of_all_pairs_of_students(tmp_path: Path) -> None:
    benchmark_here(tutor_students.main, tmp_path, "--smoke", "--json", "table.json")
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    students = tutor_students.STUDENTS
    for policy in tutor_students.ORDER:
        pairs = [(row["trained_on"], row["tested_on"]) for row in rows if row["policy"] == policy]
        assert sorted(pairs) == sorted((one, other) for one in students for other in students)
    assert all(0 <= row["left_early"] <= 1 for row in rows if row["tested_on"])
    distances = [(row["mean"], row["most"]) for row in rows if row["trained_on"] == "belief"]
    assert len(distances) == 2 and all(0 <= mean <= most <= 1 for mean, most in distances)
    assert sum(row["policy"].startswith("trade-") and bool(row["tested_on"]) for row in rows) == 9


def test_matrix_as_a_table(tmp_path: Path) -> None:
    """Two seeds; a policy's own students are bold."""
    head = "date,commit,seed,steps,trained_on,tested_on,policy,return_mean,knowledge,mean"
    rows = [
        f"d,c,{seed},100,{on},{there},{policy},{10 + seed},{gain},"
        for seed in (0, 1)
        for on, policy, gain in (("", "trade-a", 3), ("irt", "ppo", 2))
        for there in tutor_students.STUDENTS
    ]
    (tmp_path / "tutor_students.csv").write_text("\n".join([head, *rows, "d,c,0,100,belief,,random,,,0.1"]))
    text = tutor_students.text(tmp_path).splitlines()
    assert text[2:4] == [
        "| `ppo`, trained on `irt` | 10.50 (2.00) | 10.50 (2.00) | **10.50 (2.00)** |",
        "| `trade-a` | 10.50 (3.00) | 10.50 (3.00) | 10.50 (3.00) |",
    ]
    assert text[-1].startswith("Seeds 0, 1; 100 steps each; ")
