"""The server's clock: seconds since 1970 that do not jump when somebody sets the machine's clock."""

from __future__ import annotations

import time
from collections.abc import Callable

SLEW = 0.1
"""Seconds of correction in a second. Timeouts are wrong by this share at most while it lasts."""


def _steady() -> float:
    """Seconds since some moment; those in which the machine slept count where the system tells them."""
    sleepless = getattr(time, "CLOCK_BOOTTIME", None)  # Linux
    return time.monotonic() if sleepless is None else time.clock_gettime(sleepless)


class Clock:
    """The machine's clock at the start and the time since, which then goes slowly to where the machine's is.

    Sessions and their feedback last as long as they really do, also if that one is set ahead or back by hours
    or years. After years only a start of the server makes this one right again. For one thread.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = _steady) -> None:
        self.wall, self.steady = wall, steady
        self.now, self.at = wall(), steady()

    def __call__(self) -> float:
        """Seconds since 1970, never less than before."""
        at = self.steady()
        passed = at - self.at
        most = SLEW * passed
        self.now += passed + min(max(self.wall() - self.now - passed, -most), most)
        self.at = at
        return self.now
