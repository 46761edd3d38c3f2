"""The record in one SQLite file (WAL), with one connection of one process.

A session counts its rows and sums their digests in the same transaction: a row that is lost, changed or
doubled shows when the session is read.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recsys_rl.checkpoint.sealed import sync
from recsys_rl.errors import UserError, error_text, one_line
from recsys_rl.serve.rows import BITS, Decision, Event, Person, Row, Served, Session, Whole, digest, packed
from recsys_rl.serve.sqlite_file import locked, prepared
from recsys_rl.serve.sqlite_rows import INSERT, UNREADABLE, columns_of, decoded, is_person
from recsys_rl.serve.store import Damaged, Full, Lost
from recsys_rl.settings.fields import shown

HIGHEST = "highest"
"""The fact that keeps the highest number that may have been given, also to rows that are erased or lost."""
RESERVED = 10_000
"""Numbers that are reserved at once: a start after a power cut gives none of those again."""


class SQLite:
    """``Store`` in a file."""

    def __init__(self, path: Path, facts: Mapping[str, Any] | None = None) -> None:
        """Open the record at ``path``.

        ``facts``: what all rows depend on, as JSON primitives: a new file takes them, and those
        of an old one must be equal. None: the file must exist. Raises UserError.
        """
        self.path, name = path, one_line(path)
        if facts is None and not path.is_file():
            raise UserError(f"{name} is not a file: give the record of recsys-rl serve --db.")
        self._lock = locked(path)
        self._reserved = 0  # no higher number is given without being reserved
        try:
            if facts is not None:
                # A process that was killed may have left events that it did not sync. From now on they are
                # known, and are acknowledged as duplicates.
                for part in (path, path.with_name(f"{path.name}-wal")):
                    if part.exists():
                        sync(part)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self.facts = prepared(self._db, name, facts)
            self._file = _identity(path)
            self.last = self._highest()
            # The next transaction rewrites it for feedback; decisions outlive the process without it.
            self._synchronous = ""
        except (sqlite3.Error, OSError, ValueError) as error:  # ValueError: text that is not UTF-8
            self.close()
            raise UserError(
                f"{name} can't be used as the record ({error_text(error)}): give a file of recsys-rl serve, "
                "or a new name."
            ) from error
        except BaseException:
            self.close()
            raise

    def _highest(self) -> int:
        """The highest number that a row has, or had before it was erased; 0 for none."""
        tables = ("people", "policies", "sessions", "decisions", "events")
        found = [self._db.execute(f"SELECT max(number) FROM {x}").fetchone()[0] for x in tables]
        return max(int(x or 0) for x in (*found, self.facts.get(HIGHEST)))

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query. Raises Damaged where SQLite can't read the file."""
        try:
            return self._db.execute(query, values).fetchall()
        except (sqlite3.DatabaseError, ValueError) as error:
            raise Damaged(error_text(error)) from error

    def _first(self, query: str, values: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
        rows = self._read(query, values)
        return rows[0] if rows else None

    def person(self, name: str) -> tuple[Person, Whole | None] | None:
        """A person with the latest session, or None. Raises Damaged."""
        found = self._first("SELECT number FROM people WHERE name = ?", (name,))
        if found is None:
            return None
        latest = self._read("SELECT max(number) FROM sessions WHERE person = ?", found)[0][0]
        return Person(found[0], name), None if latest is None else self.session(latest)

    def session(self, number: int) -> Whole | None:
        """Raises Damaged."""
        found = self._first("SELECT row, tally, digest FROM sessions WHERE number = ?", (number,))
        if found is None:
            return None
        rows, tally, wanted = found
        parts = [
            [x[0] for x in self._read(query, (number,))]
            for query in (
                "SELECT row FROM decisions WHERE session = ? ORDER BY number",
                "SELECT row FROM events WHERE session = ? ORDER BY number",
            )
        ]
        every = [rows, *parts[0], *parts[1]]
        try:
            if len(every) != tally or sum(map(digest, every)) & BITS != wanted:
                raise Damaged(f"session {number}")
            decisions = [decoded(Decision, x) for x in parts[0]]
            return decoded(Session, rows), decisions, [decoded(Event, x) for x in parts[1]]
        except (Damaged, *UNREADABLE) as error:
            raise Damaged(f"session {number}") from error

    def decision(self, number: int) -> tuple[Whole, Decision] | None:
        return self._decision("number", number)

    def answered(self, request: str) -> Decision | None:
        """The decision of the caller's request id. Raises Damaged."""
        found = self._decision("request", request)
        if found is not None and found[1].request != request:
            raise Damaged(f"decision {found[1].number}")
        return None if found is None else found[1]

    def _decision(self, column: str, value: int | str) -> tuple[Whole, Decision] | None:
        """A decision with its session, as the digest of the session covers it. Raises Damaged."""
        found = self._first(f"SELECT number, session FROM decisions WHERE {column} = ?", (value,))
        if found is None:
            return None
        whole = self.session(found[1])
        decision = None if whole is None else _within(whole, found[0])
        if whole is None or decision is None:
            raise Damaged(f"decision {found[0]}")
        return whole, decision

    def latest(self, number: int) -> tuple[list[tuple[Decision, str, int]], list[int]]:
        """The last decisions that can be read, and the numbers of those that can't. Raises Damaged."""
        found = self._read(
            "SELECT decisions.number, decisions.session, people.number, name, people.digest FROM decisions "
            "LEFT JOIN sessions ON sessions.number = decisions.session "
            "LEFT JOIN people ON people.number = person "
            "ORDER BY decisions.number DESC LIMIT ?",
            (number,),
        )
        rows, unreadable = list[tuple[Decision, str, int]](), list[int]()
        wholes: dict[int, Whole | None] = {}
        for at, session, person, name, wanted in found:
            if session not in wholes:
                with contextlib.suppress(Damaged):
                    wholes[session] = self.session(session)
            whole = wholes.setdefault(session, None)
            decision = None if whole is None else _within(whole, at)
            if (
                whole is None
                or decision is None
                or whole[0].person != person
                or not is_person(person, name, wanted)
            ):
                unreadable.append(at)
                continue
            rows.append((decision, name, sum(x.decision == at for x in whole[2])))
        return rows, unreadable

    def event(self, id: str) -> Event | None:
        """The event with this id, as the digest of its session covers it. Raises Damaged."""
        found = self._first("SELECT number, session FROM events WHERE id = ?", (id,))
        if found is None:
            return None
        whole = self.session(found[1])
        event = next((x for x in whole[2] if (x.number, x.id) == (found[0], id)), None) if whole else None
        if event is None:
            raise Damaged(f"event {found[0]}")
        return event

    def write(self, rows: Sequence[Row], durable: bool) -> None:
        """One transaction; ``durable``: it is on the disk when the call returns. Raises Full, Lost."""
        columns, sums = columns_of(rows)
        last = max(row.number for row in rows)
        reserved = self._reserved if last <= self._reserved else last + RESERVED
        durable |= reserved > self._reserved
        with self._transaction("FULL" if durable else "NORMAL") as db:
            if reserved > self._reserved:
                self._set(HIGHEST, reserved)
            for kind, values in columns.items():
                db.executemany(INSERT[kind], values)
            db.executemany(
                f"UPDATE sessions SET tally = tally + ?, digest = (digest + ?) & {BITS} WHERE number = ?",
                [(tally, total & BITS, session) for session, (tally, total) in sums.items()],
            )
        self.last, self._reserved = max(self.last, last), reserved

    @contextlib.contextmanager
    def _transaction(self, synchronous: str) -> Iterator[sqlite3.Connection]:
        """All that the block writes, or nothing. Raises Full, Lost."""
        db = self._db
        try:
            if synchronous != self._synchronous:
                db.execute(f"PRAGMA synchronous = {synchronous}")
                self._synchronous = synchronous
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
            self._check_file()
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)  # None: an error of Python's module
            if code not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY):
                raise Lost(error_text(error)) from error
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise Full(error_text(error)) from error

    def _check_file(self) -> None:
        """Raise Lost if the path names another file than the one that is written, or none.

        What is written goes to the file under its new name, or to one that nobody can open any more.
        """
        if _identity(self.path) != self._file:
            with contextlib.suppress(sqlite3.Error):  # the rows so far must not stay in a log of the old name
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            raise Lost(f"{one_line(self.path)} was renamed or replaced")

    def policies(self) -> list[Served]:
        """Raises Damaged."""
        return [decoded(Served, row) for (row,) in self._read("SELECT row FROM policies ORDER BY number")]

    def people(self) -> list[Person]:
        """Raises Damaged."""
        rows = self._read("SELECT number, name, digest FROM people ORDER BY number")
        for number, name, wanted in rows:
            if not is_person(number, name, wanted):
                raise Damaged(f"person {number}")
        return [Person(number, name) for number, name, _ in rows]

    def sessions(self) -> list[int]:
        """The numbers of all sessions, ascending. Raises Damaged."""
        return [number for (number,) in self._read("SELECT number FROM sessions ORDER BY number")]

    def wrong(self) -> Iterator[str]:
        """What is wrong beside the rows of sessions: columns that are searched, people, policies."""
        for number, name, wanted in self._read("SELECT number, name, digest FROM people"):
            if not is_person(number, name, wanted):
                yield f"person {number} is changed"
        for number, row, wanted in self._read("SELECT number, row, digest FROM policies"):
            if digest(packed(decoded(Served, row))) != wanted:
                yield f"policy {number} is changed"
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

    def fact(self, name: str, value: Any) -> None:
        """Keep a fact that may change, such as the champion, on the disk. Raises Full, Lost."""
        with self._transaction("FULL"):
            self._set(name, value)
        self.facts[name] = value

    def _set(self, name: str, value: Any) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    def erase(self, name: str) -> int:
        """Delete a person with all rows. Returns the number of decisions.

        Raises UserError if unknown, or if the old rows may still be in SQLite's log; Damaged, Full, Lost.
        """
        db = self._db
        found = self._first("SELECT number FROM people WHERE name = ?", (name,))
        if found is None:
            raise UserError(f"The record {one_line(self.path)} has no user {shown(name)}: give another id.")
        # A number is given once: an event of an erased decision must not find another one.
        highest = max(self._highest(), self._reserved)
        of = "WHERE session IN (SELECT number FROM sessions WHERE person = ?)"
        with self._transaction("FULL"):
            self._set(HIGHEST, highest)
            number = db.execute(f"DELETE FROM decisions {of}", found).rowcount
            db.execute(f"DELETE FROM events {of}", found)
            db.execute("DELETE FROM sessions WHERE person = ?", found)
            db.execute("DELETE FROM people WHERE number = ?", found)
        self.facts[HIGHEST] = highest
        try:
            busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]  # the log holds the old pages
        except sqlite3.Error as error:
            raise self._remains(error_text(error)) from error
        if busy:
            raise self._remains("another program reads the file")
        return number

    def _remains(self, why: str) -> UserError:
        return UserError(
            f"The user is deleted from {one_line(self.path)}, but the old rows may still be in its -wal file "
            f"({why}): mend this, and run recsys-rl log check, which empties that file."
        )

    def whole(self) -> str:
        """What SQLite itself says of the file: "ok", or its first complaint."""
        try:
            return str(self._db.execute("PRAGMA integrity_check(1)").fetchone()[0])
        except (sqlite3.DatabaseError, ValueError) as error:
            return error_text(error)

    def close(self) -> None:
        if self._reserved:  # after a clean end the numbers go on without a gap
            with contextlib.suppress(Full, Lost), self._transaction("FULL"):
                self._set(HIGHEST, self.last)
            self._reserved = 0
        with contextlib.suppress(AttributeError, sqlite3.Error):
            self._db.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _identity(path: Path) -> tuple[int, int] | None:
    """The device and the number of the file there; None without one."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _within(whole: Whole, number: int) -> Decision | None:
    """The decision of this number in its session; None if the session has no such one."""
    return next((x for x in whole[1] if x.number == number), None)
