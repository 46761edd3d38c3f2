"""The part of a log on which `recsys-rl ope` judges: held-out users, and sessions from a time on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import polars as pl
import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.checkpoint.home import split_of
from recsys_rl.data.tables.times import format_in, seconds
from recsys_rl.errors import one_line
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.heldout import heldout_rows
from recsys_rl.types import UserError

Parts = Callable[[], Iterator[DecisionLog]]
DATES = 1e8
"""Seconds since 1970 (the year 1973) from which times are dates; smaller ones count steps or days."""
PER_SECOND = 1e6
"""Units of a second in the times of people's own tables (decision_columns.py)."""


def heldout(parts: Parts, checkpoints: Sequence[Checkpoint]) -> Parts:
    """The decisions for users who were held out from the training of every checkpoint."""
    return _kept(parts, lambda log: heldout_of(log, *checkpoints))


def heldout_of(log: DecisionLog, *checkpoints: Checkpoint) -> Tensor:
    """(E,) bool: the decisions for users whom the training of none of these checkpoints may see."""
    sides = [heldout_rows(log, checkpoint.population, *split_of(checkpoint)) for checkpoint in checkpoints]
    return torch.stack(sides).all(0)


def later(parts: Parts, since: str, per_second: float | None = None) -> Parts:
    """The sessions that began at ``since`` or later, a number in the log's unit or a date.

    ``per_second``: units of a second in the log's times; None: by their size, if they are dates.

    Raises UserError for what is neither, and when the parts are read, for a date where they have none.
    """
    wanted = start_of(since)
    return _kept(parts, lambda log: begun_since(log, wanted, since, per_second))


def begun_since(log: DecisionLog, wanted: float, since: str, per_second: float | None = None) -> Tensor:
    """(E,) bool: rows of sessions whose first step is at ``wanted`` seconds, or that number, or later."""
    times = starts_of(log).double()  # beside a number, integers became single precision
    unit = per_second or _unit(log.times)
    if wanted >= DATES and float(log.times.max()) / unit < DATES:
        raise UserError(
            f"--since {since} is a date, and the times of this log are not dates ({int(log.times[0])}): give "
            "a number in their unit."
        )
    scale = unit if per_second or wanted >= DATES else 1.0
    return times >= wanted * scale


def starts_of(log: DecisionLog) -> Tensor:
    """(E,) int64: the time of the first step of each row's session."""
    _, session = log.sessions.unique_consecutive(return_inverse=True)
    return log.times[log.steps == 0][session]


def start_of(since: str) -> float:
    """Seconds of a date, or of a number as large as one; other numbers as they are. Raises UserError."""
    column = pl.Series("x", [since])
    form = format_in(column)
    found = column.to_frame().select(seconds(pl.col("x"), pl.String(), form)).item()
    if found is None:
        raise UserError(f"--since {one_line(since)} is not a time: give a number, or a date as 2026-11-30.")
    return float(found)


def _unit(times: Tensor) -> float:
    return format_in(pl.Series("x", times.numpy())).per_second


def _kept(parts: Parts, rows: Callable[[DecisionLog], Tensor]) -> Parts:
    def kept() -> Iterator[DecisionLog]:
        return _left(parts(), rows)

    return kept


def _left(parts: Iterable[DecisionLog], rows: Callable[[DecisionLog], Tensor]) -> Iterator[DecisionLog]:
    for log in parts:
        mine = rows(log)
        if bool(mine.any()):
            yield log.rows(mine)
