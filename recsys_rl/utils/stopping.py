"""Collect Ctrl-C, SIGTERM and SIGHUP, so that a loop can stop at a place without loss of work."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""SIGHUP: the terminal was closed."""


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect the signals in the list. The first is a request to stop; a second one ends the program at once.

    SIGHUP comes from the terminal and again from the shell, so a second SIGHUP has no effect. If it is
    ignored, as under nohup, it stays ignored.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received and signal.Signals(number).name != "SIGHUP":
            raise KeyboardInterrupt
        received.append(number)

    try:
        heeded = [number for number in STOP_SIGNALS if not _is_nohup(number)]
        old = {number: signal.signal(number, note) for number in heeded}
    except ValueError:  # only the main thread may set handlers
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _is_nohup(number: int) -> bool:
    return signal.Signals(number).name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN
