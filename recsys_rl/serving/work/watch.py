"""The watch over a release: each second the sessions that have matured join the canary, which may stop it.

It runs beside the requests: in the event loop it asks the worker for the moment, and in another thread it
reads the record. After a start it reads all sessions of the release again, and comes to the same numbers.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from recsys_rl.errors import UserError, one_line
from recsys_rl.serving.draw.session_state import SessionState
from recsys_rl.serving.messages import Problem
from recsys_rl.serving.record.record_schema import Damaged, Release
from recsys_rl.serving.record.snapshot import Snapshot
from recsys_rl.serving.releases.canary import Canary, CanarySettings, Look
from recsys_rl.serving.releases.outcomes import Outcome, Outcomes
from recsys_rl.serving.work.jobs import Call, Moment, ReadMoment
from recsys_rl.serving.work.maturing import Maturing
from recsys_rl.serving.work.release_changes import freeze, stop
from recsys_rl.serving.work.worker import Worker

EVERY = 1.0  # seconds
TRIES = 10
"""Looks in a row that fail before the release is frozen: one failed read of the record is no reason to."""


class Watch:
    """Follows the release under way, if there is one."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.settings = replace(CanarySettings(), top=worker.shared.settings.most_shown)
        self.followed: Followed | None = None
        self.lock = asyncio.Lock()

    async def run(self) -> None:
        """Look until the task is cancelled."""
        failed, of = 0, 0  # looks in a row, and the number of their release
        while True:
            await asyncio.sleep(EVERY)
            release = self.worker.shared.active.history.under_way
            if release is None:
                self.followed = None
                continue
            if of != release.start.number:
                failed, of = 0, release.start.number
            try:
                await self.now()
                failed = 0
            except Exception as error:
                failed += 1
                why = f"the canary failed ({type(error).__name__}: {one_line(error)})"
                if failed < TRIES:
                    print(f"{why}: it looks again", file=sys.stderr)
                    continue
                # Without a canary nobody must be given to a challenger.
                traceback.print_exc(file=sys.stderr)
                why = f"{why}, {failed} times in a row"
                with contextlib.suppress(Problem):
                    await self.worker.submit(Call(partial(freeze, reason=why, number=release.start.number)))

    async def now(self) -> int:
        """Look now. Returns the number of the release, 0 without one. Raises Damaged."""
        async with self.lock:
            moment: Moment = await self.worker.submit(ReadMoment())
            if moment.under_way is None:
                return 0
            number = moment.under_way.start.number
            try:
                look = await asyncio.to_thread(self._look, moment, moment.under_way.start)
            except UserError as error:  # of the snapshot: whoever asks for the release may ask again
                raise Damaged(str(error)) from error
            change = None
            if look.harm:
                change = partial(stop, number=number, reason=look.harm, verdict=verdict_of(look))
            elif moment.under_way.frozen is None and (why := _lacks_file(moment)):
                change = partial(freeze, reason=why, number=number)
            if change is not None:
                try:
                    await self.worker.submit(Call(change))
                except Problem as problem:  # the disk is full, and the next look tries again
                    print(f"the release can't be stopped: {problem.detail}", file=sys.stderr)
            return number

    def of(self, release: int) -> tuple[Canary, Look]:
        """The canary of the release with this number, and its latest look; empty before the first one."""
        followed = self.followed
        if followed is None or followed.start.number != release:
            return Canary("session", []), Look()
        return followed.canary, followed.look

    def _look(self, moment: Moment, start: Release) -> Look:
        """The latest look, in another thread than the event loop's."""
        followed = self.followed  # the event loop may forget it meanwhile
        if followed is None or followed.start.number != start.number:
            shared = self.worker.shared
            versions = [shared.active.version, *([] if moment.challenger is None else [moment.challenger])]
            outcomes, window = Outcomes(versions, self.settings.longest), shared.settings.feedback_window
            followed = Followed(shared.store.path, start, outcomes, self.settings, window)
            self.followed = followed
        return followed.now(moment)


class Followed:
    """A release, with its sessions so far."""

    def __init__(
        self, record: Path, start: Release, outcomes: Outcomes, settings: CanarySettings, window: float
    ) -> None:
        """``window``: seconds that a session needs at least to mature. Raises Damaged, UserError."""
        self.record, self.start, self.outcomes = record, start, outcomes
        with contextlib.closing(Snapshot(record)) as store:
            before = self._before(store, store.latest_sessions(start.number, settings.prior))
        self.canary, self.look = Canary(start.unit, before, settings), Look()
        self.maturing = Maturing(outcomes, start.number, window)
        self.order = deque[int]()  # sessions that do not count yet
        self.matured = dict[int, Outcome | None]()  # of those; None: erased, damaged, or of no arm

    def now(self, moment: Moment) -> Look:
        """Add the sessions that have matured, and look again.

        Raises Damaged or UserError if the record can't be read: the next call goes on where this one was.
        """
        with contextlib.closing(Snapshot(self.record)) as store:
            self.order.extend(self.maturing.scan(store, moment))
            self.maturing.read(store, moment.now, self._take)
            while self.order and self.order[0] in self.matured:
                outcome = self.matured[self.order[0]]
                before = None if outcome is None else self._known_of(store, outcome)
                del self.matured[self.order.popleft()]
                if outcome is not None:
                    self.canary.add(outcome, before)
        self.look = self.canary.look()
        return self.look

    def _known_of(self, store: Snapshot, outcome: Outcome) -> list[Outcome] | None:
        """The person's sessions before the release, if this is their first one of it; else None."""
        if not outcome.arm or outcome.person in self.canary.people:
            return None
        most = self.canary.settings.history
        return self._before(store, store.latest_sessions(self.start.number, most, outcome.person))

    def _before(self, store: Snapshot, numbers: list[int]) -> list[Outcome]:
        """The outcomes of those of these sessions that had matured when the release began."""
        at, found = self.start.time, self.outcomes.states(store.whole_sessions(numbers))
        # One with a later row was still under way.
        over = [state for _, state in sorted(found.items()) if state.latest <= at]
        return self.outcomes.of([state for state in over if self.outcomes.matured(state, at)])

    def _take(self, lost: Sequence[int], over: Sequence[SessionState]) -> None:
        """Keep the outcomes of sessions that have matured."""
        outcomes = self.outcomes.of(over)
        self.matured |= dict.fromkeys(lost)
        self.matured |= {outcome.number: outcome for outcome in outcomes}


def verdict_of(look: Look) -> dict[str, Any]:
    """A look as JSON, without its band."""
    found: dict[str, Any] = msgspec.to_builtins(look)
    del found["band"]
    return found


def _lacks_file(moment: Moment) -> str:
    """Why the challenger can get no new sessions; "" if it can."""
    if moment.challenger is None:
        return "the challenger's file is missing"
    file = Path(moment.challenger.row.file)
    return "" if file.is_file() else f"the challenger's file {file.name} is gone from its folder"
