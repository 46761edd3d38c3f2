"""The part of a log on which `recsys-rl ope` judges: held-out users, and sessions from a time on.

A team's own tables are judged on users whom all checkpoints of the command held out, as a policy has learned
from the others; sessions that began after the last of their logs ended are those of all users.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import polars as pl
import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.checkpoint.home import split_of
from recsys_rl.data.tables.times import format_in, seconds
from recsys_rl.errors import amount, one_line
from recsys_rl.logs.decision_log import DecisionLog, cut
from recsys_rl.logs.ope.config import OpeConfig
from recsys_rl.logs.ope.unknown import answerable
from recsys_rl.logs.own_log import OwnLog
from recsys_rl.logs.source import heldout_rows
from recsys_rl.types import Catalogue, UserError

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
    return log.times[log.steps == 0][log.session]


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


def answered(parts: Parts, catalogue: Catalogue, known: Tensor) -> tuple[Parts, int]:
    """The sessions that policies of the ``known`` (I,) items could answer, and the number of the others."""
    left_out = sum(
        log.num_sessions - log.rows(answerable(log, catalogue, known)).num_sessions for log in parts()
    )
    if not left_out:
        return parts, 0
    return _kept(parts, lambda log: answerable(log, catalogue, known)), left_out


def _kept(parts: Parts, rows: Callable[[DecisionLog], Tensor]) -> Parts:
    """The decisions ``rows`` (E,) of each part that has any."""

    def kept() -> Iterator[DecisionLog]:
        for log in parts():
            mine = rows(log)
            if bool(mine.any()):
                yield log.rows(mine)

    return kept


def end_of_learning(options: OpeConfig, source: OwnLog, checkpoints: Iterable[Checkpoint]) -> int | None:
    """The last time from which one of the policies learned; None if it is unknown, or has no effect."""
    ends = [checkpoint.info.get("log_end") for checkpoint in checkpoints]
    known = [int(end) for end in ends if end is not None]
    unknown = len(known) < len(ends) or not source.has_times
    return None if unknown or options.users == "heldout" else max(known)


def judged_parts(
    source: OwnLog, checkpoints: Sequence[Checkpoint], rows: int, learned_until: int | None = None
) -> Iterator[DecisionLog]:
    """The decisions of users held out by each checkpoint, in parts of about ``rows`` rows, and later ones.

    Later ones are of all users. ``learned_until``: as of ``end_of_learning``. Raises UserError without any
    decision.
    """
    empty = True
    for part in source.parts(rows):
        judged = heldout_of(part, *checkpoints)
        if learned_until is not None:
            judged |= _later(part, learned_until)
        if bool(judged.any()):
            empty = False
            yield from cut(part.rows(judged), rows)
    if empty:
        whose = "" if source.unit == "decision" else f"of {source.unit}s "
        raise UserError(
            f"{source.name} holds no decisions {whose}that were held out from training, so nothing here can "
            f"judge the policy: give a log of more {source.unit}s."
        )


def _later(log: DecisionLog, end: int) -> Tensor:
    """(E,) bool: rows of sessions that began after ``end``; no date is later than a number that is none."""
    starts, dates = starts_of(log), DATES * PER_SECOND
    return (starts > end) & ((starts >= dates) == (end >= dates))


def about_tables(
    source: OwnLog, checkpoints: Sequence[Checkpoint], judged: Iterable[DecisionLog], since: str | None = None
) -> Iterator[str]:
    """Lines about tables of which the decisions ``judged`` are judged on; ``since``: of the options."""
    heldout = later = 0
    for part in judged:
        of_part = int(heldout_of(part, *checkpoints).sum())
        heldout, later = heldout + of_part, later + part.num_rows - of_part
    rest = source.num_rows - heldout - later
    whose = f"{amount(heldout, 'decision')} of held-out {source.unit}s"
    if source.unit == "decision":
        whose = amount(heldout, "held-out decision")
    newer = f" and {later:,} that are later than all that the policy learned from" * bool(later)
    why = "from which such a policy learns"
    if since is not None:
        why = f"of sessions before {one_line(since)} or {why}"
    left = f"; the other {rest:,}, {why}, are left out" * (bool(rest) or not later)
    yield f"judging on {whose}{newer}{left}"
    if later:
        yield (
            f"the later decisions are of all {source.unit}s: the policy may know the tastes of some from "
            "their earlier ones; --users heldout judges on the others alone"
        )
    for name, number in source.others.items():
        yield (
            f"context.{name}: {number:,} of {amount(source.num_rows, 'decision')} have a text without a code "
            "of its own, and count as other"
        )
