"""Pictures of trained policies: made from the newest results, or stale."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from benchmarks import pictures
from benchmarks.harness import commands, made, tables
from benchmarks.harness.returns import EFFECTS
from recsys_rl.errors import UserError

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


def test_pictures_and_effects_are_of_the_newest_results() -> None:
    if not (made.IMAGES / "made.csv").exists():
        pytest.skip("docs/images/made.csv is absent: python -m benchmarks.pictures has made no picture yet")
    assert made.stale() == []


def test_picture_is_stale_once_there_are_newer_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(made.PICTURES, "videos.svg", "short-video")
    first = rows_of("2026-01-01", "aaa", "short-video", *PLATFORMS, *EFFECTS)
    write(tmp_path, first)
    assert [line.split()[0] for line in made.stale(tmp_path, tmp_path)] == list(made.PICTURES)
    for picture in made.PICTURES:
        made.note(picture, tmp_path, tmp_path)
    assert made.stale(tmp_path, tmp_path) == []
    write(tmp_path, [*first, *rows_of("2026-01-02", "bbb", "short-video")])
    (line,) = made.stale(tmp_path, tmp_path)
    assert line == (
        "videos.svg shows the rows of 2026-01-01 (aaa) of short-video, and the newest are of 2026-01-02 (bbb)"
    )
    later = rows_of("2026-01-02", "bbb", "satiation")[0]
    write(tmp_path, [*first, later | {"return_mean": "2"}])
    curve, effects = made.stale(tmp_path, tmp_path)
    assert curve.startswith("learning.svg ") and effects.endswith(" ".join(EFFECTS))
    write(tmp_path, [*first, *rows_of("2026-01-01", "bbb", "satiation-all-effects")])
    assert [line.split()[0] for line in made.stale(tmp_path, tmp_path)] == [
        "report.png",
        "categories-satiation.svg",
    ]


def test_learning_curve_stays_while_the_trained_policies_are_the_same(tmp_path: Path) -> None:
    first = rows_of("2026-01-01", "aaa", *PLATFORMS, *EFFECTS)
    write(tmp_path, first)
    for picture in made.PICTURES:
        made.note(picture, tmp_path, tmp_path)

    def stale_after(value: str) -> list[str]:
        again = [row | {"return_mean": value} for row in rows_of("2026-01-01", "bbb", "satiation")]
        again.append(again[0] | {"policy": "searched", "return_mean": "2"})  # another search
        write(tmp_path, [*first, *again])
        return [line.split()[0] for line in made.stale(tmp_path, tmp_path)]

    assert stale_after("1") == []
    assert stale_after("3") == ["learning.svg"]


def test_table_of_another_code_makes_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    known = rows_of("2026-01-01", "aaa", "satiation")[0]
    write(tmp_path, [known | {"policy": name, "return_mean": "10.0"} for name in ("ppo", "rule")])
    table = tmp_path / "table.json"

    def with_return(value: float) -> None:
        rows = [{"policy": "ppo", "return_mean": value}, {"policy": "new", "return_mean": 1.0}]
        table.write_text(json.dumps({"rows": rows}))

    with_return(10.4)
    pictures.check_rows("satiation", table)
    with_return(10.6)
    with pytest.raises(UserError, match=r"ppo earns 10\.60 here and 10\.00 in .*learning\.csv \(2026-01-01"):
        pictures.check_rows("satiation", table)


def test_trained_runs_are_taken_from_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed: list[list[str]] = []
    monkeypatch.setattr(commands, "recsys_rl", lambda folder, words: typed.append(words))
    path = pictures.trained(tmp_path, "satiation")
    assert path == tmp_path / "satiation-0/ppo/checkpoints/ppo.pt"
    assert typed == [["train", "--algo", "ppo", "--seed", "0", "--threads", "1", "--env", "satiation"]]
    assert pictures.trained(tmp_path, "satiation") == path and len(typed) == 1


def test_unknown_picture() -> None:
    with pytest.raises(UserError, match=r"loop\.svg.*report\.png, learning"):
        pictures.main(["loop.svg"])
