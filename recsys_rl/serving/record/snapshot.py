"""A record as it is at one moment, read beside the server that writes it; `recsys-rl log backup` copies it.

The connection can't write, takes no lock, and has one read transaction from its begin to its end: SQLite's
log (WAL) keeps the pages of that moment until then, while the server writes on.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from recsys_rl.checkpoint.sealed import sync
from recsys_rl.errors import UserError, error_text, one_line
from recsys_rl.serving.record.facts import CHAMPION
from recsys_rl.serving.record.record_schema import Damaged
from recsys_rl.serving.record.store_reader import StoreReader, format_of
from recsys_rl.utils.locks import parts_of


class Snapshot(StoreReader):
    """The record, opened to be read."""

    def __init__(self, path: Path) -> None:
        """Open the record at ``path``. Raises UserError."""
        name = one_line(path)
        if not path.is_file():
            raise UserError(f"{name} is not a file: give the record of recsys-rl serve --db.")
        try:
            # Manual: the module must not end the transaction. The file may have any characters in its name.
            db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
        except sqlite3.Error as error:
            raise self._unreadable(name, error) from error
        super().__init__(db, name)
        try:
            db.execute("BEGIN")
            if not format_of(db, name):  # the first query: the moment that is read
                raise UserError(f"{name} holds no record: give the file of recsys-rl serve --db.")
        except (sqlite3.Error, ValueError) as error:  # ValueError: text that is not UTF-8
            self.close()
            raise self._unreadable(name, error) from error
        except BaseException:
            self.close()
            raise

    def copy_to(self, path: Path) -> Copied:
        """Write this moment to a new file, and read every row there. Raises Damaged, sqlite3.Error."""
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            self._db.backup(db)
            db.execute("PRAGMA journal_mode = DELETE")  # all in one file; a server makes it a WAL again
            return _checked(StoreReader(db, self.name))

    @staticmethod
    def _unreadable(name: str, error: Exception) -> UserError:
        return UserError(
            f"{name} can't be read as the record ({error_text(error)}): give a file of recsys-rl serve, in a "
            "folder where this user may write, as SQLite keeps its -shm file there."
        )


def champion_in(path: Path) -> str:
    """The SHA-256 of the version that served last; "" without a record of it. Nothing is written."""
    try:
        with contextlib.closing(Snapshot(path)) as record:
            return str(record.facts.get(CHAMPION, ""))
    except UserError:  # opening it to write raises the error with its reason
        return ""


@dataclass(frozen=True)
class Copied:
    """The number of rows in a backup."""

    sessions: int
    decisions: int


def backup(db: Path, out: Path) -> Copied:
    """Copy the record ``db`` to the new file ``out``, and check the copy. Raises UserError.

    The copy gets its name once it is on the disk and every row in it was found whole.
    """
    if os.path.lexists(out):
        raise UserError(
            f"--out {one_line(out)} is already there, and no backup replaces a file: name another."
        )
    with contextlib.closing(Snapshot(db)) as source:
        try:
            with parts_of(out) as folder:  # deleted at the end, or by the next process if this one is killed
                copied = source.copy_to(folder / "copy")
                sync(folder / "copy")
                os.link(folder / "copy", out)  # unlike a renaming it replaces no file that was made meanwhile
                sync(out.parent)
        except Damaged as damage:
            raise UserError(
                f"{one_line(db)} is damaged ({damage}), and is not copied: see recsys-rl log check, and go "
                "on from an earlier backup."
            ) from damage
        except (OSError, sqlite3.Error) as error:
            raise UserError(
                f"{one_line(out)} can't be written ({error_text(error)}): make room there, or choose another "
                "place."
            ) from error
    return copied


def _checked(copy: StoreReader) -> Copied:
    """The number of rows in the copy, if each is whole. Raises Damaged, UserError."""
    integrity = copy.integrity()
    if integrity != "ok":
        raise Damaged(integrity)
    _ = copy.facts
    for complaint in copy.changed_rows():
        raise Damaged(complaint)
    sessions = decisions = 0
    for number in copy.sessions():
        rows = copy.session(number)
        sessions += rows is not None
        decisions += 0 if rows is None else len(rows.decisions)
    return Copied(sessions, decisions)
