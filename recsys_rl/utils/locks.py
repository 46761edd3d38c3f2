"""Locks on folders between processes. The system drops a lock when its process ends, even if it is killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys_rl.errors import UserError

PARTS = ".recsys-rl-parts"
"""Ending of the hidden folder with the parts of a file that is being written."""


class Busy(Exception):
    """Another process has the lock."""


def take(descriptor: int) -> None:
    """Lock the open file until its descriptor is closed.

    Raises Busy if another descriptor has the lock, also one of this process, and OSError on a disk without
    locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy from None


def lock(folder: Path) -> int | None:
    """Lock ``folder`` until the returned descriptor is closed. None without a folder or locks of the disk.

    Raises Busy as ``take`` does.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        take(descriptor)
    except Busy:
        os.close(descriptor)
        raise
    except OSError:  # a network disk without locks
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Lock a folder or a file that is there, until the block or the process ends.

    Raises UserError with the sentence ``busy`` if another process has the lock. A disk without
    locks has none.
    """
    try:
        descriptor = lock(path)
    except Busy:
        raise UserError(busy) from None
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def parts_of(path: Path) -> Iterator[Path]:
    """A new hidden folder beside ``path`` for the parts of this file; it is deleted at the end.

    Folders that killed processes left there, for any file, are deleted too. Raises UserError if another
    process writes ``path`` now, and OSError if the folder can't be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent)
    folder, descriptor = path.parent / f".{path.name}{PARTS}", None
    try:
        while True:
            folder.mkdir(exist_ok=True)
            descriptor = lock(folder)
            if descriptor is None or _is_of(descriptor, folder):
                break
            os.close(descriptor)  # its last owner has deleted it in the meantime
    except Busy:
        raise UserError(
            f"Another process is writing {path} now: wait for it, or give another name."
        ) from None
    if descriptor is None:  # without locks, each process has a folder of its own
        with contextlib.suppress(OSError):
            folder.rmdir()
        folder = path.parent / f".{path.name}.{os.getpid()}{PARTS}"
        folder.mkdir(exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def _is_of(descriptor: int, folder: Path) -> bool:
    """True if the descriptor is of the folder that is there now."""
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False


def _remove_abandoned(parent: Path) -> None:
    """Delete the folders of ``parts_of`` in ``parent`` that no process has locked."""
    for folder in parent.glob(f".*{PARTS}"):
        with contextlib.suppress(Busy):
            descriptor = lock(folder)
            if descriptor is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(descriptor)
