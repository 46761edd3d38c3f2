"""A record as it is at one moment, read beside the server that writes it.

The connection can't write, takes no lock, and has one read transaction from its begin to its end: SQLite's
log (WAL) keeps the pages of that moment until then, while the server writes on.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from recsys_rl.errors import UserError, error_text, one_line
from recsys_rl.serving.facts import read_facts
from recsys_rl.serving.record.record_at_rest import Record
from recsys_rl.serving.record.store import format_of
from recsys_rl.serving.record.store_reader import StoreReader


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
        super().__init__(db)
        try:
            db.execute("BEGIN")
            format_ = format_of(db, name)  # the first query: the moment that is read
            if format_ is None:
                raise UserError(f"{name} holds no record: give the file of recsys-rl serve --db.")
            self.facts = read_facts(db, name)
        except (sqlite3.Error, ValueError) as error:  # ValueError: text that is not UTF-8
            self.close()
            raise self._unreadable(name, error) from error
        except BaseException:
            self.close()
            raise

    def copy_to(self, db: sqlite3.Connection) -> None:
        """Copy all pages of this moment to an empty database. Raises sqlite3.Error."""
        self._db.backup(db)

    @staticmethod
    def _unreadable(name: str, error: Exception) -> UserError:
        return UserError(
            f"{name} can't be read as the record ({error_text(error)}): give a file of recsys-rl serve, in a "
            "folder where this user may write, as SQLite keeps its -shm file there."
        )


def open_snapshot(db: Path, checkpoint: Path | None = None, env: str | None = None) -> Record:
    """The record at this moment, with the versions that it names. Close its ``store``. Raises UserError.

    ``checkpoint``: a file or a folder with policies that have moved.
    """
    return Record(db, checkpoint, env, Snapshot(db))
