"""One process at a time writes a log of decisions, and what a killed process left is deleted."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from recsys_rl.logs.parts import read_decisions
from recsys_rl.logs.writer import DecisionWriter, write_decisions
from recsys_rl.types import UserError
from recsys_rl.utils import locks
from tests.logs.test_decisions import HEADER, assert_same, two_sessions

ROOT = Path(__file__).parents[2]
KILLED = """
import os, signal, sys
from pathlib import Path
from recsys_rl.utils.locks import parts_of
with parts_of(Path(sys.argv[1])) as folder:
    (folder / "00000000.parquet").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_parts_of_a_killed_process_are_deleted_by_the_next_one(tmp_path: Path) -> None:
    for name in ("log.parquet", "other.parquet"):
        done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / name)], cwd=ROOT, timeout=300)
        assert done.returncode == -9
    assert len(list(tmp_path.iterdir())) == 1  # the second one has deleted the folder of the first
    write_decisions(tmp_path / "log.parquet", two_sessions())
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]
    assert_same(read_decisions(tmp_path / "log.parquet"), two_sessions())


def test_second_writer_of_a_file_is_refused_and_another_file_is_free(tmp_path: Path) -> None:
    with DecisionWriter(tmp_path / "log.parquet", HEADER) as writer:
        writer.write(two_sessions())
        with pytest.raises(UserError):
            write_decisions(tmp_path / "log.parquet", two_sessions())
        write_decisions(tmp_path / "other.parquet", two_sessions())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.parquet", "other.parquet"]
    assert_same(read_decisions(tmp_path / "log.parquet"), two_sessions())


def test_lock_of_a_deleted_folder_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last owner deletes it between the making of the folder and the lock."""
    real = locks.lock
    calls: list[Path] = []

    def late(folder: Path) -> int | None:
        descriptor = real(folder)
        if not calls:
            folder.rmdir()
        calls.append(folder)
        return descriptor

    monkeypatch.setattr(locks, "lock", late)
    with locks.parts_of(tmp_path / "x") as folder:
        assert folder.is_dir() and len(calls) == 2


def test_without_locks_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")  # a network disk

    monkeypatch.setattr(fcntl, "flock", refused)
    write_decisions(tmp_path / "log.parquet", two_sessions())
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]
