"""The thread that owns the record and the sessions under way.

It takes the jobs that wait, changes the sessions, writes all rows in one transaction, and only then the
answers are sent. Draws are made in another thread (batcher.py) from copies.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
import time
import traceback
from typing import Any

import torch

from recsys_rl.serving import messages
from recsys_rl.serving.draw.batcher import Batcher
from recsys_rl.serving.draw.draw_request import DrawRequest, DrawResult
from recsys_rl.serving.draw.rule import LATE
from recsys_rl.serving.draw.versions import Version
from recsys_rl.serving.messages import Problem
from recsys_rl.serving.options import ServeConfig
from recsys_rl.serving.record.record_schema import Damaged
from recsys_rl.serving.record.store import Full, Lost, Store
from recsys_rl.serving.releases.active_version import ActiveVersion
from recsys_rl.serving.work.jobs import (
    Call,
    Draws,
    Job,
    Memory,
    Moment,
    Observe,
    ReadMoment,
    Recommend,
    Shared,
    Transaction,
    deliver,
)
from recsys_rl.serving.work.limits import Admission
from recsys_rl.serving.work.observe import observe
from recsys_rl.serving.work.recommendations import Recommendations
from recsys_rl.serving.work.release_changes import AtStart

MOST_JOBS = 512  # of one transaction
FAILED = 70  # exit code
HANGS = 10  # deadlines after which a batch is given up


class Worker:
    """``submit`` is for the thread of the event loop; all else happens in the worker's own thread."""

    def __init__(
        self,
        store: Store,
        version: Version,
        settings: ServeConfig,
        generator: torch.Generator,
        at_start: AtStart | None = None,
    ) -> None:
        """Raise Damaged if the rows of releases can't be read."""
        first = AtStart() if at_start is None else at_start
        self.shared = Shared(
            settings,
            store,
            ActiveVersion(store, version, first.challenger),
            Memory(store, version.checkpoint.interface),
            Transaction(store),
            Admission(settings.deadline),
        )
        self.recommendations = Recommendations(self.shared, generator)
        self.failed: str = ""  # why the server is not ready
        self.queue: queue.SimpleQueue[Job | Draws | None] = queue.SimpleQueue()
        self.batcher = Batcher(lambda requests, results: self.queue.put(Draws(requests, results)))
        if first.change is not None:
            self.queue.put(Job(Call(first.change)))
        self.thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self.thread.start()

    # --- the event loop's thread ---

    def submit(self, task: Any) -> asyncio.Future[Any]:
        """The future of the result of ``task``, one of the classes of jobs.py."""
        future = asyncio.get_running_loop().create_future()
        self.queue.put(Job(task, future, time.monotonic() + self.shared.settings.deadline))
        return future

    def close(self) -> None:
        """Do the jobs that wait, then end. The store is closed."""
        self.queue.put(None)
        self.thread.join()

    # --- the worker's thread ---

    def _run(self) -> None:
        try:
            self._work()
        except Lost as lost:
            print(f"error: the record can't be written ({lost}): the server ends.", file=sys.stderr)
            os._exit(FAILED)
        except BaseException:
            # Nobody would answer any more: another process must begin from the record.
            traceback.print_exc(file=sys.stderr)
            os._exit(FAILED)

    def _work(self) -> None:
        stopping, recommendations = False, self.recommendations
        while not (stopping and not recommendations.pending):
            jobs = self._gather()
            if jobs and jobs[-1] is None:
                stopping = True
            for job in jobs:
                if isinstance(job, Draws):
                    for request, result in zip(job.requests, job.results, strict=True):
                        self._finish(request, result)
                elif job is not None:
                    self._do(job)
            self._give_up()
            if recommendations.to_draw:
                self.batcher.add(recommendations.to_draw)
                recommendations.to_draw = []
            self._commit()
        self.batcher.stop()
        self.shared.store.close()

    def _gather(self) -> list[Job | Draws | None]:
        """The jobs that wait. With draws under way, none after a while: they may have to be given up."""
        try:
            timeout = self.shared.settings.deadline if self.recommendations.pending else None
            jobs = [self.queue.get(timeout=timeout)]
        except queue.Empty:
            return []
        while len(jobs) < MOST_JOBS and jobs[-1] is not None:
            try:
                jobs.append(self.queue.get_nowait())
            except queue.Empty:
                break
        return jobs

    def _do(self, job: Job) -> None:
        task, answer = job.task, self.shared.transaction.answer
        try:
            if isinstance(task, Recommend):
                self.recommendations.begin(job)
            elif isinstance(task, Observe):
                observe(self.recommendations, job)
            elif isinstance(task, ReadMoment):
                answer(job, self._moment())
            elif isinstance(task, Call):
                answer(job, task.function(self.shared))
        except Problem as problem:
            answer(job, problem)
        except Damaged:
            answer(job, messages.damaged())
        except Lost:
            raise  # it ends the server
        except Exception as error:  # the others must be served
            answer(job, error)

    def _moment(self) -> Moment:
        """The present state, which is answered when the rows so far are written."""
        shared = self.shared
        drawing = self.recommendations.pending.values()
        unwritten = [pending.session.row.number for pending in drawing if pending.fresh]
        floor = min(unwritten, default=shared.transaction.last + 1)
        return Moment(shared.clock(), floor, shared.active.history.under_way, shared.active.challenger)

    def _finish(self, request: DrawRequest, result: DrawResult) -> None:
        """Answer a draw, and begin the person's next one."""
        visitor = self.recommendations.finish(request, result)
        # One that is answered at once starts no draw, at whose end the next one would begin.
        while visitor is not None and visitor.waiting and not visitor.busy:
            job = visitor.waiting.popleft()
            if job.deadline > time.monotonic():
                self._do(job)
            else:
                self.recommendations.refuse_late(job)

    def _give_up(self) -> None:
        """Let popularity answer in place of a policy that hangs; after it there is no further try."""
        for request in self.batcher.give_up(HANGS * self.shared.settings.deadline):
            if request.degraded == LATE:
                self._finish(request, DrawResult(error=LATE))
            else:
                self.recommendations.draw_by_popularity(request)

    def _commit(self) -> None:
        """Write the rows, then send the answers."""
        shared, transaction = self.shared, self.shared.transaction
        answers = transaction.answers
        if transaction.rows:
            try:
                shared.store.write(transaction.rows, transaction.durable)
                self.failed = ""
            except Full as full:
                self._drop(str(full))
                answers = [(job, messages.no_room(str(full))) for job, _ in transaction.answers]
        shared.memory.end()
        transaction.begin()
        deliver(answers)

    def _drop(self, why: str) -> None:
        """Forget all that is in memory: it is ahead of the record, where the truth is."""
        self.failed = f"the record can't be written: {why}"
        jobs = self.recommendations.clear()
        for visitor in self.shared.memory.people.values():
            jobs += visitor.waiting
        self.shared.transaction.answers += [(job, None) for job in jobs]
        self.shared.memory.clear()
        self.shared.active.read_served()
