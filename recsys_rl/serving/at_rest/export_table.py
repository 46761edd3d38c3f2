"""`recsys-rl log export` of a team's own place: its finished sessions as a table with named columns.

It is a table as people's own logs are (docs/09_logs.md), so `train`, `ope` and `data describe` read it beside
those. A file of the items stands beside it, with the moments at which each could be shown. Each decision has
its own moment: the number of the last change of the items before it. All comes from the rows and the facts of
the record; checkpoints are opened for the arms of a release alone.
"""

from __future__ import annotations

import io
import itertools
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from recsys_rl.data.tables import schema
from recsys_rl.data.tables.item_encoding import GENRES
from recsys_rl.data.tables.read import items_beside
from recsys_rl.data.tables.schema import common_names, of_propensities
from recsys_rl.data.tables.values import INTEGER, in_table
from recsys_rl.data.timeline import NEVER, STOCK
from recsys_rl.logs.intervals import metadata_of
from recsys_rl.serving.at_rest.export_arms import by_an_arm, with_arms
from recsys_rl.serving.at_rest.export_survey import Logger, late_decisions, logger_names, logger_of, times_of
from recsys_rl.serving.at_rest.opened_record import Record
from recsys_rl.serving.at_rest.record_interval import Interval, nothing
from recsys_rl.serving.draw.session_state import SessionState
from recsys_rl.serving.record.facts import COLUMNS, FEATURES, TAGS
from recsys_rl.serving.record.record_schema import ServedPolicy
from recsys_rl.serving.record.stock import Stock
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
    late_feedback: int = 0  # decisions, as of ``late_decisions``


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
    done.sessions, names = len(sessions), _logger_names(record, sessions)
    known, unknown = list[TableRow](), list[TableRow]()
    late = {True: 0, False: 0}  # by whether all probabilities are known
    for session in sessions:
        lacking = sum(not decision.logprobs for decision in session.decisions)
        done.unknown += lacking
        found = _rows_of(session, people[session.row.person], record, names)
        (unknown if lacking else known).extend(found)
        late[not lacking] += late_decisions(session)
    if not done.sessions:
        raise nothing(record, interval)
    facts, stock = record.store.facts, record.stock
    shown = {stock.added[item].id for row in (*known, *unknown) for item in row.items}
    last = bisect_right(stock.changes, interval.until)
    there = stock.until(stock.changes[last - 1] if last else 0)
    done.never_shown = len({item.id for item in there.added} - shown)
    ids = ids_of(there)
    beside = out.parent / UNKNOWN / out.name if known else out
    done.late_feedback = sum(late.values())
    for path, some in ((beside, unknown), (out, known)):
        if some:
            write_bytes(items_beside(path), _content(items_frame(there, ids, facts), interval))
            write_bytes(path, _content(frame_of(some, facts, stock, ids), interval, late[some is known]))
            done.files[path] = len(some)
    return done


def _logger_names(record: Record, sessions: Sequence[SessionState]) -> dict[Logger, str]:
    """A name of each logger, no two alike; the arms of releases have one together."""
    loggers: dict[Logger, ServedPolicy | None] = {}
    arms: dict[Logger, None] = {}
    for session in sessions:
        for decision in session.decisions:
            logger = logger_of(decision)
            loggers.setdefault(logger, record.policies.get(decision.policy))
            if by_an_arm(decision):
                arms[logger] = None
    names = logger_names(loggers)
    together = " + ".join(names[logger] for logger in arms)
    return {logger: together if logger in arms else name for logger, name in names.items()}


def _rows_of(
    session: SessionState, user: str, record: Record, names: Mapping[Logger, str]
) -> Iterator[TableRow]:
    """The rows of a session: a list of n single items is n rows."""
    facts, stock, began = record.store.facts, record.stock, int(1000 * session.row.began)
    pieces = [name for name, *_ in facts["context"]]  # in alphabetical order, as in the rows
    slate, times = facts["slate_size"], times_of(session)
    for decision in session.decisions:
        logger = logger_of(decision)
        for place in range(0, len(decision.items), slate):
            step = session.steps[decision.step + place // slate]
            yield TableRow(
                stock=stock.moment_of(decision.number),
                user=user,
                session=f"{session.row.number}-{began}",  # other records count from 1 too
                time=times[decision.number],
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


def _content(frame: pl.DataFrame, interval: Interval, late: int = 0) -> bytes:
    content, metadata = io.BytesIO(), metadata_of((interval.since, interval.until), late)
    frame.write_parquet(content, compression="zstd", metadata=metadata)
    return content.getvalue()


KINDS = {"number": pl.Float64(), "text": pl.String(), "list": pl.List(pl.Float64())}
_ADDED = ("time", "policy", "version", "propensity", "candidates", "place_logprobs")
"""Roles of columns that an export may have where the log has none."""


@dataclass(frozen=True)
class TableRow:
    """One row of a table: items and candidates are rows of the catalogue."""

    stock: int  # the number of the last change of the items before it
    user: str
    session: str
    time: int  # milliseconds since 1970
    policy: str  # the name of the logger
    version: str  # of a policy of ours; "" for an application
    items: tuple[int, ...]  # (K,)
    logprobs: tuple[float, ...]  # of each place, or of the whole slate; () if it is unknown
    candidates: tuple[int, ...] | None  # of the request; None: all
    exclude: tuple[int, ...]
    above: tuple[int, ...]  # the items of the rows of its list before it
    signals: list[list[float]]  # (K, S)
    context: Mapping[str, Any]  # by piece, as the request gave it; None: it has no value

    @property
    def limited(self) -> bool:
        """True if the request named candidates, or excluded items."""
        return self.candidates is not None or bool(self.exclude)

    def showable(self, stock: Stock) -> list[int]:
        """The rows of the catalogue that could be shown."""
        forbidden = {*self.exclude, *self.above}
        there: list[int] = stock.available_at(self.stock).nonzero().squeeze(1).tolist()
        some = there if self.candidates is None else self.candidates
        return [item for item in some if item not in forbidden]


def ids_of(stock: Stock) -> pl.Series:
    """(I,) the ids of the items, as numbers if all are whole numbers."""
    ids = pl.Series([item.id for item in stock.added], dtype=pl.String)
    return ids.cast(pl.Int64) if ids.str.contains(INTEGER).all() else ids


def items_frame(stock: Stock, ids: pl.Series, facts: Mapping[str, Any]) -> pl.DataFrame:
    """The table of the items, in the order in which they came."""
    columns = {facts.get(COLUMNS, {}).get("item", "item"): ids}
    columns["title"] = pl.Series([item.title for item in stock.added], dtype=pl.String)
    kinds = {**KINDS, "names": pl.List(pl.String())}
    for name, kind in facts.get(FEATURES, {}).items():
        own = facts.get(TAGS, name) if name == GENRES else name
        columns[own] = pl.Series([item.features.get(name) for item in stock.added], dtype=kinds[kind])
    columns[STOCK[0]] = pl.Series([item.number for item in stock.added], dtype=pl.Int64)
    ends = [None if gone == NEVER else gone for gone in stock.gone]
    columns[STOCK[1]] = pl.Series(ends, dtype=pl.Int64)
    return pl.DataFrame(columns)


def frame_of(
    rows: Sequence[TableRow], facts: Mapping[str, Any], stock: Stock, ids: pl.Series
) -> pl.DataFrame:
    """The table. ``facts``: of the record; ``ids`` (I,): of the items of its ``stock``.

    Users and sessions stand there only if the log has them too, so that one policy can learn from both.
    """
    slate, of_log = facts["slate_size"], facts.get(COLUMNS, {})
    names = _names_of(of_log)
    columns: dict[str, pl.Series] = {}
    if not of_log or "user" in of_log:
        columns[names.get("user", "user")] = pl.Series([row.user for row in rows], dtype=pl.String)
    if not of_log or "session" in of_log:
        columns[names.get("session", "session")] = pl.Series([row.session for row in rows], dtype=pl.String)
    columns[names["time"]] = pl.Series([row.time for row in rows], dtype=pl.Int64)
    columns[names["policy"]] = pl.Series([row.policy for row in rows], dtype=pl.String)
    columns[names["version"]] = pl.Series([row.version for row in rows], dtype=pl.String)
    items = _lists(ids, [row.items for row in rows])
    columns[names.get("item", "item" if slate == 1 else "items")] = items if slate > 1 else items.list.first()
    columns |= _propensities(rows, slate, names["propensity"], names["place_logprobs"])
    columns["stock"] = pl.Series([row.stock for row in rows], dtype=pl.Int64)
    if "candidates" in of_log or any(row.limited for row in rows):
        columns[names["candidates"]] = _lists(ids, [row.showable(stock) for row in rows])
    if any(row.above for row in rows):
        columns["list_place"] = pl.Series([len(row.above) // slate for row in rows], dtype=pl.Int64)
    for index, signal in enumerate(facts["signals"]):
        values = pl.Series(
            [[place[index] for place in row.signals] for row in rows], dtype=pl.List(pl.Float64)
        )
        name = signal if names.get("reward") == signal else f"signal.{signal}"
        columns[name] = values if slate > 1 else values.list.first()
    for piece, kind, _ in facts["context"]:
        given = (row.context[piece] for row in rows)
        cells = [in_table(value) if isinstance(value, str) else value for value in given]
        columns[f"context.{piece}"] = pl.Series(cells, dtype=KINDS[kind])
    return pl.DataFrame(columns)


def _names_of(of_log: Mapping[str, str]) -> dict[str, str]:
    """The column of each role: that of the log, else the first usual name that the log uses for no other."""
    names = dict(of_log)
    for role in _ADDED:
        usual = [role, *(common_names(role) if role in schema.COLUMNS else ())]
        more = (f"{role}_{number}" for number in itertools.count(2))
        free = (name for name in itertools.chain(usual, more) if name not in names.values())
        names.setdefault(role, next(free))
    return names


def _propensities(rows: Sequence[TableRow], slate: int, name: str, of_places: str) -> dict[str, pl.Series]:
    """The columns of the probabilities, ``name`` and ``of_places``; none if some are unknown."""
    if not all(row.logprobs for row in rows):
        return {}
    sums = pl.Series([sum(row.logprobs) for row in rows], dtype=pl.Float64)
    columns = {name: sums if of_propensities(name).name == "logprob" else sums.exp()}
    if slate > 1 and all(len(row.logprobs) == slate for row in rows):
        columns[of_places] = pl.Series([row.logprobs for row in rows])
    return columns


def _lists(ids: pl.Series, rows: Sequence[Sequence[int]]) -> pl.Series:
    """The ids of the items in each row, as lists."""
    places = pl.Series("row", rows, dtype=pl.List(pl.Int64))
    flat = ids.gather(places.explode()).alias("id")
    numbers = pl.Series("at", range(len(places)), dtype=pl.UInt32)
    frame = pl.DataFrame({"at": numbers, "row": places}).explode("row").with_columns(flat)
    return frame.group_by("at", maintain_order=True).agg("id")["id"]
