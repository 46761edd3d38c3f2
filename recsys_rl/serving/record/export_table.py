"""`recsys-rl log export` of a team's own place: its finished sessions as a table with named columns.

It is a table as people's own logs are (docs/09_logs.md), so `train`, `ope` and `data describe` read it beside
those. All comes from the rows and the facts of the record; checkpoints are opened for the arms of a release
alone.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from recsys_rl.logs.intervals import metadata_of
from recsys_rl.serving.record.export_arms import by_an_arm, with_arms
from recsys_rl.serving.record.export_survey import POPULARITY_DRAWN, Logger, logger_name, logger_of
from recsys_rl.serving.record.interval import Interval, nothing
from recsys_rl.serving.record.own_columns import TableRow, frame_of
from recsys_rl.serving.record.record_at_rest import Record
from recsys_rl.serving.session_state import SessionState
from recsys_rl.utils.files import write_bytes

UNKNOWN = "no-propensity"
"""The folder of sessions without a probability, beside the file of the others."""


@dataclass
class TableExport:
    """The tables that were written, and what they hold."""

    interval: Interval
    files: dict[Path, int] = field(default_factory=dict)  # the rows of each
    sessions: int = 0
    unknown: int = 0  # decisions without a probability
    never_shown: int = 0  # items


def export_table(record: Record, out: Path, interval: Interval) -> TableExport:
    """Write the sessions of an interval. Raises UserError.

    Sessions with an unknown probability get a table of their own, in a folder beside ``out``, if others have
    all of theirs: a log has propensities in each row or in none. It is written first, as the file of an
    interval says that the interval is exported.
    """
    done = TableExport(interval)
    sessions = [
        record.state_of(rows)
        for group in record.groups(record.sessions(interval.sessions))
        for rows in with_arms(record, group)
    ]
    people = record.people({session.row.person for session in sessions})
    done.sessions, names = len(sessions), _names(record, sessions)
    known, unknown = list[TableRow](), list[TableRow]()
    for session in sessions:
        lacking = sum(not decision.logprobs for decision in session.decisions)
        done.unknown += lacking
        found = _rows_of(session, people[session.row.person], record, names)
        (unknown if lacking else known).extend(found)
    if not done.sessions:
        raise nothing(record, interval)
    facts = record.store.facts
    shown = {item for row in (*known, *unknown) for item in row.items}
    done.never_shown = len(facts["items"]) - len(shown)
    beside = out.parent / UNKNOWN / out.name if known else out
    for path, some in ((beside, unknown), (out, known)):
        if some:
            write_bytes(path, _content(frame_of(some, facts, done.never_shown), interval))
            done.files[path] = len(some)
    return done


def _names(record: Record, sessions: Sequence[SessionState]) -> dict[Logger, str]:
    """A name of each logger, no two alike; the arms of releases have one together."""
    names: dict[Logger, str] = {}
    arms: dict[Logger, None] = {}
    for session in sessions:
        for decision in session.decisions:
            logger = logger_of(decision)
            if by_an_arm(decision):
                arms[logger] = None
            if logger in names:
                continue
            number, explore = logger
            policy = record.policies.get(number) if isinstance(number, int) else None
            name = number if isinstance(number, str) else POPULARITY_DRAWN
            name = logger_name(name if policy is None else policy.name, explore)
            if name in names.values():
                name = f"{name} ({'application' if policy is None else policy.sha256[:8]})"
            names[logger] = name
    together = " + ".join(names[logger] for logger in arms)
    return {logger: together if logger in arms else name for logger, name in names.items()}


def _rows_of(
    session: SessionState, user: str, record: Record, names: Mapping[Logger, str]
) -> Iterator[TableRow]:
    """The rows of a session: a list of n single items is n rows."""
    facts, began = record.store.facts, int(1000 * session.row.began)
    pieces = [name for name, *_ in facts["context"]]  # in alphabetical order, as in the rows
    slate, latest = facts["slate_size"], 0
    for decision in session.decisions:
        latest, logger = max(int(1000 * decision.time), latest), logger_of(decision)
        for place in range(0, len(decision.items), slate):
            step = session.steps[decision.step + place // slate]
            yield TableRow(
                user=user,
                session=f"{session.row.number}-{began}",  # other records count from 1 too
                time=latest,
                policy=names[logger],
                version="" if decision.application else record.policies[decision.policy].sha256[:12],
                items=step.items,
                logprobs=decision.logprobs[place : place + slate],
                candidates=decision.candidates,
                exclude=decision.exclude,
                above=decision.items[:place],
                signals=step.signals,
                context=dict(zip(pieces, decision.context, strict=True)),
            )


def _content(frame: pl.DataFrame, interval: Interval) -> bytes:
    content, metadata = io.BytesIO(), metadata_of((interval.since, interval.until))
    frame.write_parquet(content, compression="zstd", metadata=metadata)
    return content.getvalue()
