"""JSON lines: the same tables as of CSV, nested objects, and broken lines."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.data.tables.read import open_table
from recsys_rl.logs.decision_table import read_table
from recsys_rl.logs.describe.survey import describe
from recsys_rl.logs.platform import load_log
from recsys_rl.make import make_world
from recsys_rl.settings.config import Config
from recsys_rl.types import UserError, tree_map
from tests.own_logs import clicks, sessions


def lines(path: Path, rows: list[Any]) -> Path:
    raw = "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows).encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


@pytest.mark.parametrize("ending", ["jsonl", "ndjson", "jsonl.gz", "txt"])
def test_the_same_log_as_of_csv(tmp_path: Path, ending: str) -> None:
    csv = clicks(tmp_path / "log.csv")
    frame = pl.read_csv(csv)
    vectors = frame["context.v"].str.split("|").cast(pl.List(pl.Float64))
    rows = frame.with_columns(vectors).to_dicts()
    file = lines(tmp_path / f"log.{ending}", rows)
    given = {"reward": "clicked"}
    mine, theirs = read_table(file, given), read_table(csv, given)
    assert mine.items == theirs.items and mine.sessions == theirs.sessions
    tree_map(torch.testing.assert_close, mine.log, theirs.log)
    learnable = [describe(path, given=given).learnable for path in (file, csv)]
    assert [of and of.first for of in learnable] == ["line 1", "line 2"]
    mine_of, theirs_of = (of and replace(of, first="") for of in learnable)
    assert mine_of == theirs_of


def test_objects_inside_objects_are_columns(tmp_path: Path) -> None:
    row = {
        "user": 7,
        "item": "a",
        "reward": 1,
        "propensity": 0.5,
        "context": {"age": 3, "of": {"device": "tv"}},
    }
    table = open_table(lines(tmp_path / "log.jsonl", [row, {**row, "item": "b", "context": {"age": None}}]))
    assert table.names[-2:] == ("context.age", "context.of.device")
    frame = table.rows(table.names)
    assert frame["context.of.device"].to_list() == ["tv", None] and frame["context.age"].to_list() == [
        3,
        None,
    ]
    assert frame.schema["user"] == pl.Int64


def test_values_of_several_types_are_texts_and_lists_keep_their_entries(tmp_path: Path) -> None:
    rows = [{"user": 1, "v": [1, 2.5], "names": ["x"], "big": 2**70}, {"user": "b", "v": 3, "names": []}]
    frame = open_table(lines(tmp_path / "log.jsonl", [json.dumps(row) for row in rows])).json.frame  # type: ignore[union-attr]
    assert frame["user"].to_list() == ["1", "b"] and frame["v"].to_list() == [[1.0, 2.5], [3.0]]
    assert frame["names"].to_list() == [["x"], []] and frame["big"].to_list() == [str(2**70), None]


def test_a_few_broken_lines_are_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[Any] = [{"user": n, "item": n % 3, "reward": n % 2, "propensity": 0.5} for n in range(400)]
    rows[6], rows[200] = json.dumps(rows[6])[:20], "[1]"
    rows[300] = json.dumps({**rows[300], "item": "\ud800"})
    rows.insert(2, "")
    file = lines(tmp_path / "log.jsonl", rows)
    table = open_table(file)
    assert table.json is not None and table.json.frame.height == 397
    assert [table.line(row) for row in (1, 2, 3, 6, 7, 397)] == [1, 2, 4, 7, 9, 401]
    assert "line 8 " in table.note and "line 202 " in table.note and "line 302 " in table.note
    assert main(["data", "describe", str(file)]) == 0
    assert "the file is read without 3 broken lines of 400 (" in capsys.readouterr().out
    rows[20] = rows[30] = "{"
    lines(file, rows)
    assert main(["data", "describe", str(file)]) == 2
    said = capsys.readouterr().err
    assert "line 8 " in said and "5 broken" in said and said.count("\n") == 1


def test_two_values_for_a_column_are_a_broken_line(tmp_path: Path) -> None:
    rows: list[Any] = [{"user": n, "context": {"age": n}} for n in range(150)]
    rows[9]["context.age"] = 7
    table = open_table(lines(tmp_path / "log.jsonl", rows))
    assert table.json is not None and table.json.frame.height == 149 and "line 10 " in table.note


def test_the_row_of_a_mistake_is_its_line(tmp_path: Path) -> None:
    rows: list[Any] = [{"item": n % 3, "reward": 1, "propensity": 0.5} for n in range(150)]
    rows[20], rows[40]["propensity"] = "{", 1.5
    with pytest.raises(UserError, match="line 41"):
        read_table(lines(tmp_path / "log.jsonl", rows))


def test_sessions_of_json_lines_learn_as_those_of_csv(tmp_path: Path) -> None:
    """The shape of a log, which a checkpoint keeps, is the same."""
    csv = sessions(tmp_path / "log.csv")
    file = lines(tmp_path / "log.jsonl", pl.read_csv(csv).to_dicts())
    given = {"weights": ("clicked=1", "dwell=0")}
    mine, theirs = (load_log({"log": str(path), **given}) for path in (file, csv))
    assert mine.settings["env_config"] == theirs.settings["env_config"]


def test_a_separator_of_json_lines_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = lines(tmp_path / "log.jsonl", [{"item": 1, "reward": 1}])
    assert main(["data", "describe", str(file), "--separator", ","]) == 2
    assert "--separator" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["jsonl", "ndjson.gz"])
def test_events_make_the_same_world(tmp_path: Path, ending: str) -> None:
    pairs = [(user, item) for user in range(30) for item in range(20) if (user * item) % 3]
    frame = pl.DataFrame(pairs, schema=["user", "item"], orient="row")
    frame = frame.with_columns(timestamp=pl.int_range(pl.len()), rating=5 - pl.int_range(pl.len()) % 2)
    frame.write_csv(tmp_path / "events.csv")
    file = lines(tmp_path / f"events.{ending}", frame.to_dicts())
    small: dict[str, Any] = {"env": "satiation", "embedding_dim": 8, "cache_dir": str(tmp_path / "cache")}
    mine, theirs = (make_world(Config(data=str(path), **small)) for path in (file, tmp_path / "events.csv"))
    torch.testing.assert_close(mine.catalogue.embedding, theirs.catalogue.embedding)
    assert mine.population.user_ids.tolist() == theirs.population.user_ids.tolist()
