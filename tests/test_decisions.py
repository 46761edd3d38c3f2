"""DecisionLog and its file."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from recsys_rl.data.decision_reader import read_decisions
from recsys_rl.data.decision_writer import KEY, DecisionWriter, write_decisions
from recsys_rl.data.decisions import DecisionHeader, DecisionLog, streams_by_name
from recsys_rl.types import Interface, UserError

INTERFACE = Interface((("profile", 3),), (10,), 2, False, 6, ("click",), 3)
HEADER = DecisionHeader(("one", "two"), INTERFACE, ("click", "hidden"), 0.9, "feed", "abc")


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
        handed={"profile": torch.arange(18.0).view(6, 3)},
        place_logprobs=torch.tensor([[-1.0, -0.5]] * 6).double(),
        logger_logprobs=torch.tensor([[-1.5, -torch.inf]] * 3 + [[-3.0, -1.5]] * 3).double(),
        candidates=torch.tensor([[0, 1, 2, 3, 4, 5, 6]] * 5 + [[4, 1, 2, -1, -1, -1, -1]]),
        exclude=torch.tensor([[9, 8]] * 3 + [[9, -1]] * 2 + [[-1, -1]]),
    )


def assert_same(one: DecisionLog, two: DecisionLog) -> None:
    assert one.header == two.header
    for f in dataclasses.fields(DecisionLog):
        a, b = getattr(one, f.name), getattr(two, f.name)
        if isinstance(a, Tensor):
            assert isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b), f.name
        elif f.name == "handed":
            assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        else:
            assert a == b


def test_a_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    log = two_sessions()
    write_decisions(tmp_path / "log.parquet", log)
    assert_same(read_decisions(tmp_path / "log.parquet"), log)


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


def test_streams_by_name_sum_each_signal_over_the_slate() -> None:
    streams = streams_by_name(two_sessions())
    assert list(streams) == ["click", "hidden"]
    assert streams["click"].tolist() == [2.0, 10.0, 18.0, 26.0, 34.0, 42.0]  # 0 + 2, 4 + 6, ...


def test_probabilities_are_read_as_logarithms(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    write_decisions(path, two_sessions())
    change(path, pl.col("logprob").exp().alias("propensity"), drop="logprob")
    assert torch.allclose(read_decisions(path).logprobs, two_sessions().logprobs)


def change(path: Path, *columns: pl.Expr, drop: str | None = None, rows: pl.Expr | None = None) -> None:
    """Replace columns of the file, and keep its header."""
    metadata = {KEY: pl.read_parquet_metadata(path)[KEY]}
    frame = pl.read_parquet(path).with_row_index("row").with_columns(*columns)
    frame = frame if rows is None else frame.filter(rows)
    frame.drop("row", *([drop] if drop else [])).write_parquet(path, metadata=metadata)
