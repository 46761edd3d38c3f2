"""`recsys-rl log export` of a team's own place: its finished sessions as a table with named columns.

It is a table as people's own logs are (docs/09_logs.md), so `train`, `ope` and `data describe` read it beside
those. All comes from the rows and the facts of the record; no checkpoint is opened.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from recsys_rl.errors import UserError
from recsys_rl.serve.export_survey import logger_of
from recsys_rl.serve.facts import ITEMS_KNOWN
from recsys_rl.serve.record_at_rest import Record
from recsys_rl.serve.record_schema import Decision
from recsys_rl.serve.session_state import SessionState
from recsys_rl.utils.files import write_bytes

MOST_CANDIDATES = 1_000
"""Items of a place whose rows name all of them as candidates, where some were never shown."""


@dataclass
class TableExport:
    """The tables that were written, and what they hold."""

    files: dict[Path, int] = field(default_factory=dict)  # the rows of each
    sessions: int = 0
    not_matured: int = 0
    unknown: int = 0  # decisions without a probability
    never_shown: int = 0  # items


def export_table(record: Record, out: Path, now: float | None = None) -> TableExport:
    """Write the sessions that have matured. Raises UserError.

    Sessions with an unknown probability get a table of their own, beside ``out``, if others have all of
    theirs: a table has propensities in each row or in none.
    """
    now = time.time() if now is None else now
    facts, people, interface = record.store.facts, record.people(), record.interface
    done, known, unknown = TableExport(), list[dict[str, Any]](), list[dict[str, Any]]()
    for rows in record.sessions():
        session = SessionState.of(rows, interface)
        if not session.matured(now):
            done.not_matured += 1
            continue
        done.sessions += 1
        lacking = sum(not decision.logprobs for decision in session.decisions)
        done.unknown += lacking
        found = _rows_of(session, people[session.row.person], record)
        (unknown if lacking else known).extend(found)
    if not done.sessions:
        raise UserError(
            f"{record.name} has no session for a log ({done.not_matured:,} have not matured): wait until a "
            "session has ended and its feedback window (--feedback-window of `recsys-rl serve`) is over."
        )
    shown = {item for row in (*known, *unknown) for item in row["items"]}
    done.never_shown = len(facts["items"]) - len(shown)
    beside = out.with_name(f"{out.stem}.no-propensity{out.suffix}") if known else out
    for path, some in ((out, known), (beside, unknown)):
        if some:
            write_bytes(path, _content(_frame(some, facts, done.never_shown)))
            done.files[path] = len(some)
    return done


def _name(record: Record, decision: Decision) -> str:
    """The name of the logger of a decision."""
    number, explore = logger_of(decision)
    if isinstance(number, str):
        return number
    policy = record.policies[number].name if number else "popularity-drawn"
    return f"{1 - explore:g} {policy} + {explore:g} random" if explore else policy


def _rows_of(session: SessionState, user: str, record: Record) -> list[dict[str, Any]]:
    facts = record.store.facts
    ids, signals, slate = facts["items"], facts["signals"], facts["slate_size"]
    rows = list[dict[str, Any]]()
    for decision in session.decisions:
        for place in range(0, len(decision.items), slate):
            step = session.steps[decision.step + place // slate]
            logprobs = decision.logprobs[place : place + slate]
            candidates = decision.candidates
            if candidates is not None:  # those of a list are without the items above
                candidates = tuple(x for x in candidates if x not in decision.items[:place])
            rows.append(
                {
                    "user": user,
                    "session": session.row.number,
                    "time": max(int(1000 * decision.time), rows[-1]["time"] if rows else 0),
                    "policy": _name(record, decision),
                    "items": [ids[item] for item in step.items],
                    "logprobs": logprobs,
                    "candidates": None if candidates is None else [ids[item] for item in candidates],
                    **{
                        f"signal.{signal}": [values[index] for values in step.signals]
                        for index, signal in enumerate(signals)
                    },
                    **{f"context.{piece}": value for piece, value in decision.context},
                }
            )
    return rows


def _frame(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], never_shown: int) -> pl.DataFrame:
    """The columns of a table."""
    slate, every = facts["slate_size"], facts["items"]
    columns: dict[str, pl.Series] = {
        "user": pl.Series([row["user"] for row in rows], dtype=pl.String),
        **{name: pl.Series([row[name] for row in rows]) for name in ("session", "time", "policy")},
    }
    items = pl.Series([row["items"] for row in rows], dtype=pl.List(pl.String))
    columns |= {"items": items} if slate > 1 else {"item": items.list.first()}
    if all(row["logprobs"] for row in rows):
        columns["propensity"] = pl.Series([sum(row["logprobs"]) for row in rows], dtype=pl.Float64).exp()
        if slate > 1 and all(len(row["logprobs"]) == slate for row in rows):
            columns["place_logprobs"] = pl.Series([row["logprobs"] for row in rows])
    of_request = any(row["candidates"] is not None for row in rows)
    # An item that no row names is unknown to a policy that learns from the table, unless it has features.
    lacking = never_shown and not facts.get(ITEMS_KNOWN) and len(every) <= MOST_CANDIDATES
    if of_request or lacking:
        offered = [every if row["candidates"] is None else row["candidates"] for row in rows]
        columns["candidates"] = pl.Series(offered, dtype=pl.List(pl.String))
    for signal in facts["signals"]:
        values = pl.Series([row[f"signal.{signal}"] for row in rows], dtype=pl.List(pl.Float64))
        columns[f"signal.{signal}"] = values if slate > 1 else values.list.first()
    for piece, kind, _ in facts["context"]:
        dtype = {"number": pl.Float64(), "text": pl.String(), "list": pl.List(pl.Float64)}[kind]
        columns[f"context.{piece}"] = pl.Series([row[f"context.{piece}"] for row in rows], dtype=dtype)
    return pl.DataFrame(columns)


def _content(frame: pl.DataFrame) -> bytes:
    content = io.BytesIO()
    frame.write_parquet(content, compression="zstd")
    return content.getvalue()
