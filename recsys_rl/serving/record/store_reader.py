"""Reading the record's database. A session's digest covers each row that is given out.

A session counts its rows and sums their digests in the transaction that writes them: a row that is lost,
changed or doubled shows when the session is read.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

from recsys_rl.errors import UserError, error_text
from recsys_rl.serving.record.record_schema import (
    APPLICATION,
    DIGEST_BITS,
    FORMAT,
    OLDEST,
    UNREADABLE,
    Damaged,
    Decision,
    Event,
    ItemChange,
    Person,
    Release,
    ServedPolicy,
    Session,
    SessionRows,
    decoded,
    digest,
    encoded,
    is_person,
)
from recsys_rl.serving.record.stock import Stock

W = TypeVar("W", Release, ItemChange)


def whole_session(
    number: int, stored: tuple[bytes, int, int], decisions: Sequence[bytes], events: Sequence[bytes]
) -> SessionRows:
    """A session from its encoded rows; ``stored``: its own row, their number and the sum of their digests.

    Raises Damaged.
    """
    session, tally, wanted = stored
    contents = [session, *decisions, *events]
    try:
        if len(contents) != tally or sum(map(digest, contents)) & DIGEST_BITS != wanted:
            raise Damaged(f"session {number}")
        return SessionRows(
            decoded(Session, session),
            [decoded(Decision, row) for row in decisions],
            [decoded(Event, row) for row in events],
        )
    except (Damaged, *UNREADABLE) as error:
        raise Damaged(f"session {number}") from error


def format_of(db: sqlite3.Connection, name: str) -> int:
    """The format of a record, 0 of an empty file. Raises UserError for one that this version can't read."""
    application, version = (
        db.execute(f"PRAGMA {pragma}").fetchone()[0] for pragma in ("application_id", "user_version")
    )
    if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return 0
    if application != APPLICATION:
        raise UserError(f"{name} is a database of another program: give another name with --db.")
    if not OLDEST <= version <= FORMAT:
        raise UserError(
            f"{name} has the format {version}, and this version reads {OLDEST} to {FORMAT}: use the version "
            "that wrote it."
        )
    return int(version)


class StoreReader:
    """Queries on one connection; one thread at a time uses it."""

    def __init__(self, db: sqlite3.Connection, name: str) -> None:
        self.moment = time.time()
        """Seconds since 1970: all that is read was written later, or stood there then."""
        self._db, self.name = db, name

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The facts of the record (facts.py). Raises UserError if they are damaged."""
        try:
            facts = {name: json.loads(value) for name, value in self._read("SELECT name, value FROM facts")}
        except (Damaged, ValueError):
            raise UserError(f"{self.name} is damaged: copy it from a backup.") from None
        if "items" in facts:
            raise UserError(
                f"{self.name} is the record of an earlier version, in which no item of your place could come "
                "or go: begin a new record with another --db; an export of that version is a log for train."
            )
        return facts

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def _read(self, query: str, values: tuple[Any, ...] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query. Raises Damaged where SQLite can't read the file."""
        try:
            return self._db.execute(query, values).fetchall()
        except (sqlite3.DatabaseError, ValueError) as error:
            raise Damaged(error_text(error)) from error

    def _first(self, query: str, values: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
        rows = self._read(query, values)
        return rows[0] if rows else None

    def person(self, name: str) -> tuple[Person, SessionRows | None] | None:
        """A person with the latest session, or None. Raises Damaged."""
        row = self._first("SELECT number FROM people WHERE name = ?", (name,))
        if row is None:
            return None
        latest = self._read("SELECT max(number) FROM sessions WHERE person = ?", row)[0][0]
        return Person(row[0], name), None if latest is None else self.session(latest)

    def session(self, number: int) -> SessionRows | None:
        """A session with its rows, or None. Raises Damaged."""
        row = self._first("SELECT row, tally, digest FROM sessions WHERE number = ?", (number,))
        if row is None:
            return None
        session, tally, wanted = row
        decisions, events = (
            [row[0] for row in self._read(query, (number,))]
            for query in (
                "SELECT row FROM decisions WHERE session = ? ORDER BY number",
                "SELECT row FROM events WHERE session = ? ORDER BY number",
            )
        )
        return whole_session(number, (session, tally, wanted), decisions, events)

    def decision(self, number: int) -> tuple[SessionRows, Decision] | None:
        """A decision with its session; None if there is none. Raises Damaged."""
        return self._decision("number", number)

    def answered(self, request: str) -> Decision | None:
        """The decision of the caller's request id. Raises Damaged."""
        stored = self._decision("request", request)
        if stored is not None and stored[1].request != request:
            raise Damaged(f"decision {stored[1].number}")
        return None if stored is None else stored[1]

    def _decision(self, column: str, value: int | str) -> tuple[SessionRows, Decision] | None:
        """A decision with its session. Raises Damaged."""
        row = self._first(f"SELECT number, session FROM decisions WHERE {column} = ?", (value,))
        if row is None:
            return None
        session = self.session(row[1])
        decision = None if session is None else session.decision(row[0])
        if session is None or decision is None:
            raise Damaged(f"decision {row[0]}")
        return session, decision

    def latest(self, number: int) -> tuple[list[tuple[Decision, str, int]], list[int]]:
        """The last decisions, the latest first, and the numbers of those among them that can't be read.

        With each decision come the person's name and the number of its events. Raises Damaged.
        """
        latest = self._read(
            "SELECT decisions.number, decisions.session, people.number, name, people.digest FROM decisions "
            "LEFT JOIN sessions ON sessions.number = decisions.session "
            "LEFT JOIN people ON people.number = person "
            "ORDER BY decisions.number DESC LIMIT ?",
            (number,),
        )
        rows, unreadable = list[tuple[Decision, str, int]](), list[int]()
        sessions: dict[int, SessionRows | None] = {}
        for at, within, person, name, wanted in latest:
            if within not in sessions:
                with contextlib.suppress(Damaged):
                    sessions[within] = self.session(within)
            session = sessions.setdefault(within, None)
            decision = None if session is None else session.decision(at)
            if (
                session is None
                or decision is None
                or session.session.person != person
                or not is_person(person, name, wanted)
            ):
                unreadable.append(at)
                continue
            rows.append((decision, name, sum(event.decision == at for event in session.events)))
        return rows, unreadable

    def event(self, id: str) -> Event | None:
        """The event with this id. Raises Damaged."""
        row = self._first("SELECT number, session FROM events WHERE id = ?", (id,))
        if row is None:
            return None
        session = self.session(row[1])
        events = () if session is None else session.events
        event = next((event for event in events if (event.number, event.id) == (row[0], id)), None)
        if event is None:
            raise Damaged(f"event {row[0]}")
        return event

    def policies(self) -> list[ServedPolicy]:
        """All policies that decided. Raises Damaged."""
        return [
            decoded(ServedPolicy, row) for (row,) in self._read("SELECT row FROM policies ORDER BY number")
        ]

    def releases(self) -> list[Release]:
        """All rows of releases, ascending. Raises Damaged."""
        return self._whole(Release, "releases", "release")

    def stock(self) -> Stock:
        """The items of a team's own place; empty on other platforms. Raises Damaged."""
        try:
            return Stock().after(self._whole(ItemChange, "items", "item change"))
        except IndexError as error:  # a withdrawal of a row that never came
            raise Damaged("an item change is missing") from error

    def item_changes(self, numbers: Sequence[int]) -> list[ItemChange]:
        """Those of the changes of items that have these numbers, ascending. Raises Damaged."""
        some = "number IN (SELECT value FROM json_each(?))"
        rows = self._read(f"SELECT row FROM items WHERE {some} ORDER BY number", (json.dumps(numbers),))
        return [decoded(ItemChange, row) for (row,) in rows]

    def _whole(self, kind: type[W], table: str, noun: str) -> list[W]:
        """All rows of a table, ascending. Raises Damaged for one without its digest."""
        rows = self._with_digests(kind, table)
        for row, is_whole in rows:
            if not is_whole:
                raise Damaged(f"{noun} {row.number} is changed")
        return [row for row, _ in rows]

    def _with_digests(self, kind: type[W], table: str) -> list[tuple[W, bool]]:
        """The rows of a table, each with whether it has its digest. Raises Damaged."""
        if not self._read("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)):
            return []  # of a record of an earlier version, which another process may not write
        rows = self._read(f"SELECT number, row, digest FROM {table} ORDER BY number")
        found = [(number, decoded(kind, row), digest(row) == wanted) for number, row, wanted in rows]
        return [(row, is_whole and row.number == number) for number, row, is_whole in found]

    def people(self) -> list[Person]:
        """All people. Raises Damaged."""
        rows = self._read("SELECT number, name, digest FROM people ORDER BY number")
        for number, name, wanted in rows:
            if not is_person(number, name, wanted):
                raise Damaged(f"person {number}")
        return [Person(number, name) for number, name, _ in rows]

    def name_of(self, person: int) -> str:
        """The name of the person with this number. Raises Damaged."""
        row = self._first("SELECT name, digest FROM people WHERE number = ?", (person,))
        if row is None or not is_person(person, *row):
            raise Damaged(f"person {person}")
        return str(row[0])

    def sessions(self, above: int = 0, below: int = (1 << 63) - 1, most: int = -1) -> list[int]:
        """The numbers of the sessions between these, of all by default; ascending. Raises Damaged.

        ``most``: only the first ones, so many; -1: all.
        """
        query = "SELECT number FROM sessions WHERE number > ? AND number < ? ORDER BY number LIMIT ?"
        return [number for (number,) in self._read(query, (above, below, most))]

    def latest_sessions(self, below: int, most: int, person: int | None = None) -> list[int]:
        """The last sessions with lower numbers, of all people or of one; ascending. Raises Damaged."""
        of_person = "" if person is None else "person = :person AND"
        query = (
            f"SELECT number FROM sessions WHERE {of_person} number < :below ORDER BY number DESC LIMIT :most"
        )
        rows = self._read(query, {"person": person, "below": below, "most": most})
        return [number for (number,) in reversed(rows)]

    def whole_sessions(self, numbers: Sequence[int]) -> dict[int, SessionRows]:
        """These sessions by number, without those that are erased or damaged. Raises Damaged."""
        given, some = (json.dumps(numbers),), "IN (SELECT value FROM json_each(?))"
        lists = defaultdict[int, list[bytes]](list), defaultdict[int, list[bytes]](list)
        stored = self._read(f"SELECT number, row, tally, digest FROM sessions WHERE number {some}", given)
        for table, rows_of in zip(("decisions", "events"), lists, strict=True):
            query = f"SELECT session, row FROM {table} WHERE session {some} ORDER BY number"
            for session, row in self._read(query, given):
                rows_of[session].append(row)
        found = {}
        for number, row, tally, wanted in stored:
            with contextlib.suppress(Damaged):
                rows = [each[number] for each in lists]
                found[number] = whole_session(number, (row, tally, wanted), *rows)
        return found

    def ended_in(self, since: int, until: int) -> list[tuple[int, int]]:
        """The sessions whose last decision or event has a number in (since, until], by that number.

        Each with that number: (session, number), ascending by the number. Only the rows with such numbers are
        read, and whether their sessions have later ones. Raises Damaged.
        """
        return [
            (session, last)
            for session, last in self._read(
                "SELECT session, max(number) AS last FROM ("
                "SELECT session, number FROM decisions WHERE number > :since AND number <= :until UNION ALL "
                "SELECT session, number FROM events WHERE number > :since AND number <= :until) AS rows "
                "GROUP BY session "
                "HAVING NOT EXISTS (SELECT 1 FROM decisions AS later "
                "WHERE later.session = rows.session AND later.number > :until) "
                "AND NOT EXISTS (SELECT 1 FROM events AS later "
                "WHERE later.session = rows.session AND later.number > :until) ORDER BY last",
                {"since": since, "until": until},
            )
        ]

    def latest_row(self) -> tuple[int, float]:
        """The highest number of a decision or an event, and its time by the server; zeros without any.

        Raises Damaged.
        """
        decisions = self._read("SELECT row FROM decisions ORDER BY number DESC LIMIT 1")
        events = self._read("SELECT row FROM events ORDER BY number DESC LIMIT 1")
        rows = [(row.number, row.time) for row in (decoded(Decision, row) for (row,) in decisions)]
        rows += [(row.number, row.received) for row in (decoded(Event, row) for (row,) in events)]
        return max(rows, default=(0, 0.0))

    def integrity(self) -> str:
        """The result of SQLite's own check of the file: "ok", or its first complaint."""
        try:
            return str(self._db.execute("PRAGMA integrity_check(1)").fetchone()[0])
        except (sqlite3.DatabaseError, ValueError) as error:
            return error_text(error)

    def changed_rows(self) -> Iterator[str]:
        """Each row that differs from its searched columns, and each changed person or policy.

        Raises Damaged.
        """
        for number, name, wanted in self._read("SELECT number, name, digest FROM people"):
            if not is_person(number, name, wanted):
                yield f"person {number} is changed"
        for number, row, wanted in self._read("SELECT number, row, digest FROM policies"):
            if digest(encoded(decoded(ServedPolicy, row))) != wanted:
                yield f"policy {number} is changed"
        for release, is_whole in self._with_digests(Release, "releases"):
            if not is_whole:
                yield f"release {release.number} is changed"
        for change, is_whole in self._with_digests(ItemChange, "items"):
            if not is_whole:
                yield f"item change {change.number} is changed"
        for number, person, row in self._read("SELECT number, person, row FROM sessions"):
            session = decoded(Session, row)
            if (session.number, session.person) != (number, person):
                yield f"session {number} is changed"
        for number, within, request, row in self._read("SELECT * FROM decisions"):
            decision = decoded(Decision, row)
            if (decision.number, decision.session, decision.request or None) != (number, within, request):
                yield f"decision {number} is changed"
        for number, id, within, row in self._read("SELECT * FROM events"):
            event = decoded(Event, row)
            if (event.number, event.id, event.session) != (number, id, within):
                yield f"event {number} is changed"
