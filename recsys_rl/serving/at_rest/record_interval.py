"""The sessions of a record at rest between two numbers of its rows.

Rows of all kinds share one count. A session belongs to the interval (since, until] that holds the number of
its last decision or event. That number changes no more once the session has matured, as the server then
refuses its feedback. So an interval may end only where every session up to there has matured: at most at the
*watermark*, one less than the last row of the first session that has not. A session that goes on holds it
back for no longer than its timeout and its feedback window: each new row of it has a higher number.
"""

from __future__ import annotations

from dataclasses import dataclass

from recsys_rl.errors import UserError, amount
from recsys_rl.serving.at_rest.opened_record import Record

IN_FLIGHT = 1.0
"""Seconds that a row with feedback may take from its acceptance to the disk."""


@dataclass(frozen=True)
class Interval:
    """The sessions whose last row has a number in (since, until]."""

    since: int
    until: int  # the next interval's ``since``
    sessions: tuple[int, ...]  # their numbers, ascending
    waiting: int  # sessions with a higher last row; they come in later intervals


def interval_of(
    record: Record, since: int = 0, until: int | None = None, now: float | None = None
) -> Interval:
    """The interval from ``since`` to ``until``; None: to the watermark. Only its own sessions are read.

    ``now``: seconds since 1970; None: IN_FLIGHT before the record was opened, so that all feedback that was
    accepted by then is in what is read. The record's last row counts in its place where that is later: a
    clock that was set back opens no session again. Raises UserError for numbers that bound no interval, and
    where a session up to ``until`` has not matured.
    """
    _check(since, until)
    now = record.store.moment - IN_FLIGHT if now is None else now
    with record.whole():
        highest, latest = record.store.latest_row()
        candidates = record.store.ended_in(since, highest if until is None else until)
    now, watermark, matured = max(now, latest), highest, list[int]()
    last_of = dict(candidates)
    for rows in record.sessions(last_of):
        if not record.state_of(rows).matured(now):
            watermark = last_of[rows.session.number] - 1
            break
        matured.append(rows.session.number)
    if until is not None and until > watermark:
        raise UserError(
            f"{record.name} has sessions up to row {until:,} that have not matured, or no such row: give "
            f"--until {max(watermark, since)} or less, or leave it out."
        )
    end = max(watermark, since) if until is None else until
    return Interval(since, end, tuple(sorted(matured)), len(candidates) - len(matured))


def _check(since: int, until: int | None) -> None:
    """Raise UserError for numbers that bound no interval."""
    if since < 0:
        raise UserError(f"--since {since} is below 0: give the number that the export before printed.")
    if until is not None and until <= since:
        raise UserError(
            f"--until {until} leaves no row after --since {since}: give a larger number, or leave it out."
        )


def nothing(record: Record, interval: Interval, more: str = "") -> UserError:
    """The error of an interval without a session for a log."""
    after = f" after row {interval.since:,}" if interval.since else ""
    waiting = amount(interval.waiting, "session")
    return UserError(
        f"{record.name} has no session for a log{after} ({waiting} later than that{more}): wait until a "
        "session has ended and its feedback window (--feedback-window of `recsys-rl serve`) is over."
    )
