"""DecisionLog and its file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import Tensor

from recsys_rl.data.catalogue_hash import catalogue_hash
from recsys_rl.logs.checks import check_catalogue
from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog
from recsys_rl.logs.parts import read_decisions
from recsys_rl.logs.writer import CHECKSUM, KEY, DecisionWriter, header_to_dict, write_decisions
from recsys_rl.types import Interface, UserError
from tests.tiny_world import tiny_catalogue

INTERFACE = Interface((("profile", 3),), (10,), 2, False, 6, ("click",), 3)
HEADER = DecisionHeader(
    ("one", "two"),
    INTERFACE,
    ("click", "hidden"),
    0.9,
    "feed",
    "abc",
    consumed=(0.5,) * len(INTERFACE.signals),
)


def two_sessions() -> DecisionLog:
    """Two sessions of three steps by two loggers, with every optional column but events."""
    return DecisionLog(
        header=HEADER,
        users=torch.tensor([7, 7, 7, 8, 8, 8]),
        sessions=torch.tensor([0, 0, 0, 1, 1, 1]),
        steps=torch.tensor([0, 1, 2, 0, 1, 2]),
        times=torch.arange(6),
        items=torch.tensor([[0, 1], [2, 3], [4, -1], [5, 6], [0, 2], [1, 4]]),
        logprobs=torch.full((6,), -1.5).double(),
        signals=torch.arange(24.0).view(6, 2, 2),
        terminated=torch.tensor([False, False, False, False, False, True]),
        truncated=torch.tensor([False, False, True, False, False, False]),
        loggers=torch.tensor([0, 0, 0, 1, 1, 1]),
        given={"profile": torch.arange(18.0).view(6, 3)},
        place_logprobs=torch.tensor([[-1.0, -0.5]] * 6).double(),
        logger_logprobs=torch.tensor([[-1.5, -torch.inf]] * 3 + [[-3.0, -1.5]] * 3).double(),
        candidates=torch.tensor([[0, 1, 2, 3, 4, 5, 6]] * 5 + [[4, 1, 2, -1, -1, -1, -1]]),
        exclude=torch.tensor([[9, 8]] * 3 + [[9, -1]] * 2 + [[-1, -1]]),
        list_place=torch.tensor([0, 1, 2, 0, 0, 1]),
    )


def assert_same(one: DecisionLog, two: DecisionLog) -> None:
    assert one.header == two.header
    for f in dataclasses.fields(DecisionLog):
        a, b = getattr(one, f.name), getattr(two, f.name)
        if isinstance(a, Tensor):
            assert isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b), f.name
        elif f.name == "given":
            assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        else:
            assert a == b


def test_a_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    log = two_sessions()
    write_decisions(tmp_path / "log.parquet", log)
    assert_same(read_decisions(tmp_path / "log.parquet"), log)


def test_an_empty_place_is_shown_to_nobody_and_repeats_nothing(tmp_path: Path) -> None:
    log = two_sessions()
    items = torch.tensor([[0, -1], [-1, 3], [4, -1], [-1, -1], [0, 2], [-1, 4]])
    signals = log.signals * (items >= 0).unsqueeze(-1)
    log = dataclasses.replace(log, items=items, signals=signals)
    write_decisions(tmp_path / "log.parquet", log)
    found = read_decisions(tmp_path / "log.parquet")
    assert_same(found, log)
    assert found.feedback.shown.tolist() == (items >= 0).tolist()


def test_pieces_are_joined_and_rows_ordered_by_session_and_step(tmp_path: Path) -> None:
    log = two_sessions()
    with DecisionWriter(tmp_path / "log.parquet", HEADER) as writer:
        writer.write(log.rows(torch.tensor([5, 3])))
        writer.write(log.rows(torch.tensor([4, 1, 0, 2])))
    assert_same(read_decisions(tmp_path / "log.parquet"), log)
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    path.write_text("old")
    with contextlib.suppress(UserError), DecisionWriter(path, HEADER) as writer:
        writer.write(two_sessions())
        raise UserError("The slate is too large.")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_log_without_propensities_is_read(tmp_path: Path) -> None:
    unknown = torch.full((6,), math.nan).double()
    log = dataclasses.replace(two_sessions(), logprobs=unknown, place_logprobs=None, logger_logprobs=None)
    write_decisions(tmp_path / "log.parquet", log)
    read = read_decisions(tmp_path / "log.parquet")
    assert two_sessions().has_propensities and not read.has_propensities
    assert bool(read.logprobs.isnan().all()) and torch.equal(read.items, log.items)
    change(tmp_path / "log.parquet", pl.lit(0.5).alias("propensity"), pl.lit(-0.7).alias("logprob"))
    with pytest.raises(UserError):
        read_decisions(tmp_path / "log.parquet")


def test_probabilities_are_read_as_logarithms(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    write_decisions(path, two_sessions())
    change(path, pl.col("logprob").exp().alias("propensity"), drop="logprob")
    assert torch.allclose(read_decisions(path).logprobs, two_sessions().logprobs)


def change(path: Path, *columns: pl.Expr, drop: str | None = None, rows: pl.Expr | None = None) -> None:
    """Replace columns of the file, and keep its header without the checksum, as earlier versions wrote it."""
    header = json.loads(pl.read_parquet_metadata(path)[KEY])
    del header[CHECKSUM]
    metadata = {KEY: json.dumps(header)}
    frame = pl.read_parquet(path).with_row_index("row").with_columns(*columns)
    frame = frame if rows is None else frame.filter(rows)
    frame.drop("row", *([drop] if drop else [])).write_parquet(path, metadata=metadata)


ONE_ROW = pl.col("row") == 1


def replaced(column: str, value: object, where: pl.Expr = ONE_ROW) -> pl.Expr:
    """The column with ``value`` in some rows."""
    return pl.when(where).then(pl.lit(value, allow_object=False)).otherwise(pl.col(column)).alias(column)


def listed(column: str, values: list[object]) -> pl.Expr:
    """The column with the list ``values`` in row 2 of the file."""
    new = pl.lit(pl.Series([values])).first()
    return pl.when(ONE_ROW).then(new).otherwise(pl.col(column)).alias(column)


BAD: dict[str, tuple[list[pl.Expr], str]] = {
    "logprob NaN": (
        [replaced("logprob", math.nan)],
        "row 2",
    ),
    "logprob of zero": ([replaced("logprob", -math.inf)], "row 2"),
    "logprob missing": (
        [replaced("logprob", None)],
        "row 2",
    ),
    "logprob positive": ([replaced("logprob", 0.5)], "row 2"),
    "probability as log": ([pl.lit(0.25).alias("logprob")], ""),
    "item outside": ([listed("items", [2, 10])], "row 2"),
    "item negative": ([listed("items", [-2, 3])], "row 2"),
    "slate short": ([listed("items", [2])], "row 2"),
    "place missing": ([listed("items", [2, None])], "row 2"),
    "item excluded": ([listed("items", [2, 9])], "row 2"),
    "item no candidate": ([listed("items", [2, 7])], "row 2"),
    "item shown again": ([listed("items", [0, 3])], "row 2"),
    "item twice": ([listed("items", [3, 3])], "row 2"),
    "signal missing": ([listed("signal.click", [1.0, None])], "row 2"),
    "signal NaN": ([listed("signal.click", [math.nan, 1.0])], "row 2"),
    "context infinite": (
        [listed("context.profile", [math.inf, 0.0, 0.0])],
        "",
    ),
    "time backwards": ([replaced("time", -5)], "row 2"),
    "step missing": ([replaced("step", 3, pl.col("row") == 2)], "row 3"),
    "step repeated": ([replaced("step", 0)], "rows 1 and 2"),
    "two users": ([replaced("user", 9)], "row 2"),
    "list begins late": ([replaced("list_place", 2, pl.col("row") == 1)], "row 2"),
    "list has a gap": ([replaced("list_place", 2)], "row 2"),
    "list begins a session": ([replaced("list_place", 1, pl.col("row") == 3)], "row 4"),
    "goes on": ([replaced("terminated", True)], "row 3"),
    "no end": ([pl.lit(False).alias("truncated")], "row 3"),
    "two ends": ([replaced("terminated", True, pl.col("row") == 2)], "row 3"),
    "unknown logger": ([replaced("logger", "three")], "row 2"),
    "places don't add up": ([listed("place_logprobs", [-1.0, -1.0])], "row 2"),
    "own logger differs": ([listed("logger_logprobs", [-2.0, -1.5])], "row 2"),
    "text for numbers": ([pl.lit("x").alias("step")], "row 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_refused_with_their_number(name: str, tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    write_decisions(path, two_sessions())
    columns, place = BAD[name]
    change(path, *columns)
    with pytest.raises(UserError) as refused:
        read_decisions(path)
    assert place in str(refused.value)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (pl.lit(0.0), "row 1"),
        (pl.lit(1.25), "row 1"),
        (pl.lit(math.nan), ""),
        (pl.lit(-1.5), ""),
        (pl.when(ONE_ROW).then(-0.5).otherwise(0.5), "row 2"),
    ],
)
def test_impossible_probabilities_are_refused(value: pl.Expr, place: str, tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    write_decisions(path, two_sessions())
    change(path, value.alias("propensity"), drop="logprob")
    with pytest.raises(UserError) as refused:
        read_decisions(path)
    assert place in str(refused.value)


@pytest.mark.parametrize("column", ["signal.hidden", "time", "logprob", "logger_logprobs"])
def test_missing_columns_are_refused(column: str, tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    write_decisions(path, two_sessions())
    change(path, drop=column)
    with pytest.raises(UserError):
        read_decisions(path)


def test_repeated_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    log = two_sessions()
    write_decisions(path, log.rows(torch.tensor([0, 1, 2, 1, 3, 4, 5])))
    with pytest.raises(UserError, match="rows 2 and 4 are both step 1 of session 0"):
        read_decisions(path)


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    with pytest.raises(UserError):
        read_decisions(path)
    write_decisions(path, two_sessions())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError):
        read_decisions(path)
    pl.DataFrame({"user": [1]}).write_parquet(path)
    with pytest.raises(UserError):
        read_decisions(path)
    headers: list[Any] = [
        {"format": 2},
        {"format": 1},
        {**header_to_dict(HEADER), "signals": []},
        {**header_to_dict(HEADER), "discount": 2},
        [],
    ]
    for header in headers:
        pl.DataFrame({"user": [1]}).write_parquet(path, metadata={KEY: json.dumps(header)})
        with pytest.raises(UserError):
            read_decisions(path)
    pl.DataFrame({"user": []}).write_parquet(path, metadata={KEY: json.dumps(header_to_dict(HEADER))})
    with pytest.raises(UserError):
        read_decisions(path)


def test_log_of_another_catalogue_is_refused() -> None:
    catalogue = tiny_catalogue()
    header = dataclasses.replace(HEADER, catalogue=catalogue_hash(catalogue))
    log = dataclasses.replace(two_sessions(), header=header)
    with pytest.raises(UserError):
        check_catalogue("log.parquet", log.header, catalogue)
    interface = dataclasses.replace(INTERFACE, action_sizes=(catalogue.num_items,))
    log = dataclasses.replace(log, header=dataclasses.replace(header, interface=interface))
    check_catalogue("log.parquet", log.header, catalogue)
    other = dataclasses.replace(catalogue, popularity=catalogue.popularity.flip(0))
    with pytest.raises(UserError):
        check_catalogue("log.parquet", log.header, other, "--data x.csv")
