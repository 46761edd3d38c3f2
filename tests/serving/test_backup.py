"""Copies of a record, made while it is served."""

from __future__ import annotations

import resource
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from recsys_rl.cli import main
from recsys_rl.errors import UserError
from recsys_rl.serving.record.snapshot import backup
from tests.serving.live import live
from tests.serving.servers import recommend, serving
from tests.serving.test_snapshot import exported, visits

At = Callable[[str], Path]


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """A disk with room for files of this size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_backup_beside_the_server_is_a_record_that_is_served_on(
    checkpoint: At, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    db, path, stop = tmp_path / "r.sqlite", checkpoint("satiation"), threading.Event()
    copies = [tmp_path / f"copy-{number}.sqlite" for number in range(3)]
    with live(path, db) as server:

        def busy() -> None:
            with httpx.Client(base_url=server.url) as client:
                for user in range(1000):
                    if stop.is_set():
                        return
                    visits(client, [user])

        with httpx.Client(base_url=server.url) as client:
            visits(client, range(4))
            _, watermark = exported(db, tmp_path / "log.parquet")
            content = (tmp_path / "log.parquet").read_bytes()
            thread = threading.Thread(target=busy)
            thread.start()
            try:
                for copy in copies:
                    assert main(["log", "backup", "--db", str(db), "--out", str(copy)]) == 0
            finally:
                stop.set()
                thread.join()
    assert sorted(file.name for file in tmp_path.iterdir() if "copy" in file.name) == [x.name for x in copies]
    for copy in copies:  # the same sessions, at three moments
        assert exported(copy, tmp_path / "again.parquet", 0, watermark)[0] == content
        assert main(["log", "check", "--db", str(copy)]) == 0
    with serving(path, copies[0]) as client:
        assert recommend(client, "ann")["session"]["step"] == 0
    before = copies[1].read_bytes()
    assert main(["log", "backup", "--db", str(db), "--out", str(copies[1])]) == 2  # it is there
    assert copies[1].read_bytes() == before


def test_without_room_nothing_is_left(checkpoint: At, tmp_path: Path) -> None:
    db, out = tmp_path / "r.sqlite", tmp_path / "copies"
    out.mkdir()
    with serving(checkpoint("satiation"), db) as client:
        visits(client, range(40))
        with no_file_above(20_000), pytest.raises(UserError):
            backup(db, out / "copy.sqlite")
        with no_file_above(2_000), pytest.raises(UserError):
            exported(db, out / "log.parquet")
        assert not [*out.iterdir()]
        assert recommend(client, "ann")["session"]["step"] == 0
    assert backup(db, out / "copy.sqlite").decisions == 121


def test_a_damaged_record_is_not_copied(checkpoint: At, tmp_path: Path) -> None:
    db, out = tmp_path / "r.sqlite", tmp_path / "copy.sqlite"
    with serving(checkpoint("satiation"), db) as client:
        visits(client, range(3))
    with sqlite3.connect(db) as raw:
        raw.execute("DELETE FROM events WHERE number = (SELECT max(number) FROM events)")
    raw.close()
    with pytest.raises(UserError):
        backup(db, out)
    with pytest.raises(UserError):
        exported(db, tmp_path / "log.parquet")
    for name in ("none.sqlite", "."):
        with pytest.raises(UserError):
            backup(tmp_path / name, out)
    assert sorted(file.suffix for file in tmp_path.iterdir() if file.name[0] != "r") == []
