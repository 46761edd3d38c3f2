"""`data describe` on logs of decisions names what `ope` refuses, and nothing that `ope` accepts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.logs.decision_table import read_table
from recsys_rl.logs.describe.description import Problem
from recsys_rl.logs.describe.survey import describe
from recsys_rl.logs.writer import write_decisions
from recsys_rl.types import UserError
from tests.logs.two_steps import two_steps

Rows = dict[str, list[Any]]


def sessions() -> Rows:
    """Four sessions of three steps."""
    return {
        "user": [f"u{k // 6}" for k in range(12)],
        "session": [f"s{k // 3}" for k in range(12)],
        "step": [k % 3 for k in range(12)],
        "time": [f"2026-11-0{1 + k % 3}" for k in range(12)],
        "item": ["a", "b", "c"] * 4,
        "candidates": ["a|b|c", "a|b", "b|c"] * 4,
        "reward": [0.0, 1.0, 0.5] * 4,
        "propensity": [0.5, 0.5, 0.25] * 4,
    }


def write(path: Path, rows: Rows, **changes: tuple[int, Any]) -> Path:
    """Write the rows as text. ``changes``: the row, from 1, and its new value in a column."""
    texts = {name: [str(x) for x in values] for name, values in rows.items()}
    for name, (row, value) in changes.items():
        texts[name][row - 1] = str(value)
    pl.DataFrame(texts).write_csv(path)
    return path


STEPS = "rows that repeat the session and step of an earlier row"
GAP = "rows whose session has no step before theirs"
USERS = "rows of another user than the row before in their session"
TIMES = "rows with an earlier time than the step before in their session"


def test_problems_of_lists_come_before_those_of_rewards(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", sessions(), item=(8, "c"), reward=(3, "x"), propensity=(3, 0))
    assert [problem.text for problem in describe(path).problems] == [
        "column 'propensity' is not a probability above 0 and up to 1",
        "items that are not among the candidates of their row",
        "column 'reward' has no finite number",
    ]


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({"step": (5, 0)}, [Problem(STEPS, 1, 5), Problem(GAP, 1, 6)]),
        ({"step": (6, 7)}, [Problem(GAP, 1, 6)]),
        ({"step": (4, 3)}, [Problem(GAP, 1, 5), Problem(TIMES, 1, 4)]),
        ({"step": (9, 1.5)}, [Problem("column 'step' has no whole number from 0 on", 1, 9)]),
        ({"user": (12, "else")}, [Problem(USERS, 1, 12)]),
        ({"time": (2, "2026-10-01")}, [Problem(TIMES, 1, 2)]),
        ({"item": (8, "c")}, [Problem("items that are not among the candidates of their row", 1, 8)]),
        ({"reward": (3, "x")}, [Problem("column 'reward' has no finite number", 1, 3)]),
        (
            {"propensity": (3, 0)},
            [Problem("column 'propensity' is not a probability above 0 and up to 1", 1, 3)],
        ),
    ],
)
def test_every_problem_is_named_that_ope_refuses(
    tmp_path: Path,
    changes: dict[str, tuple[int, Any]],
    problems: list[Problem],
) -> None:
    path = write(tmp_path / "log.csv", sessions(), **changes)
    assert sorted(describe(path).problems, key=lambda x: x.text) == sorted(problems, key=lambda x: x.text)
    with pytest.raises(UserError):
        read_table(path)


def test_steps_without_sessions_are_a_problem(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", {x: y for x, y in sessions().items() if x != "session"})
    problem = Problem("steps, and no column of sessions: name it with --session-column", 12, 1)
    assert problem in describe(path).problems
    with pytest.raises(UserError):
        read_table(path)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_sound_log_has_no_problem(tmp_path: Path, ending: str) -> None:
    path, rows = tmp_path / f"log.{ending}", sessions()
    if ending == "parquet":
        pl.DataFrame(rows | {"candidates": [x.split("|") for x in rows["candidates"]]}).write_parquet(path)
    else:
        write(path, rows)
    found = describe(path)
    assert (found.rows, found.users, found.items, found.sessions) == (12, 2, 3, 4)
    assert found.problems == () and found.others == ()
    assert found.candidates_per_row == pytest.approx(7 / 3)
    assert found.shown_of_item == (8, 8, 12)
    assert found.ranges == {"propensity": (0.25, pytest.approx(5 / 12), 0.5), "reward": (0.0, 0.5, 1.0)}
    read_table(path)


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        ("propensity", "column 'propensity' has no finite number"),
        ("step", "column 'step' has no whole number from 0 on"),
        ("user", "column 'user' has a list in place of a name"),
        ("session", "column 'session' has a list in place of a name"),
        ("policy", "column 'policy' has a list in place of a name"),
        ("reward", "column 'reward' has no finite number"),
    ],
)
def test_lists_in_place_of_numbers_or_names(tmp_path: Path, column: str, problem: str) -> None:
    rows = sessions() | {"policy": ["old"] * 12}
    rows[column] = [[[x]] if column == "reward" else [x] for x in rows[column]]
    pl.DataFrame(rows).write_parquet(tmp_path / "log.parquet")
    assert describe(tmp_path / "log.parquet").problems == (Problem(problem, 12, 1),)
    with pytest.raises(UserError):
        read_table(tmp_path / "log.parquet")


def test_rewards_and_propensities_may_be_categories(tmp_path: Path) -> None:
    frame = pl.DataFrame(sessions())
    frame = frame.with_columns(pl.col("reward", "propensity", "step").cast(pl.String).cast(pl.Categorical()))
    frame.write_parquet(tmp_path / "log.parquet")
    found = describe(tmp_path / "log.parquet")
    assert found.ranges == {"propensity": (0.25, pytest.approx(5 / 12), 0.5), "reward": (0.0, 0.5, 1.0)}
    assert found.problems == ()
    assert read_table(tmp_path / "log.parquet").log.signals.flatten().tolist() == [0.0, 1.0, 0.5] * 4


@pytest.mark.parametrize("kind", [pl.Categorical(), pl.Enum(["a", "b", "c"]), pl.Binary()])
@pytest.mark.parametrize("lists", [False, True])
def test_ids_may_be_of_any_type_of_text(tmp_path: Path, kind: pl.DataType, lists: bool) -> None:
    rows = sessions()
    frame = pl.DataFrame(rows | {"candidates": [x.split("|") for x in rows["candidates"]]})
    frame = frame.with_columns(pl.col("item").cast(kind), pl.col("candidates").cast(pl.List(kind)))
    if lists:
        frame = frame.select(pl.exclude("item"), items=pl.concat_list("item"))
    frame.write_parquet(tmp_path / "log.parquet")
    found = describe(tmp_path / "log.parquet")
    assert (found.items, found.shown_of_item, found.problems) == (3, (8, 8, 12), ())
    assert found.most_frequent is not None and found.most_frequent[1] == 4
    assert read_table(tmp_path / "log.parquet").items == ("a", "b", "c")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_whole_items_with_points_are_the_candidates_without(tmp_path: Path, ending: str) -> None:
    items, path = [1.0, 2.0, 2.0**40, 3.0], tmp_path / f"log.{ending}"
    frame = pl.DataFrame({"item": items, "reward": [0, 1, 1, 0], "propensity": [0.5] * 4})
    frame = frame.with_columns(candidates=pl.Series([[int(x), 7] for x in items]))
    if ending == "parquet":
        frame.write_parquet(path)
    else:
        text = pl.col("candidates").cast(pl.List(pl.String)).list.join("|")
        frame.with_columns(text).write_csv(path)
    assert describe(path).problems == ()
    assert read_table(path).items == ("1", "2", "3", "7", str(2**40))


def test_bytes_that_are_no_text_stay_apart(tmp_path: Path) -> None:
    rows: Rows = {"item": [b"\xff", b"\xfe", b"a"], "reward": [0, 1, 1], "propensity": [0.5] * 3}
    pl.DataFrame(rows | {"candidates": [[x, b"\xfd"] for x in rows["item"]]}).write_parquet(
        tmp_path / "log.parquet"
    )
    found = describe(tmp_path / "log.parquet")
    assert (found.items, found.shown_of_item, found.problems) == (3, (1, 1, 3), ())
    assert read_table(tmp_path / "log.parquet").items == ("\\xfd", "\\xfe", "\\xff", "a")


def test_single_decisions_with_the_same_user_and_item_are_no_repeats(tmp_path: Path) -> None:
    rows: Rows = {
        "user": ["u"] * 3 + ["v"],
        "item": ["a", "a", "b", "a"],
        "click": [0, 0, 1, 1],
        "pscore": [0.5] * 4,
    }
    assert describe(write(tmp_path / "log.csv", rows)).problems == ()
    rows["session"] = ["s0", "s1", "s2", "s3"]
    assert describe(write(tmp_path / "log.csv", rows)).problems == ()
    repeated = {name: [*values, values[1]] for name, values in rows.items()}
    assert describe(write(tmp_path / "log.csv", repeated)).problems == (
        Problem("rows that repeat an earlier row in every column", 1, 5),
    )


@pytest.mark.parametrize("name", ["LogProb", "log_propensity", "logprob"])
def test_logarithms_are_known_by_name(tmp_path: Path, name: str) -> None:
    rows: Rows = {"user": ["u", "v"], "item": ["a", "b"], "click": [0, 1], name: [np.log(0.5), np.log(0.25)]}
    found = describe(write(tmp_path / "log.csv", rows))
    assert found.inverse_propensity == pytest.approx(3.0)
    assert found.ranges["propensity"] == pytest.approx((0.25, 0.375, 0.5)) and found.problems == ()
    found = describe(write(tmp_path / "log.csv", rows, **{name: (2, 0.5)}))
    words = f"column {name!r} is not a logarithm of a probability above 0 and up to 1"
    assert found.problems == (Problem(words, 1, 2),)


def test_slates_as_text_are_lists(tmp_path: Path) -> None:
    rows: Rows = {
        "user": ["u", "v", "w"],
        "items": ["a|b", "b|c", "c|a"],
        "signal.click": ["0|1", "0|0", "1|1"],
        "propensity": [0.5, 0.25, 0.25],
    }
    found = describe(write(tmp_path / "log.csv", rows))
    assert (found.items, found.events_of_item) == (3, (2, 2, 2))
    assert found.ranges["signal.click"] == (0.0, 0.5, 1.0) and found.problems == ()
    assert "mean of 1/propensity: 3.333 (expected: the number of slates that could be shown)" in found.lines()
    for change, words in (
        ({"items": (2, "b|b")}, "slates that show an item twice"),
        ({"items": (2, "b")}, "slates of another size than the first (2)"),
        ({"signal.click": (2, "1")}, "column 'signal.click' holds another number of values"),
    ):
        path = write(tmp_path / "log.csv", rows, **change)
        (problem,) = describe(path).problems
        assert problem.text.startswith(words) and (problem.count, problem.first_row) == (1, 2)
        with pytest.raises(UserError):
            read_table(path)


def test_a_recorded_log_is_described_by_its_signals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = 20
    chance = torch.tensor(0.2, dtype=torch.float64).log()
    log = two_steps(
        rows,
        5,
        logprobs=chance.expand(rows),
        loggers=torch.arange(rows) // 2 % 2,
        logger_logprobs=chance.expand(rows, 2),
        exclude=(torch.arange(rows) % 5).add(1).fmod(5).unsqueeze(1),
    )
    write_decisions(tmp_path / "log.parquet", log)
    assert main(["data", "describe", str(tmp_path / "log.parquet")]) == 0
    said = capsys.readouterr().out
    assert "time: 0 to 19 (no dates: numbers of steps or rows)" in said
    assert "signal.click: 0 to 3, mean 1.5" in said
    assert "logging policies: 2 ('new' 10, 'old' 10)" in said
    assert "20 rows, 5 users, 5 items, 10 sessions" in said
    assert "without a known role" not in said and "problems: none" in said
    # 5 items, of which none but two were shown here: the catalogue bounds what could be shown, not the rows.
    few = dataclasses.replace(log, items=log.items % 2, exclude=log.items % 2 + 2)
    write_decisions(tmp_path / "few.parquet", few)
    found = describe(tmp_path / "few.parquet")
    assert (found.items, found.catalogue_items) == (2, 5)
    (line,) = [line for line in found.lines() if line.startswith("mean of 1/propensity: 5 ")]
    assert "at most the 5 " in line
    frame = pl.read_parquet(tmp_path / "log.parquet")
    frame.with_columns(exclude=pl.col("items")).write_parquet(tmp_path / "bad.parquet")
    assert describe(tmp_path / "bad.parquet").problems == (Problem("items that the row excludes", 20, 1),)


def test_a_row_of_a_folder_is_named_by_its_file(tmp_path: Path) -> None:
    """`ope` and `data describe` count rows within the file that has them, not through the folder."""
    for name, chance in (("a", 0.5), ("b", 1.5), ("c", 2.0)):
        rows = {
            "user": [f"{name}{k}" for k in range(4)],
            "item": [*"xyxy"],
            "reward": [1.0] * 4,
            "propensity": [0.5] * 3 + [chance],
        }
        pl.DataFrame(rows).write_parquet(tmp_path / f"{name}.parquet")
    (problem,) = describe(tmp_path).problems
    assert (problem.count, problem.first_row, problem.first) == (2, 8, "row 4 of b.parquet")
    with pytest.raises(UserError, match=r"propensity is 1\.5 in row 4 of b\.parquet"):
        read_table(tmp_path)
    (problem,) = describe(tmp_path / "b.parquet").problems
    assert problem.first == "row 4"
