"""The thread that owns the record and the sessions under way.

It takes what waits, changes the sessions, writes all of it in one transaction, and only then are the answers
sent. Draws are made in another thread (batcher.py) from copies.
"""

from __future__ import annotations

import asyncio
import math
import os
import queue
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import torch

from recsys_rl.serve import problems, wire
from recsys_rl.serve.admission import Admission
from recsys_rl.serve.answers import decided, hour_of, refusal
from recsys_rl.serve.batcher import Batcher
from recsys_rl.serve.champions import Champions
from recsys_rl.serve.feedback import ranges_of, take
from recsys_rl.serve.inference import Ask, Drawn, ask_of
from recsys_rl.serve.jobs import (
    Drawings,
    Feedback,
    Job,
    Latest,
    Look,
    Pending,
    Recommend,
    Rows,
    Settings,
    Swap,
    Visitor,
    deliver,
)
from recsys_rl.serve.looks import look, stored
from recsys_rl.serve.memory import Memory
from recsys_rl.serve.problems import Problem
from recsys_rl.serve.requests import checked
from recsys_rl.serve.rows import Decision, Event, Person, Row, Served, Session
from recsys_rl.serve.rule import LATE, RAISED
from recsys_rl.serve.store import Damaged, Full, Lost, Store
from recsys_rl.serve.versions import Version
from recsys_rl.serve.visits import ServedVisit

MOST_JOBS = 512  # of one transaction
MOST_WAITING = 16  # requests of one person at once: they are drawn one after another, and more come too late
FAILED = 70  # exit code
MOST_LIKES = 1_000  # of a stranger, the latest
HANGS = 10  # deadlines after which a batch is given up


class Worker:
    """``submit`` is for the thread of the event loop; all else happens in the worker's own thread."""

    def __init__(
        self, store: Store, champion: Version, settings: Settings, generator: torch.Generator
    ) -> None:
        self.store, self.settings, self.generator = store, settings, generator
        self.champions = Champions(store, champion)
        self.interface = champion.checkpoint.interface
        # Of all versions: a record is of one platform.
        self.ranges: Mapping[str, tuple[float, float]] = ranges_of(champion)
        self.last = store.last
        self.served = {row.sha256: row for row in store.policies()}
        self.memory = Memory(store, self.interface)
        self.admission = Admission(settings.deadline)
        self.pending: dict[int, Pending] = {}  # by the number of the decision
        self.requests: dict[str, Pending] = {}  # by the caller's id
        self.asks: list[Ask] = []  # of this round
        self.numbers: list[float] = []
        self.counts: Counter[str] = Counter()
        self.failed: str = ""  # why the server is not ready
        self.queue: queue.SimpleQueue[Job | Drawings | None] = queue.SimpleQueue()
        self.batcher = Batcher(lambda asks, found: self.queue.put(Drawings(asks, found)))
        self._clear()
        self.thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self.thread.start()

    # --- the event loop's thread ---

    def submit(self, what: Any) -> asyncio.Future[Any]:
        """The future of the result."""
        future = asyncio.get_running_loop().create_future()
        self.queue.put(Job(what, future, time.monotonic() + self.settings.deadline))
        return future

    def close(self) -> None:
        """Do what waits, then end. The store is closed."""
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
        stopping = False
        while not (stopping and not self.pending):
            jobs = self._gather()
            if jobs and jobs[-1] is None:
                stopping = True
            for job in jobs:
                if isinstance(job, Drawings):
                    for ask, drawn in zip(job.asks, job.found, strict=True):
                        self._finish(ask, drawn)
                elif job is not None:
                    self._do(job)
            self._give_up()
            if self.asks:
                self.batcher.ask(self.asks)
                self.asks = []
            self._commit()
        self.batcher.stop()
        self.store.close()

    def _gather(self) -> list[Job | Drawings | None]:
        """What waits. With draws under way, nothing after a while: they may have to be given up."""
        try:
            jobs = [self.queue.get(timeout=self.settings.deadline if self.pending else None)]
        except queue.Empty:
            return []
        while len(jobs) < MOST_JOBS and jobs[-1] is not None:
            try:
                jobs.append(self.queue.get_nowait())
            except queue.Empty:
                break
        return jobs

    def _give_up(self) -> None:
        """Popularity answers in place of a policy that hangs; after it there is no further try."""
        for ask in self.batcher.given_up(HANGS * self.settings.deadline):
            if ask.degraded == LATE:
                self._finish(ask, Drawn(error=LATE))
            else:
                self.asks.append(replace(ask, degraded=LATE, deadline=math.inf))

    def _do(self, job: Job) -> None:
        what = job.what
        try:
            if isinstance(what, Recommend):
                self._recommend(job)
            elif isinstance(what, Feedback):
                self.durable = True  # also if it fails: what it took is a duplicate when it is sent again
                self._reply(job, take(self, what.events))
            elif isinstance(what, Look):
                self._reply(job, look(self.store, what.decision))
            elif isinstance(what, Swap):
                self.champions.swap(what.version)
                self._reply(job, None)
            elif isinstance(what, Latest):
                self._reply(job, stored(self.store))
            elif isinstance(what, Rows):
                self._reply(job, self.store.latest(what.number))
        except Problem as problem:
            self._reply(job, problem)
        except Damaged:
            self._reply(job, problems.damaged())
        except Lost:
            raise  # it ends the server
        except Exception as error:  # the others must be served
            self._reply(job, error)

    def _reply(self, job: Job, result: Any) -> None:
        self.answers.append((job, result))

    @property
    def champion(self) -> Version:
        """The version that serves."""
        return self.champions.version

    @property
    def now(self) -> float:
        """Seconds since 1970."""
        return self.settings.clock()

    def number(self) -> int:
        """The number of the next row."""
        self.last += 1
        return self.last

    def home(self, decision: int) -> ServedVisit | None:
        """The session of a decision that was answered. Raises Damaged."""
        return self.memory.home(decision)

    def _recommend(self, job: Job) -> None:
        """Answer again, wait, or begin a draw. Raises Problem, Damaged."""
        request = job.what.request
        if request.request_id is not None and self._is_repeated(job):
            return
        known = self.champion.people.get(request.user_id, -1)
        visitor = self.memory.visitor(request.user_id, known)
        if visitor.busy:
            if len(visitor.waiting) >= MOST_WAITING:
                raise problems.busy(self.settings.deadline)
            visitor.waiting.append(job)
            return
        if visitor.known < 0 and not self.settings.strangers:
            raise Problem(
                404, "unknown-user", "This user is not among those of the checkpoint: strangers are refused."
            )
        self._ask(job, visitor)

    def _is_repeated(self, job: Job) -> bool:
        """True if a request of this id was answered before, or will be with this one."""
        request_id = job.what.request.request_id
        under_way = self.requests.get(request_id)
        if under_way is not None:
            _check_same(under_way.asked, job)
            under_way.jobs.append(job)
            return True
        before = self.staged_requests.get(request_id) or self.store.answered(request_id)
        if before is not None:
            _check_same(before.asked, job)
            self._reply(job, before.answer)
        return before is not None

    def _ask(self, job: Job, visitor: Visitor) -> None:
        """Begin a draw in the open session of the person, or in a new one. Raises Problem."""
        request, now = job.what.request, self.now
        visit, fresh = visitor.visit, False
        if visit is not None and visit.ended(now) is not None:
            visit = None
        if request.session_id is not None and (visit is None or str(visit.row.number) != request.session_id):
            raise Problem(
                409,
                "session-over",
                "This is not the user's open session: leave session_id out for a new one.",
            )
        asked = checked(request, self.champion, 0 if visit is None else len(visit.steps))
        if visit is None:
            visit, fresh = self._begin(visitor, asked.likes, now), True
        ask = ask_of(
            visit,
            self.champion,
            hour_of(request, self.champion, now),
            number=self.number(),
            uniforms=self._uniforms(asked.places),
            candidates=asked.candidates,
            exclude=asked.exclude,
            explore=self.settings.explore,
            degraded=RAISED if self.champions.broken else "",
            deadline=job.deadline,
        )
        ask.steps = [step.copy() for step in ask.steps]  # another thread reads them
        pending = Pending([job], visitor, visit, fresh, ask, job.what.asked, len(visit.events))
        visitor.busy = visit.asked = True
        self.pending[ask.number] = pending
        if request.request_id is not None:
            self.requests[request.request_id] = pending
        self.asks.append(ask)

    def _uniforms(self, number: int) -> tuple[float, ...]:
        """Numbers in [0, 1), drawn some at a time."""
        if len(self.numbers) < number:
            self.numbers += torch.rand(1024, generator=self.generator).tolist()
        return tuple(self.numbers.pop() for _ in range(number))

    def _begin(self, visitor: Visitor, likes: tuple[int, ...], now: float) -> ServedVisit:
        """A new session, which is written with its first decision."""
        before = visitor.visit
        if not visitor.saved:
            visitor.row = Person(visitor.row.number or self.number(), visitor.row.name)
        if before is not None and visitor.known < 0:
            known = (*before.row.likes, *before.consumed(self.champion.full), *likes)
            likes = tuple(dict.fromkeys(known))[-MOST_LIKES:]
        row = Session(
            number=self.number(),
            person=visitor.row.number,
            visit=0 if before is None else before.row.visit + 1,
            began=now,
            known=visitor.known,
            likes=() if visitor.known >= 0 else likes,
            timeout=self.settings.session_timeout,
            window=self.settings.feedback_window,
        )
        return ServedVisit(row, self.interface, latest=now)

    def _finish(self, ask: Ask, drawn: Drawn) -> None:
        """Write a decision down, and answer it."""
        pending = self.pending.pop(ask.number, None)
        if pending is None:  # given up, or the record was full in the meantime
            return
        visitor, visit = pending.visitor, pending.visit
        request: wire.RecommendRequest = pending.jobs[0].what.request
        visitor.busy = visit.asked = False
        self.requests.pop(request.request_id or "", None)
        if not drawn.error:
            self.champions.count(ask.version, drawn.degraded)
        if drawn.error:
            self.counts[drawn.error] += 1
            for job in pending.jobs:
                self._reply(job, refusal(drawn.error, self.admission.wait))
        else:
            row = self._decision(pending, ask, drawn)
            for job in pending.jobs:
                self._reply(job, row.answer)
        # One that is answered at once starts no draw, at whose end the next one would begin.
        while visitor.waiting and not visitor.busy:
            job = visitor.waiting.popleft()
            if job.deadline > time.monotonic():
                self._do(job)
            else:  # in the queue of the draws it would keep those behind it waiting
                self.counts[LATE] += 1
                self._reply(job, refusal(LATE, self.admission.wait))

    def _decision(self, pending: Pending, ask: Ask, drawn: Drawn) -> Decision:
        """Add the row of a decision to the transaction."""
        visitor, visit = pending.visitor, pending.visit
        if not visitor.saved:
            self.rows.append(visitor.row)
            visitor.saved = True
        if pending.fresh:
            self.rows.append(visit.row)
            self.memory.begin(visitor, visit)
        row = decided(pending, ask, drawn, self._served(ask.version), self.now)
        if len(visit.events) == pending.events:
            visit.visit, visit.covered = drawn.visit, row.step
        else:  # an event came while it was drawn
            visit.visit, visit.covered = None, 0
        self.memory.decide(visit, row)
        if row.request:
            self.staged_requests[row.request] = row
        self.rows.append(row)
        self.durable |= self.settings.fsync_decisions
        self.counts["decisions"] += 1
        if drawn.degraded:
            self.counts["degraded"] += 1
        return row

    def _served(self, version: Version) -> Served:
        """The row of a policy, which is new with its first decision."""
        row = self.served.get(version.row.sha256)
        if row is None:
            row = msgspec.structs.replace(version.row, number=self.number())
            self.served[row.sha256] = row
            self.rows.append(row)
        return row

    def _clear(self) -> None:
        """Begin a transaction."""
        self.rows: list[Row] = []
        self.answers: list[tuple[Job, Any]] = []
        self.durable = False
        self.staged_requests: dict[str, Decision] = {}
        self.staged_events: dict[str, Event] = {}

    def _commit(self) -> None:
        """Write the rows, then send the answers."""
        answers = self.answers
        if self.rows:
            try:
                self.store.write(self.rows, self.durable)
                self.failed = ""
            except Full as full:
                self._drop(str(full))
                answers = [(job, problems.no_room(str(full))) for job, _ in self.answers]
        self.memory.end()
        self._clear()
        deliver(answers)

    def _drop(self, why: str) -> None:
        """Forget all that is in memory: it is ahead of the record, where the truth is."""
        self.failed = f"the record can't be written: {why}"
        for pending in self.pending.values():
            self.answers += [(job, None) for job in pending.jobs]
        for visitor in self.memory.people.values():
            self.answers += [(job, None) for job in visitor.waiting]
        self.memory.clear()
        self.pending.clear()
        self.requests.clear()
        self.served = {row.sha256: row for row in self.store.policies()}


def _check_same(asked: str, job: Job) -> None:
    if asked != job.what.asked:
        raise Problem(409, "other-request", "This request_id belongs to another request: give each its own.")
