"""Ctrl-C, SIGTERM and a terminal's hangup as requests, which a loop grants where it can stop without loss."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

HANGUP = getattr(signal, "SIGHUP", None)  # which POSIX alone has
STOP_SIGNALS: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM, *([HANGUP] if HANGUP else []))


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collects the signals: the first is a request, and a second one ends the program at once.

    A hangup comes from the terminal and once more from the shell, so a second one changes nothing; one that
    is ignored, as under nohup, stays ignored.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received and number != HANGUP:
            raise KeyboardInterrupt
        received.append(number)

    under_nohup = HANGUP is not None and signal.getsignal(HANGUP) == signal.SIG_IGN
    numbers = [number for number in STOP_SIGNALS if number != HANGUP or not under_nohup]
    try:
        old = {number: signal.signal(number, note) for number in numbers}
    except ValueError:  # not the main thread, which alone may set handlers
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
