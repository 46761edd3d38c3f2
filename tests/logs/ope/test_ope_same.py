"""A policy that made the log has no difference from `logged`, and --compare states this."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.logs.ope.diagnostics import is_logger
from tests.doors import SATIATION, steps, train_in


@pytest.mark.parametrize(
    ("weights", "same"),
    [
        ([[1.0, 1.0, 1.0], [1.0001, 1.0002, 1.0002]], True),  # two ratios of 1.0001, and one of 1
        ([[1.0], [1 / 3 / 0.3333]], True),
        ([[1.0], [1.001]], False),
        ([[1.0, 1.0005], [1.0, 1.0]], False),
        ([[1.0, 0.0], [1.0, 1.0]], False),
        ([[0.0, 0.0], [1.0, 1.0]], False),
        ([[math.nan], [1.0]], False),
    ],
)
def test_a_policy_is_the_logger_if_each_ratio_is_one(weights: list[list[float]], same: bool) -> None:
    assert is_logger(torch.tensor(weights, dtype=torch.float64)) == same


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_in(tmp_path_factory.mktemp("same") / "run", *SATIATION, *steps(6))


def compared(folder: Path, log: Path, *words: str) -> dict[str, Any]:
    out = folder / "out.json"
    assert main(["ope", "--log", str(log), "--json", str(out), "--no-world", *words]) == 0
    found: dict[str, Any] = json.loads(out.read_text())["compare"]
    return found


@pytest.mark.parametrize("names", [("ppo", "logged"), ("logged", "ppo")])
def test_the_policy_that_logged_differs_by_nothing(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, str]
) -> None:
    """With 60 sessions no estimator is recommended, and none is needed."""
    log = tmp_path / "log.parquet"
    words = ["--policy", "ppo", "--sessions", "60", "--users", "all", "--quiet"]
    assert main(["record", "--checkpoint", str(checkpoint), *words, "--out", str(log)]) == 0
    found = compared(tmp_path, log, "--checkpoint", str(checkpoint), "--compare", *names)
    assert (found["value"], found["low"], found["high"], found["more_rows"]) == (0, 0, 0, 0)
    sentence = (
        "ppo is the policy that logged, as it gives the logged propensities on every row: "
        f"{names[0]} minus {names[1]} is 0 by construction."
    )
    assert found["text"] == found["brief"] == sentence and found["same"] == ["ppo"]
    assert capsys.readouterr().out.endswith(f"\n{sentence}\n")
    other = compared(tmp_path, log, "--checkpoint", str(checkpoint), "--compare", "random", "logged")
    assert other["same"] == [] and "by construction" not in other["text"]


def test_one_of_two_policies_that_logged_is_compared_as_before(checkpoint: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.parquet"
    words = ["--policy", "ppo", "--policy", "random", "--sessions", "60", "--users", "all", "--quiet"]
    assert main(["record", "--checkpoint", str(checkpoint), *words, "--out", str(log)]) == 0
    found = compared(tmp_path, log, "--checkpoint", str(checkpoint), "--compare", "random", "logged")
    assert found["same"] == []


def own_log(folder: Path, propensity: float | None, target: list[float]) -> tuple[str, str]:
    """300 rows of three items, and the file of a policy with these propensities on them."""
    rows: dict[str, list[Any]] = {
        "user": [k % 50 for k in range(300)],
        "item": [f"i{k % 3}" for k in range(300)],
    }
    rows["click"] = [int(k % 7 == 0) for k in range(300)]
    if propensity is not None:
        rows["propensity"] = [propensity] * 300
    pl.DataFrame(rows).write_csv(folder / "log.csv")
    pl.DataFrame({"propensity": target}).write_csv(folder / "target.csv")
    return "--target", str(folder / "target.csv")


def test_files_are_recognised_up_to_their_digits(tmp_path: Path) -> None:
    target = own_log(tmp_path, 0.3333, [0.3333] * 300)
    both = compared(
        tmp_path, tmp_path / "log.csv", *target, "--policy", "random", "--compare", "target", "random"
    )
    assert both["text"] == (
        "target and random are the policy that logged, as they give the logged propensities on every row: "
        "target minus random is 0 by construction."
    )
    own_log(tmp_path, 0.3333, [0.3333] * 299 + [0.33])
    one = compared(tmp_path, tmp_path / "log.csv", *target, "--compare", "target", "logged")
    assert one["same"] == [] and one["low"] < one["high"]


def test_estimated_propensities_show_no_logger(tmp_path: Path) -> None:
    own_log(tmp_path, None, [])
    found = compared(tmp_path, tmp_path / "log.csv", "--policy", "random", "--compare", "random", "logged")
    assert found["same"] == []
