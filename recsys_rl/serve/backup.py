"""`recsys-rl log backup`: a copy of a record as it is at one moment, beside the server that writes it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from recsys_rl.checkpoint.sealed import sync
from recsys_rl.errors import UserError, error_text, one_line
from recsys_rl.serve.record_schema import Damaged
from recsys_rl.serve.snapshot import Snapshot
from recsys_rl.serve.store_reader import StoreReader


@dataclass(frozen=True)
class Copied:
    """What a backup holds."""

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
    source = Snapshot(db)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    beside = [partial.with_name(partial.name + end) for end in ("", "-wal", "-shm", "-journal")]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        copied = _copy(source, partial, one_line(db))
        sync(partial)
        os.link(partial, out)  # unlike a renaming it replaces no file that was made meanwhile
        sync(out.parent)
    except (OSError, sqlite3.Error) as error:
        raise UserError(
            f"{one_line(out)} can't be written ({error_text(error)}): make room there, or choose another "
            "place."
        ) from error
    finally:
        source.close()
        for file in beside:
            with contextlib.suppress(OSError):
                file.unlink()
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
    """What the copy holds, if every row in it is whole. Raises Damaged."""
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
