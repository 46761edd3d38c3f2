"""The sessions of a record, each once, when no row can change it any more.

They are read from snapshots, in another thread than the requests.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

from recsys_rl.serving.jobs import Moment
from recsys_rl.serving.record.snapshot import Snapshot
from recsys_rl.serving.releases.outcomes import Outcomes
from recsys_rl.serving.session_state import SessionState

BATCH = 500  # sessions that are read at once
MOST = 2_000
"""Sessions that are read at one look: after a start on a long record nobody waits for all of them."""
Take = Callable[[Sequence[int], Sequence[SessionState]], None]
"""Gets the numbers of sessions that are erased or damaged, and the sessions that have matured."""


class Maturing:
    """The sessions above a number."""

    def __init__(self, outcomes: Outcomes, above: int, window: float) -> None:
        """``window``: seconds that a session needs at least to mature."""
        self.outcomes, self.above, self.window = outcomes, above, window
        self.scanned = above  # sessions up to this number are known
        self.due = list[tuple[float, int]]()  # a heap: when each may have matured, and its number

    def scan(self, store: Snapshot, moment: Moment) -> list[int]:
        """Find the sessions that have begun since, and return their numbers. Raises Damaged."""
        fresh = store.sessions(self.scanned, moment.floor)
        # Those that began a moment ago can't have matured; after a start they can.
        due = moment.now + (0 if self.scanned == self.above else self.window)
        for number in fresh:
            heapq.heappush(self.due, (due, number))
        self.scanned = max(self.scanned, moment.floor - 1)
        return fresh

    def read(self, store: Snapshot, now: float, take: Take) -> bool:
        """Read up to MOST sessions that are due. Returns True if some are left that are due, too.

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
        return bool(self.due) and self.due[0][0] <= now

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
