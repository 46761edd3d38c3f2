"""Pictures of trained policies: made from the newest results, or stale."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from benchmarks.harness import made

COLUMNS = ("date", "hardware", "commit", "task", "seed", "train_seconds", "policy", "return_mean")


def write(results: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """learning.csv with these rows; a column that a row lacks has a value of no interest."""
    with (results / "learning.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({**dict.fromkeys(COLUMNS, "1"), "seed": "0", "policy": "ppo", **row} for row in rows)


def rows_of(date: str, commit: str, *tasks: str) -> list[dict[str, str]]:
    return [{"date": date, "commit": commit, "task": task} for task in tasks]


PLATFORMS = tuple(dict.fromkeys(made.PICTURES.values()))


def test_pictures_are_of_the_newest_results() -> None:
    if not (made.IMAGES / "made.csv").exists():
        pytest.skip("docs/images/made.csv is absent: python -m benchmarks.pictures has made no picture yet")
    assert made.stale() == []
