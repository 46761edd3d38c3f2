"""Rows of the tables of returns, found without a training."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from benchmarks import learning, learning_rows
from benchmarks.experts.policy import SPEC
from recsys_rl import cli
from recsys_rl.errors import UserError
from tests.doors import benchmark_here

TINY = [*learning_rows.SMOKE, "--seed", "1", "--n-steps", "10", "--num-envs", "5", "--batch-size", "50"]


def test_rows_equal_those_of_an_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same world with as many steps, to the last digit, searched and tuned rows too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(learning.TASKS, "tutor", ("ppo", ["--env", "tutor", *TINY]))
    assert cli.main(["train", "--env", "tutor", *TINY]) == 0
    assert cli.main(["evaluate", "--policy", SPEC, "--json", "table.json"]) == 0
    result = learning.with_expert((tmp_path / "table.json").read_text())
    table = {row["policy"]: row for row in result["rows"]}
    found = learning_rows.rows_of("tutor", 1, ["expert", "trade-mastery"], smoke=True)
    assert [row["policy"] for row in found] == ["expert", "trade-mastery"]
    for row in found:
        theirs = table[row["policy"]]
        assert all(row[name] == theirs[name] for name in learning.COLUMNS[7:12])
    (gain,) = [row for row in result["gains"] if (row["policy"], row["versus"]) == ("ppo", "expert")]
    assert gain["gain"] == pytest.approx(table["ppo"]["return_mean"] / table["expert"]["return_mean"] - 1)
    (written,) = [row for row in learning.rows_of("tutor", 1, 9.0, result) if row["policy"] == "ppo"]
    assert written["over_expert"] == gain["gain"] and written["over_expert_low"] == gain["low"]


def test_rows_of_a_training_equal_those_of_an_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is trained once, and its three rows are those of the table of its checkpoint."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(learning.TASKS, "tutor", ("ppo", ["--env", "tutor", *TINY]))
    names = ["ppo-greedy", "expected", "ppo"]
    found = learning_rows.rows_of("tutor", 1, names, smoke=True, keep=tmp_path / "runs")
    monkeypatch.chdir(tmp_path / "runs" / "tutor-1" / "ppo")
    assert cli.main(["evaluate", "--no-planner", "--json", "table.json"]) == 0
    table = {row["policy"]: row for row in json.loads(Path("table.json").read_text())["rows"]}
    assert [row["policy"] for row in found] == names
    for row in found:
        assert row["return_mean"] == table[row["policy"]]["return_mean"]


def test_whole_command_and_its_file(tmp_path: Path) -> None:
    benchmark_here(learning_rows.main, tmp_path, "make-train", "--rows", "random", "--seeds", "3", "--smoke")
    assert list(tmp_path.glob("*.csv")) == []
    learning_rows.append(tmp_path / "a.csv", [{"task": "make-train", "seed": 3, "return_mean": 2.5}])
    learning_rows.append(tmp_path / "a.csv", [{"task": "make-train", "seed": 4}])
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["return_mean"], row["train_seconds"]) for row in rows] == [
        ("3", "2.5", ""),
        ("4", "", ""),
    ]


@pytest.mark.parametrize(
    ("task", "row"), [("make-train", "planner"), ("tutor", "mf"), ("cartpole-ppo", "mf")]
)
def test_rows_of_no_table(task: str, row: str) -> None:
    with pytest.raises(UserError):
        learning_rows.rows_of(task, 0, [row], smoke=True)
