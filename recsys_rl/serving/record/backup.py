"""`recsys-rl log backup`: a copy of a record as it is at one moment, beside the server that writes it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from recsys_rl.checkpoint.sealed import sync
from recsys_rl.errors import UserError, error_text, one_line
from recsys_rl.serving.record.record_schema import Damaged
from recsys_rl.serving.record.snapshot import Snapshot
from recsys_rl.serving.record.store_reader import StoreReader
from recsys_rl.utils.locks import parts_of


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
                copied = _copy(source, folder / "copy", one_line(db))
                sync(folder / "copy")
                os.link(folder / "copy", out)  # unlike a renaming it replaces no file that was made meanwhile
                sync(out.parent)
        except (OSError, sqlite3.Error) as error:
            raise UserError(
                f"{one_line(out)} can't be written ({error_text(error)}): make room there, or choose another "
                "place."
            ) from error
    return copied


def _copy(source: Snapshot, path: Path, name: str) -> Copied:
    """Write the pages of the snapshot to ``path`` and read the copy. Raises UserError, sqlite3.Error."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        source.copy_to(db)
        db.execute("PRAGMA journal_mode = DELETE")  # all is in the one file; a server makes it a WAL again
        try:
            return _checked(StoreReader(db))
        except Damaged as damage:
            raise UserError(
                f"{name} is damaged ({damage}), and is not copied: see recsys-rl log check, and go on from "
                "an earlier backup."
            ) from damage


def _checked(copy: StoreReader) -> Copied:
    """The number of rows in the copy, if each is whole. Raises Damaged."""
    integrity = copy.integrity()
    if integrity != "ok":
        raise Damaged(integrity)
    for complaint in copy.changed_rows():
        raise Damaged(complaint)
    sessions = decisions = 0
    for number in copy.sessions():
        rows = copy.session(number)
        sessions += rows is not None
        decisions += 0 if rows is None else len(rows.decisions)
    return Copied(sessions, decisions)
