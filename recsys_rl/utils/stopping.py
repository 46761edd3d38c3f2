"""Ctrl-C, SIGTERM and SIGHUP as requests, which a loop grants where it can stop without loss."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # the last (a terminal that closes) is unknown to Windows
STOP_SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collects the signals: the first is a request, and a second one ends the program at once.

    SIGHUP comes from the terminal and once more from the shell, so a second one changes nothing; where it is
    ignored, as under nohup, it stays so.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received and signal.Signals(number).name != "SIGHUP":
            raise KeyboardInterrupt
        received.append(number)

    try:
        heeded = [number for number in STOP_SIGNALS if not _is_nohup(number)]
        old = {number: signal.signal(number, note) for number in heeded}
    except ValueError:  # not the main thread, which alone may set handlers
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _is_nohup(number: int) -> bool:
    return signal.Signals(number).name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN
