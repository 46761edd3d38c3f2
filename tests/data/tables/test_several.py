"""Several files as one log, in one format or in several: the same numbers as of one file, or one sentence."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

import recsys_rl
from recsys_rl.cli import main
from recsys_rl.logs.decision_table import read_table
from recsys_rl.logs.describe.data import describe as describe_frames
from recsys_rl.logs.describe.description import Description
from recsys_rl.logs.describe.survey import describe
from recsys_rl.logs.ope.result import Estimate
from recsys_rl.logs.writer import write_decisions
from recsys_rl.types import UserError
from tests.data.tables.test_dsjson import event
from tests.data.tables.test_json_lines import lines
from tests.doors import WORLD, assert_same_weights
from tests.logs.two_steps import two_steps
from tests.own_tables import SHORT, decisions

TABLES = ("csv", "jsonl", "parquet")
CHANCE = torch.tensor(0.2, dtype=torch.float64).log()
OTHERS = ("dsjson", "record")
MIXED = [("csv", "jsonl"), ("jsonl", "parquet"), ("parquet", "csv")]
REFUSED = [pair for of in combinations((*TABLES, *OTHERS), 2) if {*of} & {*OTHERS} for pair in (of, of[::-1])]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The halves a and b of a log in each format of tables, the whole as Parquet, and logs of other kinds."""
    folder = tmp_path_factory.mktemp("formats")
    frame = decisions(1000)
    frame = frame.with_columns(user=pl.col("user").str.strip_chars("u").cast(pl.Int64))
    frame.write_parquet(folder / "whole.parquet")
    for name, half in (("a", frame.head(400)), ("b", frame.tail(600))):
        half.write_csv(folder / f"{name}.csv")
        half.write_ndjson(folder / f"{name}.jsonl")
        half.with_columns(pl.col("user").cast(pl.Float64)).write_parquet(folder / f"{name}.parquet")
        lines(folder / f"{name}.dsjson", [event(number, number % 3) for number in range(50)])
        write_decisions(folder / f"{name}-record.parquet", two_steps(20, 5, logprobs=CHANCE.expand(20)))
    return folder


def path_of(folder: Path, name: str, kind: str) -> str:
    return str(folder / (f"{name}-record.parquet" if kind == "record" else f"{name}.{kind}"))


@pytest.fixture(scope="module")
def policy(logs: Path) -> Path:
    """A policy of the log in two CSV files."""
    return trained(logs, "csv", "csv")


def trained(logs: Path, one: str, two: str) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(logs)
        pair = [path_of(logs, "a", one), path_of(logs, "b", two)]
        assert main(["train", "--algo", "bc", *SHORT, "--total-timesteps", "160", "--log", *pair]) == 0
        return (logs / "checkpoints" / "bc.pt").resolve()


def judged(policy: Path, logs: Path, one: str, two: str) -> tuple[Estimate, ...]:
    pair = [path_of(logs, "a", one), path_of(logs, "b", two)]
    return recsys_rl.ope(log=pair, checkpoint=policy, world=False).rows


def described(log: Any) -> Description:
    """The description of a log, without the word for its first row."""
    found = describe(log)
    assert found.learnable is not None
    return replace(found, learnable=replace(found.learnable, first=""))


@pytest.fixture(scope="module")
def rows(logs: Path, policy: Path) -> tuple[tuple[Estimate, ...], tuple[Estimate, ...]]:
    """The estimates for the policy by two CSV files, and for random by the whole."""
    return judged(policy, logs, "csv", "csv"), of_random(str(logs / "whole.parquet"))


def of_random(log: Any) -> tuple[Estimate, ...]:
    return recsys_rl.ope(log=log, policy=("random",), world=False).rows


@pytest.mark.parametrize(("one", "two"), MIXED)
def test_tables_of_two_formats_are_one_log(
    logs: Path, policy: Path, rows: tuple[tuple[Estimate, ...], ...], one: str, two: str
) -> None:
    pair = [path_of(logs, "a", one), path_of(logs, "b", two)]
    assert_same_weights(policy, trained(logs, one, two))
    assert (judged(policy, logs, one, two), of_random(pair)) == rows
    whole = described(logs / "whole.parquet")
    assert described(pair) == whole and whole.rows == 1000


@pytest.mark.parametrize(("one", "two"), [*REFUSED, ("record", "record")])
def test_logs_of_two_kinds_are_refused(
    logs: Path,
    policy: Path,
    one: str,
    two: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    pair = [path_of(logs, "a", one), path_of(logs, "b", two)]
    for command in (
        ["train", "--algo", "bc", *SHORT, *(WORLD if one == "record" else ()), "--log", *pair],
        ["ope", "--checkpoint", str(policy), "--log", *pair],
        ["data", "describe", *pair, "--json", "log.json"],
    ):
        assert main(command) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: ") and all(path in error for path in pair)
    assert not [*tmp_path.iterdir()]


def test_a_row_is_named_by_its_file(tmp_path: Path) -> None:
    frame = decisions(30).with_columns(session=pl.Series([f"s{number}" for number in range(30)]))
    wrong = frame.with_columns(propensity=pl.when(pl.col("session") == "s17").then(1.5).otherwise(0.25))
    (tmp_path / "log").mkdir()
    frame.head(10).write_csv(tmp_path / "one.csv")
    wrong.slice(10, 5).write_parquet(tmp_path / "log" / "0.parquet")
    wrong.slice(15, 5).write_parquet(tmp_path / "log" / "1.parquet")
    again = pl.concat([wrong.slice(20), wrong.slice(12, 2)])  # two sessions that began in a file before
    lines(tmp_path / "two.jsonl", again.to_dicts())
    found = describe([tmp_path / "one.csv", tmp_path / "log", tmp_path / "two.jsonl"])
    assert {
        problem.text: (problem.count, problem.first_row, problem.first) for problem in found.problems
    } == {
        "column 'propensity' is not a probability above 0 and up to 1": (1, 18, "row 3 of 1.parquet"),
        "rows of a session that began in another file": (2, 31, "line 11 of two.jsonl"),
        "rows that repeat an earlier row in every column": (2, 31, "line 11 of two.jsonl"),
    }
    with pytest.raises(UserError, match=r"session 's12' of line 11 of two\.jsonl began in another file"):
        read_table([tmp_path / "one.csv", tmp_path / "log", tmp_path / "two.jsonl"])
    frames = describe_frames(log=[str(tmp_path / "one.csv"), wrong.slice(10, 5), wrong.slice(15)])
    assert [problem.first for problem in frames.problems] == ["row 3 of data frame 3"]


def test_files_of_different_tables_are_refused(tmp_path: Path) -> None:
    frame = decisions(30)
    frame.write_csv(tmp_path / "a.csv")
    frame.drop("context.age").write_csv(tmp_path / "b.csv")
    frame.with_columns(candidates=pl.lit("ale|bun|cod|dal")).write_csv(tmp_path / "c.csv")
    lists = frame.head(29).with_columns(candidates=pl.lit(["ale", "bun", "cod", "dal"]))
    lists.write_parquet(tmp_path / "d.parquet")
    (tmp_path / "parts").mkdir()
    shutil.copy(tmp_path / "d.parquet", tmp_path / "parts")
    for names, words in (
        (("a.csv", "b.csv"), "'context.age'"),
        (("c.csv", "d.parquet"), r"'candidates' \(String and List\(String\)\)"),
        (("a.csv", "a.csv"), "twice"),
        (("parts/d.parquet", "parts"), "twice"),
        ((), "at least one"),
    ):
        with pytest.raises(UserError, match=rf"^[^\n]*{words}[^\n]*$"):
            describe_frames(log=[tmp_path / name for name in names])
    with pytest.raises(UserError, match=r"^Data frame 1 and data frame 2 have different columns \('item'\)"):
        describe_frames(log=[frame, frame.drop("item")])


def test_a_description_does_not_replace_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / "a.csv", tmp_path / "b.parquet"]
    decisions(20).write_csv(paths[0])
    decisions(20).write_parquet(paths[1])
    before = paths[1].read_bytes()
    assert main(["data", "describe", *map(str, paths), "--json", str(paths[1])]) == 2
    assert "--json" in capsys.readouterr().err and paths[1].read_bytes() == before


@pytest.mark.parametrize(("one", "two"), [*MIXED, ("csv", "csv"), ("parquet", "parquet")])
def test_a_copy_counts_once(logs: Path, tmp_path: Path, one: str, two: str) -> None:
    """Also under another name; a file that differs in its last row alone is another one."""
    copy = tmp_path / f"copy.{two}"
    shutil.copy(logs / f"a.{two}", copy)
    with pytest.raises(UserError, match="hold the same rows"):
        read_table([logs / f"a.{one}", copy])
    with pytest.raises(UserError, match="hold the same rows"):
        describe([logs / f"b.{one}", logs / f"a.{one}", copy])
    frame = decisions(1000).head(400).with_columns(user=pl.col("user").str.strip_chars("u").cast(pl.Int64))
    last = pl.int_range(pl.len()) == 399
    frame.with_columns(clicked=pl.when(last).then(1 - pl.col("clicked")).otherwise("clicked")).write_csv(
        tmp_path / "other.csv"
    )
    assert describe([logs / f"a.{one}", tmp_path / "other.csv"]).rows == 800


def test_copies_with_lists_texts_and_gaps(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "item": ["a", "b", "c"] * 4,
            "reward": [0.5, 1.0, 0.0] * 4,
            "propensity": [1 / 3] * 12,
            "candidates": [["a", "b", "c"]] * 12,
            "context.city": ["Ulm", None, "1,5"] * 4,
        }
    )
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_ndjson(tmp_path / "a.jsonl")
    frame.with_columns(pl.col("candidates").list.join("|")).write_csv(tmp_path / "a.csv")
    for pair in (("a.parquet", "a.jsonl"), ("a.csv", "a.parquet"), ("a.jsonl", "a.csv")):
        with pytest.raises(UserError, match="hold the same rows"):
            read_table([tmp_path / name for name in pair])
