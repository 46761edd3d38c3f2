"""The file of the record: its tables, its lock, and whether it is one of ours."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys_rl.checkpoint.sealed import sync
from recsys_rl.errors import UserError, error_text, one_line

try:
    import fcntl
except ImportError:  # Windows: SQLite's own locks remain
    fcntl = None  # type: ignore[assignment]

APPLICATION = 0x5253524C  # "RSRL", in the header of the file
VERSION = 1
CHAMPION = "champion"
"""The fact that keeps the SHA-256 of the version that serves."""
SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE people (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, digest INTEGER NOT NULL);
CREATE TABLE policies (number INTEGER PRIMARY KEY, row BLOB NOT NULL, digest INTEGER NOT NULL);
CREATE TABLE sessions (number INTEGER PRIMARY KEY, person INTEGER NOT NULL, row BLOB NOT NULL,
                       tally INTEGER NOT NULL DEFAULT 0, digest INTEGER NOT NULL DEFAULT 0);
CREATE INDEX sessions_of ON sessions (person);
CREATE TABLE decisions (number INTEGER PRIMARY KEY, session INTEGER NOT NULL, request TEXT UNIQUE,
                        row BLOB NOT NULL);
CREATE INDEX decisions_of ON decisions (session);
CREATE TABLE events (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, session INTEGER NOT NULL,
                     row BLOB NOT NULL);
CREATE INDEX events_of ON events (session);
"""


def prepared(db: sqlite3.Connection, name: str, facts: Mapping[str, Any] | None) -> dict[str, Any]:
    """The facts of a database; an empty one gets the tables and ``facts``.

    Raises UserError if it is none of ours, of a newer version, damaged, or of other facts.
    """
    application, version = (
        db.execute(f"PRAGMA {x}").fetchone()[0] for x in ("application_id", "user_version")
    )
    empty = not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not empty and application != APPLICATION:
        raise UserError(f"{name} is a database of another program: give another name with --db.")
    if version > VERSION:
        raise UserError(
            f"{name} has the format {version}, and this version reads up to {VERSION}: use the version "
            "that wrote it."
        )
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA secure_delete = ON")  # erased people leave no bytes in free pages
    if empty:
        if facts is None:
            raise UserError(f"{name} holds no record: give the file of recsys-rl serve --db.")
        values = [(key, json.dumps(value)) for key, value in facts.items()]
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")
        for statement in filter(str.strip, SCHEMA.split(";")):
            db.execute(statement)
        db.executemany("INSERT INTO facts VALUES (?, ?)", values)
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    try:
        known = {key: json.loads(x) for key, x in db.execute("SELECT name, value FROM facts")}
    except ValueError:
        raise UserError(f"{name} is damaged: copy it from a backup.") from None
    for key, value in (facts or {}).items():
        if known.get(key) != value:
            raise UserError(
                f"{name} is the record of another {key} than the checkpoint's: give the checkpoint of "
                "the same data and settings, or a new file with --db."
            )
    return known


def champion_in(path: Path) -> str:
    """The SHA-256 of the version that served last; "" where no record says so. Nothing is written."""
    if not path.is_file():
        return ""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            found = db.execute("SELECT value FROM facts WHERE name = ?", (CHAMPION,)).fetchone()
        return "" if found is None else str(json.loads(found[0]))
    except (sqlite3.Error, ValueError):  # whoever opens it to write says what is wrong
        return ""


def locked(path: Path) -> int | None:
    """Keep other processes away from the record, until the descriptor is closed. None on Windows.

    Raises UserError with the owner's process id.
    """
    if fcntl is None:
        return None
    name = one_line(path)
    try:
        new = [x for x in (path.parent, *path.parent.parents) if not x.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in new:  # a power cut must not lose the name of the record's folder
            sync(folder.parent)
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UserError(f"{name} can't be opened ({error_text(error)}): choose another place.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(descriptor, 20).decode(errors="replace").strip()
        os.close(descriptor)
        raise UserError(
            f"The record {name} is in use by process {owner or '(unknown)'}: stop it first, or give another "
            "file."
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor
