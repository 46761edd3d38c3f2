"""How many recommendations may wait at once: one more must be answered within the deadline.

All of it happens in the thread of the event loop, so that it also counts requests that no other thread has
taken yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from recsys_rl.serve import problems

LEAST = 128
"""So many may always wait: a batch that is drawn, and the next one."""
BUSY = 32
"""An answer tells how fast the server is if so many waited: a batch of fewer takes as long as one of 32."""
FIRST = 4e-4  # seconds between two answers, until they are measured
SMOOTHING = 0.02  # of the seconds, by one answer
SHARE = 0.5
"""Of the deadline, for those that wait before. The rest has room for the draw itself and for pauses."""


class Admission:
    """The recommendations under way, and the seconds between two answers while many wait."""

    def __init__(self, deadline: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self.deadline, self.clock = deadline, clock
        self.under_way, self.seconds, self.refused = 0, FIRST, 0

    def too_many(self, number: int) -> bool:
        """True if one more would wait too long behind so many."""
        return number >= LEAST and number * self.seconds > SHARE * self.deadline

    @property
    def wait(self) -> float:
        """Seconds until all that wait are answered."""
        return self.under_way * self.seconds

    def enter(self) -> tuple[int, float]:
        """Count a recommendation. Returns its place and the time. Raises Problem if it comes too late."""
        if self.too_many(self.under_way):
            self.refused += 1
            raise problems.busy(self.wait)
        self.under_way += 1
        return self.under_way, self.clock()

    def measure(self, entered: tuple[int, float]) -> None:
        """An answer has come: it took as long as those before it."""
        place, since = entered
        if place >= BUSY:
            self.seconds += SMOOTHING * ((self.clock() - since) / place - self.seconds)

    def leave(self) -> None:
        """A recommendation is answered or refused."""
        self.under_way -= 1
