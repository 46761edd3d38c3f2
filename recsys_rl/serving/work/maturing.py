"""The sessions of a record, each once, when no row can change it any more.

They are read from snapshots, in another thread than the requests.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence

from recsys_rl.serving.draw.session_state import SessionState
from recsys_rl.serving.record.snapshot import Snapshot
from recsys_rl.serving.releases.outcomes import Outcomes
from recsys_rl.serving.work.jobs import Moment

BATCH = 500  # sessions that are read at once
MOST = 2_000
"""Sessions that are found at one look, and that are read: after a start on a long record nobody waits for
all of them, and few of them are in memory."""
Take = Callable[[Sequence[int], Sequence[SessionState]], None]
"""Gets the numbers of sessions that are erased or damaged, and the sessions that have matured."""


class Maturing:
    """The sessions above a number."""

    def __init__(self, outcomes: Outcomes, above: int, window: float) -> None:
        """``window``: seconds that a session needs at least to mature."""
        self.outcomes, self.window = outcomes, window
        self.scanned = above  # sessions up to this number are known
        self.since = -math.inf  # the others began after this moment; those of the past can have matured
        self.more = False  # the latest look left some of the others
        self.due = list[tuple[float, int]]()  # a heap: when each may have matured, and its number

    def scan(self, store: Snapshot, moment: Moment) -> list[int]:
        """Find the next sessions, up to MOST, and return their numbers, ascending. Raises Damaged."""
        fresh = store.sessions(self.scanned, moment.floor, MOST)
        for number in fresh:
            heapq.heappush(self.due, (self.since + self.window, number))
        self.more = len(fresh) == MOST
        if self.more:
            self.scanned = fresh[-1]
        else:
            self.scanned, self.since = max(self.scanned, moment.floor - 1), moment.now
        return fresh

    def read(self, store: Snapshot, now: float, take: Take) -> bool:
        """Read up to MOST sessions that are due. Returns True if some are left that are due, or to be found.

        Raises Damaged if the record can't be read: the next call goes on where this one was.
        """
        due = list[tuple[float, int]]()
        while self.due and self.due[0][0] <= now and len(due) < MOST:
            due.append(heapq.heappop(self.due))
        try:
            while due:
                self._read(store, [number for _, number in due[:BATCH]], now, take)
                del due[:BATCH]
        finally:
            for unread in due:
                heapq.heappush(self.due, unread)
        return self.more or (bool(self.due) and self.due[0][0] <= now)

    def _read(self, store: Snapshot, numbers: list[int], now: float, take: Take) -> None:
        """Hand on those that have matured, and look at the others later."""
        found = self.outcomes.states(store.whole_sessions(numbers))
        over = [number for number, state in found.items() if self.outcomes.matured(state, now)]
        # From here on nothing is read, so that a read which fails changes nothing.
        take([number for number in numbers if number not in found], [found[number] for number in over])
        for number in found.keys() - set(over):
            state = found[number]
            ended = state.ended(now)
            again = (now if ended is None else ended) + state.row.window
            heapq.heappush(self.due, (min(again, self.outcomes.end(state.row)), number))
