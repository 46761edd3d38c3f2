"""The benchmarks of all pairs of student models, and of what policies do in a course."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from benchmarks import tutor_courses, tutor_students
from recsys_rl.env.course_items import KINDS
from tests.doors import benchmark_here
from tests.env.tiny_course import CONFIG, tiny
from tests.env.tiny_course import hand as hand


@pytest.mark.proof
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
    """Two seeds, of two commits: Student's t is 12.706 times 0.5. A policy's own students are bold."""
    head = "date,commit,seed,steps,trained_on,tested_on,policy,return_mean,knowledge,mean"
    rows = [
        f"d,c{seed},{seed},100,{on},{there},{policy},{10 + seed},{gain},"
        for seed in (0, 1)
        for on, policy, gain in (("", "trade-a", 3), ("irt", "ppo", 2))
        for there in tutor_students.STUDENTS
    ]
    (tmp_path / "tutor_students.csv").write_text("\n".join([head, *rows, "d,c0,0,100,belief,,random,,,0.1"]))
    text = tutor_students.text(tmp_path).splitlines()
    assert text[2:4] == [
        "| `ppo`, trained on `irt` | 10.50 ± 6.35 (2.00) | 10.50 ± 6.35 (2.00) | **10.50 ± 6.35 (2.00)** |",
        "| `trade-a` | 10.50 ± 6.35 (3.00) | 10.50 ± 6.35 (3.00) | 10.50 ± 6.35 (3.00) |",
    ]
    assert text[-2].startswith("Seeds 0, 1; 100 steps each; ") and text[-1] == "commit c0, c1, d."


@pytest.mark.proof
def test_smoke_of_the_courses(tmp_path: Path) -> None:
    benchmark_here(tutor_courses.main, tmp_path, "--smoke", "--json", "table.json")
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [(row["trained_for"], row["policy"]) for row in rows] == [
        *(("day", policy) for policy in ("ppo", "ppo-greedy")),
        *(("test", policy) for policy in ("ppo", "ppo-greedy")),
        ("", "trade-mastery"),
    ]
    for row in rows:
        assert sum(row[kind] for kind in KINDS) == pytest.approx(row["items"], abs=2e-3)
        assert 0 <= row["left_bored"] + row["left_frustrated"] <= 1 and 0 <= row["same_skill"] <= 1


def test_learners_who_are_too_frustrated() -> None:
    """Frustration of a wrong answer is 0.2, and 0.9 of it is kept: the seventh in a row is too much."""
    course = tiny(dataclasses.replace(CONFIG, items_per_day=20)).course
    strain = torch.ones(7, 3)
    there = torch.ones(7, 3, dtype=torch.bool)
    strain[3, 1], there[6, 2] = 0, False  # one right answer, and one learner who is gone before
    assert 0.2 * (1 - 0.9**6) / 0.1 < 1 < 0.2 * (1 - 0.9**7) / 0.1
    assert tutor_courses.too_frustrated(course, strain, there).tolist() == [True, False, False]
    nightly = tiny(dataclasses.replace(CONFIG, items_per_day=4)).course
    assert tutor_courses.too_frustrated(nightly, strain, there).tolist() == [False] * 3


def test_courses_as_tables(tmp_path: Path) -> None:
    """Two seeds, with values of 1 and 3 in each column."""
    names = tutor_courses.COLUMNS
    each = [("day", "ppo"), ("day", "ppo-greedy")]
    each += [("test", "ppo"), ("test", "ppo-greedy"), ("", "trade-mastery")]
    rows = [
        ",".join(["d", "c", str(seed), on, policy, *[str(2 * seed + 1)] * len(names)])
        for seed in (0, 1)
        for on, policy in each
    ]
    head = ",".join(["date", "commit", "seed", "trained_for", "policy", *names])
    (tmp_path / "tutor_courses.csv").write_text("\n".join([head, *rows]))
    along = tutor_courses.greedy(tmp_path).splitlines()
    assert along[2] == "| `ppo` | 2.00 | 2.00 | 2.00 | 2.00 | 2.0 | 2 | 200 % | 200 % | 200 % |"
    test = tutor_courses.for_test(tmp_path).splitlines()
    assert test[4] == "| `ppo`, trained for the test alone, 2 steps | 2.00 | 2.00 | 2 | 2 | 2 | 400 % |"
    assert test[6].startswith("| `trade-mastery` | 2.00 |")
    assert test[-1].startswith("Seeds 0, 1, ")
