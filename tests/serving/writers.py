"""Processes that write a record and end without closing it, as a crash would.

    python -m tests.serving.writers    reads jobs from standard input

Each job is a copy of this process, which has imported all that it needs: so a job takes milliseconds.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys_rl.serving.record.record_schema import (
    Event,
    ItemChange,
    Person,
    Release,
    ReleaseKind,
    Session,
)
from recsys_rl.serving.record.store import Store

ROOT = Path(__file__).parents[2]
A, B = "a" * 64, "b" * 64
ACTIONS: tuple[tuple[ReleaseKind, str, float], ...] = (
    ("start", A, 0.1),
    ("share", A, 0.5),
    ("freeze", A, 0.5),
    ("promote", B, 1.0),
    ("back", A, 0.0),
)
RELEASES = [
    Release(number, 5.0, kind, champion, B, share, "session", "", "")
    for number, (kind, champion, share) in enumerate(ACTIONS, 1)
]
POSTS = [
    [
        ItemChange(number, row, "add", f"i{row}", 5.0, "", {"price": 1.5})
        for number, row in ((1, 0), (2, 1), (3, 2))
    ],
    [
        ItemChange(4, 1, "withdraw", "i1", 6.0, "", {}),
        ItemChange(5, 3, "add", "i1", 6.0, "", {"price": 2.5}),
        ItemChange(6, 4, "add", "i3", 6.0, "", {"price": 3.5}),
    ],
]
EVENT = Event(3, "=a", 2, 1, 0, -1, 0, 0.5, None, 0.0)


def open_and_close(store: Store) -> None:
    store.close()


def write_an_event(store: Store) -> None:
    store.write([Person(1, "ann"), Session(2, 1, 0, 0.0, -1, (), 1.0, 1.0), EVENT], durable=True)


def write_an_event_and_close(store: Store) -> None:
    write_an_event(store)
    store.close()


def find_the_event(store: Store) -> None:
    assert store.event("=a") is not None


def write_one_row_durably_and_one_not(store: Store) -> None:
    store.write([Person(1, "ann")], durable=True)
    store.write([Person(2, "bob")], durable=False)


def write_releases(store: Store) -> None:
    for row in RELEASES:
        store.write([row], durable=True)
    store.close()


def write_items(store: Store) -> None:
    for rows in POSTS:
        store.write(rows, durable=True)
    store.close()


JOBS = {
    job.__name__: job
    for job in (
        open_and_close,
        write_an_event,
        write_an_event_and_close,
        find_the_event,
        write_one_row_durably_and_one_not,
        write_releases,
        write_items,
    )
}


class Writers:
    """The process that makes the copies. ``library``: the one of benchmarks/harness/power.py."""

    def __init__(self, library: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.serving.writers"],
            env={**os.environ, "LD_PRELOAD": str(library)},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, job: str, record: Path, environment: Mapping[str, str]) -> int:
        """The exit code of a process that does the job with the record; minus the signal that killed it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([job, str(record), dict(environment)]) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()


def main() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _do(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _do(job: str, record: str, environment: dict[str, Any]) -> None:
    """Do the job, and end without closing anything."""
    try:
        os.environ.update(environment)
        ctypes.CDLL(None).read_environment()
        JOBS[job](Store(Path(record), {}))
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
