"""The record's database: one SQLite file (WAL), written by one connection of one process.

It is locked, made and opened here, and every transaction is written here.
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
from recsys_rl.serving.record.facts import CHAMPION, HIGHEST, check_facts
from recsys_rl.serving.record.record_schema import (
    APPLICATION,
    DIGEST_BITS,
    FORMAT,
    INSERT,
    ITEMS,
    TABLES,
    Release,
    Row,
    columns_of,
)
from recsys_rl.serving.record.store_reader import StoreReader, format_of
from recsys_rl.settings.fields import shown
from recsys_rl.utils.locks import Busy, take

RESERVED = 10_000
"""Numbers that are reserved at once: a start after a power cut gives none of those again."""


class Full(Exception):
    """The disk has no room. Nothing of the transaction was written."""


class Lost(Exception):
    """A write failed in another way. What is on the disk is unknown: another process must read it again."""


class Store(StoreReader):
    """The record, opened to be written."""

    def __init__(self, path: Path, facts: Mapping[str, Any] | None = None) -> None:
        """Open the record at ``path``.

        ``facts``: those of the checkpoint (``facts_of``): a new file takes them, and those of an old one must
        be equal. None: the file must exist. Raises UserError.
        """
        self.path, name = path, one_line(path)
        if facts is None and not path.is_file():
            raise UserError(f"{name} is not a file: give the record of recsys-rl serve --db.")
        self._lock: int | None = _lock(path)
        self._reserved = 0  # no higher number is given without being reserved
        try:
            if facts is not None:
                # A process that was killed may have left events that it did not sync. From now on they are
                # known, and are acknowledged as duplicates.
                for file in (path, path.with_name(f"{path.name}-wal")):
                    if file.exists():
                        sync(file)
            super().__init__(sqlite3.connect(path, isolation_level=None, check_same_thread=False), name)
            _prepare(self._db, name, facts)
            check_facts(name, self.facts, facts or {})
            self._file = _identity(path)
            self.last = self._highest()
            """The highest number of any row."""
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
        tables = "people", "policies", "sessions", "decisions", "events", "releases", "items"
        numbers = [self._db.execute(f"SELECT max(number) FROM {table}").fetchone()[0] for table in tables]
        return max(int(number or 0) for number in (*numbers, self.facts.get(HIGHEST)))

    def write(self, rows: Sequence[Row], durable: bool) -> None:
        """One transaction; ``durable``: it is on the disk when the call returns. Raises Full, Lost."""
        columns, sums = columns_of(rows)
        releases = [row for row in rows if isinstance(row, Release)]
        last = max(row.number for row in rows)
        reserved = self._reserved if last <= self._reserved else last + RESERVED
        durable |= reserved > self._reserved
        with self._transaction("FULL" if durable else "NORMAL") as db:
            if reserved > self._reserved:
                _write_fact(db, HIGHEST, reserved)
            for kind, values in columns.items():
                db.executemany(INSERT[kind], values)
            for row in releases:  # together: after a crash the version that serves is that of the last row
                _write_fact(db, CHAMPION, row.champion)
            db.executemany(
                f"UPDATE sessions SET tally = tally + ?, digest = (digest + ?) & {DIGEST_BITS} "
                "WHERE number = ?",
                [(tally, total & DIGEST_BITS, session) for session, (tally, total) in sums.items()],
            )
        self.last, self._reserved = max(self.last, last), reserved
        for row in releases:
            self.facts[CHAMPION] = row.champion

    @contextlib.contextmanager
    def _transaction(self, synchronous: str) -> Iterator[sqlite3.Connection]:
        """A transaction: the record gets all that the block writes, or nothing. Raises Full, Lost."""
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

    def set_fact(self, name: str, value: Any) -> None:
        """Keep a fact that may change, such as the champion, on the disk. Raises Full, Lost."""
        with self._transaction("FULL") as db:
            _write_fact(db, name, value)
        self.facts[name] = value

    def erase(self, name: str) -> int:
        """Delete a person with all rows. Returns the number of decisions.

        Raises UserError if unknown, or if the old rows may still be in SQLite's log; Damaged, Full, Lost.
        """
        db = self._db
        person = self._first("SELECT number FROM people WHERE name = ?", (name,))
        if person is None:
            raise UserError(f"The record {one_line(self.path)} has no user {shown(name)}: give another id.")
        # A number is given once: an event of an erased decision must not find another one.
        highest = max(self._highest(), self._reserved)
        of_person = "WHERE session IN (SELECT number FROM sessions WHERE person = ?)"
        with self._transaction("FULL"):
            _write_fact(db, HIGHEST, highest)
            number = db.execute(f"DELETE FROM decisions {of_person}", person).rowcount
            db.execute(f"DELETE FROM events {of_person}", person)
            db.execute("DELETE FROM sessions WHERE person = ?", person)
            db.execute("DELETE FROM people WHERE number = ?", person)
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

    def close(self) -> None:
        """Close the file, and let other processes open it."""
        if self._reserved:  # after a clean end the numbers go on without a gap
            with contextlib.suppress(Full, Lost), self._transaction("FULL") as db:
                _write_fact(db, HIGHEST, self.last)
            self._reserved = 0
        with contextlib.suppress(AttributeError, sqlite3.Error):
            self._db.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _write_fact(db: sqlite3.Connection, name: str, value: Any) -> None:
    """Write one fact within the transaction under way."""
    db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))


def _lock(path: Path) -> int:
    """Keep other processes away from the record, until the descriptor is closed.

    Raises UserError with the owner's process id.
    """
    name = one_line(path)
    try:
        new = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in new:  # a power cut must not lose the name of the record's folder
            sync(folder.parent)
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UserError(f"{name} can't be opened ({error_text(error)}): choose another place.") from error
    try:
        take(descriptor)
    except (Busy, OSError):
        owner = os.read(descriptor, 20).decode(errors="replace").strip()
        os.close(descriptor)
        raise UserError(
            f"The record {name} is in use by process {owner or '(unknown)'}: stop it first, or give another "
            "file."
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def _prepare(db: sqlite3.Connection, name: str, facts: Mapping[str, Any] | None) -> None:
    """Check that the file is a record that this version reads; an empty one gets the tables and ``facts``.

    Raises UserError if it is none.
    """
    known = format_of(db, name)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA secure_delete = ON")  # erased people leave no bytes in free pages
    if not known and facts is None:
        raise UserError(f"{name} holds no record: give the file of recsys-rl serve --db.")
    if known == FORMAT:
        return
    db.execute("PRAGMA synchronous = FULL")
    db.execute("BEGIN IMMEDIATE")
    if not known:
        for statement in filter(str.strip, TABLES.split(";")):
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        for fact, value in (facts or {}).items():
            _write_fact(db, fact, value)
    db.execute(ITEMS)
    db.execute(f"PRAGMA user_version = {FORMAT}")  # earlier versions don't know all rows that will come
    db.execute("COMMIT")


def _identity(path: Path) -> tuple[int, int] | None:
    """The device and the number of the file there; None without one."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
