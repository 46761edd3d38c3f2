"""`GET /v1/items/{id}`: what the record says of an item, and how often it was shown with which reward.

The counts are kept in memory. They follow the record in another thread, and only when somebody asks for an
item: an answer waits for them no longer than WAIT, and says whether sessions are left to be read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from recsys_rl.checkpoint.stock import find_encoding
from recsys_rl.data.tables.item_encoding import ItemEncoding
from recsys_rl.serving.draw.session_state import SessionState
from recsys_rl.serving.draw.versions import Version
from recsys_rl.serving.messages import ItemReport, ItemRow, Problem
from recsys_rl.serving.record.record_schema import ItemChange
from recsys_rl.serving.record.snapshot import Snapshot
from recsys_rl.serving.releases.canary import CanarySettings
from recsys_rl.serving.releases.outcomes import Outcomes
from recsys_rl.serving.work.jobs import Call, Moment, ReadMoment
from recsys_rl.serving.work.maturing import Maturing
from recsys_rl.serving.work.worker import Worker

WAIT = 0.5  # seconds
REST = 0.25  # seconds between two looks at a long record, so that requests get the processor


class ItemCounts:
    """The counts of the items by the weights of the champion; another champion begins others."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.shown: Shown | None = None
        self._lock = asyncio.Lock()  # of a change of ``shown`` and of its task
        self._task: asyncio.Task[Exception | None] | None = None

    async def now(self) -> Shown:
        """The counts, after WAIT at most.

        Raises the errors of reading the record, also one that came after the last answer; the next request
        reads on.
        """
        async with self._lock:
            shared, shown = self.worker.shared, self.shown
            version = shared.active.version
            if shown is None or shown.champion != version.row.sha256:
                await self._stop()
                shown = self.shown = Shown(shared.store.path, version, shared.settings.feedback_window)
            task = self._task
            if task is None or (task.done() and _error_of(task) is None):
                shown.all_read = False
                task = self._task = asyncio.create_task(self._follow(shown))
        await asyncio.wait([task], timeout=WAIT)
        error = _error_of(task)
        if error is not None:
            if self._task is task:
                self._task = None
            raise error
        return shown

    async def close(self) -> None:
        """Read no more."""
        async with self._lock:
            await self._stop()

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _follow(self, shown: Shown) -> Exception | None:
        """Read until all is read, or until an error, which is the result."""
        try:
            moment: Moment = await self.worker.submit(ReadMoment())
            while await asyncio.to_thread(shown.read, moment):
                await asyncio.sleep(REST)
        except Exception as error:
            return error
        return None


def _error_of(task: asyncio.Task[Exception | None]) -> Exception | None:
    """The error with which a task has ended; None of one that runs, or was cancelled."""
    return task.result() if task.done() and not task.cancelled() else None


class Shown:
    """The steps that showed each row of the catalogue, of the sessions that have matured."""

    def __init__(self, record: Path, version: Version, window: float) -> None:
        """``version``: the champion; ``window``: seconds that a session needs at least to mature."""
        self.record, self.champion = record, version.row.sha256
        self.outcomes = Outcomes([version], CanarySettings.longest)
        self.maturing = Maturing(self.outcomes, 0, window)
        self.impressions, self.rewards = Counter[int](), Counter[int]()  # numbers, and sums
        self.all_read = False

    def read(self, moment: Moment) -> bool:
        """Count more sessions; True if others are left. Raises Damaged, UserError."""
        with contextlib.closing(Snapshot(self.record)) as store:
            self.maturing.scan(store, moment)
            self.all_read = not self.maturing.read(store, moment.now, self._take)
        return not self.all_read

    def _take(self, lost: Sequence[int], over: Sequence[SessionState]) -> None:
        steps = [step for session in over for step in session.steps]
        for step, reward in zip(steps, self.outcomes.step_rewards(steps).tolist(), strict=True):
            for row in step.items:
                self.impressions[row] += 1
                self.rewards[row] += reward


def _rows_of(version: Version, id_: str) -> list[int]:
    return [row for row, known in enumerate(version.item_ids) if known == id_]


async def item_report(id_: str, counts: ItemCounts) -> ItemReport:
    """The answer. Raises Problem for an item that never was there."""
    worker = counts.worker
    version = worker.shared.active.version
    rows = await asyncio.to_thread(_rows_of, version, id_)
    if not rows:
        raise Problem(404, "unknown-item", "There never was an item with this id.")
    changes: list[ItemChange] = []
    if version.stock is not None:
        own, gone = version.stock.added, version.stock.gone
        numbers = [number for row in rows for number in (own[row].number, gone[row])]
        changes = await worker.submit(Call(lambda shared: shared.store.item_changes(numbers)))
    encoding = find_encoding(version.checkpoint) or ItemEncoding()
    found = await counts.now()
    impressions = sum(found.impressions[row] for row in rows)
    return ItemReport(
        item_id=id_,
        title=version.checkpoint.catalogue.title(rows[-1]),
        available=id_ in version.row_of_item,
        rows=[
            ItemRow(one.number, one.time, one.kind, one.title, encoding.named(one.features))
            for one in changes
        ],
        impressions=impressions,
        mean_reward=sum(found.rewards[row] for row in rows) / impressions if impressions else None,
        all_read=found.all_read,
    )
