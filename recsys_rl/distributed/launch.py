"""`recsys-rl train --num-processes N`: run the same command N times on this machine. Imports no torch."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from recsys_rl.distributed.place import LAUNCHED, LOST
from recsys_rl.errors import UserError
from recsys_rl.utils.stopping import STOP_SIGNALS, stop_signals

LOOPBACK = "127.0.0.1"
GRACE = 5.0  # seconds for the other ranks to end by themselves after one has failed
IN_ORDER = (0, 130)  # exit codes of a finished run, and of one that the user stopped
SHOW_CURSOR = "\x1b[?25h\n"  # a killed rank 0 leaves the cursor hidden by its bar


@dataclass(frozen=True)
class Child:
    """One rank, and the file of its stderr (None for rank 0, which writes to the parent's stderr)."""

    process: subprocess.Popen[bytes]
    said: IO[bytes] | None

    @property
    def code(self) -> int | None:
        return self.process.poll()

    def tell_to_stop(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # the process may have ended
            self.process.stdin.write(b"s")
            self.process.stdin.flush()

    def last_words(self) -> str:
        """The end of its stderr, a few thousand characters."""
        if self.said is None:
            return ""
        self.said.seek(max(0, self.said.seek(0, os.SEEK_END) - 4000))
        return self.said.read().decode(errors="replace").rstrip()


def launch(argv: Sequence[str], size: int) -> None:
    """Run `train` with ``argv`` as ``size`` processes; if one fails, end the others too.

    Raises UserError, SystemExit(2) (rank 0 has printed the error) or KeyboardInterrupt, as one process does.
    """
    children: list[Child] = []
    with stop_signals() as asked, _ended(children):
        with socket.create_server((LOOPBACK, 0), backlog=size) as listener:
            for rank in range(size):
                children.append(_start(argv, rank, size, listener))
        first = _watch(children, asked)
    codes = [child.code for child in children]
    if first is None and all(code == 0 for code in codes):
        return
    if asked and set(codes) <= {*IN_ORDER, LOST}:
        raise KeyboardInterrupt
    if codes[0] == 2:
        raise SystemExit(2)
    raise UserError(_why(children, first))


def _watch(children: Sequence[Child], asked: list[int]) -> int | None:
    """Wait until all have ended, or GRACE after a failure; return the first rank that failed by itself."""
    told, deadline = False, float("inf")
    while any(child.code is None for child in children) and time.monotonic() < deadline:
        if asked and not told:
            told = True
            for child in children:
                child.tell_to_stop()
        if deadline == float("inf") and any(child.code not in (None, *IN_ORDER) for child in children):
            deadline = time.monotonic() + GRACE
        time.sleep(0.02)
    failed = (rank for rank, child in enumerate(children) if child.code not in (None, LOST, *IN_ORDER))
    return next(failed, None)


def _why(children: Sequence[Child], first: int | None) -> str:
    """One sentence about the rank that failed and so ended the others."""
    go_on = "so the others were ended, too: --resume continues from the last checkpoint."
    if first is None:
        print(children[-1].last_words(), file=sys.stderr)
        return f"The {len(children)} processes lost each other, {go_on}"
    child, code = children[first], children[first].code
    assert code is not None
    words = child.last_words()
    if code == 2 and "error: " in words:
        return words.rpartition("error: ")[2]
    if words:
        print(words, file=sys.stderr)
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"Rank {first} of {len(children)} {how}, {go_on}"


def _start(argv: Sequence[str], rank: int, size: int, listener: socket.socket) -> Child:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    environment = {
        "OMP_NUM_THREADS": str(max(1, cores // size)),  # one thread for each core, over all ranks
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path),
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": LOOPBACK,
        "MASTER_PORT": str(listener.getsockname()[1]),
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
        LAUNCHED: str(listener.fileno()),
    }
    said = None if rank == 0 else tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the child)
    with _signals_ignored():
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "recsys_rl.cli", "train", *argv],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=None if rank == 0 else subprocess.DEVNULL,
            stderr=said,
            pass_fds=[listener.fileno()] if rank == 0 else [],
        )
    return Child(process, said)


@contextmanager
def _signals_ignored() -> Iterator[None]:
    """Ignore signals while a child starts: it inherits this, so the terminal's Ctrl-C does not end it."""
    old = {number: signal.signal(number, signal.SIG_IGN) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def _ended(children: list[Child]) -> Iterator[None]:
    """Kill all children that still run at the end of the block, after an error too."""
    try:
        yield
    finally:
        for child in children:
            if child.code is None:
                child.process.kill()
                if child is children[0] and sys.stderr.isatty():
                    print(SHOW_CURSOR, end="", file=sys.stderr)
            child.process.wait()
            assert child.process.stdin is not None
            with contextlib.suppress(OSError):
                child.process.stdin.close()
