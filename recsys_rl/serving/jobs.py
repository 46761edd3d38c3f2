"""The worker's settings and clock, its jobs, what they change, and the transaction of their rows."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from recsys_rl.serving.draw_request import DrawRequest, DrawResult
from recsys_rl.serving.limits import Admission
from recsys_rl.serving.memory import Memory
from recsys_rl.serving.messages import FeedbackEvent, ObserveRequest, RecommendRequest
from recsys_rl.serving.record.record_schema import Decision, Event, Row
from recsys_rl.serving.record.store import Store
from recsys_rl.serving.releases.active_version import ActiveVersion
from recsys_rl.serving.releases.arms import UnderWay
from recsys_rl.serving.versions import Version

SLEW = 0.1
"""Seconds of correction in a second. Timeouts are wrong by this share at most while it lasts."""


@dataclass(frozen=True)
class Settings:
    """The settings of the worker."""

    session_timeout: float = 1800.0  # seconds
    feedback_window: float = 3600.0  # seconds
    deadline: float = 0.1  # seconds until a request is answered or refused
    explore: float = 0.0
    strangers: bool = True
    fsync_decisions: bool = False
    most_shown: float = 0.1  # as ``CanarySettings.top``


def _steady() -> float:
    """Seconds since some moment; those in which the machine slept count where the system's clock has them."""
    sleepless = getattr(time, "CLOCK_BOOTTIME", None)  # Linux
    return time.monotonic() if sleepless is None else time.clock_gettime(sleepless)


class Clock:
    """Seconds since 1970 that do not jump when somebody sets the machine's clock.

    The machine's clock at the start and the time since, which then goes slowly to where the machine's is.

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


@dataclass
class Job:
    """Something to do, and the future of its result."""

    task: Any  # one of the classes below
    reply: asyncio.Future[Any] | None = None
    deadline: float = 0.0  # by time.monotonic()


@dataclass(frozen=True)
class Recommend:
    request: RecommendRequest
    digest: str  # of the request; "" without an id


@dataclass(frozen=True)
class Observe:
    request: ObserveRequest
    digest: str  # as in Recommend


@dataclass(frozen=True)
class Feedback:
    events: Sequence[FeedbackEvent]


@dataclass(frozen=True)
class Swap:
    """Serve ``version`` from now on."""

    version: Version


@dataclass(frozen=True)
class Change:
    """An action of a release (releases.py)."""

    action: Callable[[Shared], None]


@dataclass(frozen=True)
class Moment:
    """The state of the worker at one moment, for the canary."""

    now: float  # by the worker's clock
    floor: int  # sessions with lower numbers are in the record, or will never be
    under_way: UnderWay | None
    challenger: Version | None


@dataclass(frozen=True)
class Look:
    """Give the Moment."""


@dataclass(frozen=True)
class Read:
    """Read something from the record."""

    query: Callable[[Store], Any]


@dataclass(frozen=True)
class Draws:
    """Results of the inference thread."""

    requests: Sequence[DrawRequest]
    results: Sequence[DrawResult]


class Transaction:
    """The rows and answers of one round of jobs. The rows are written together, then the answers leave."""

    def __init__(self, store: Store) -> None:
        self.last = store.last  # number of a row
        self.begin()

    def begin(self) -> None:
        """Begin another round."""
        self.rows: list[Row] = []
        self.answers: list[tuple[Job, Any]] = []
        self.durable = False  # the rows must be on the disk before the answers leave
        self.decisions: dict[str, Decision] = {}  # among the rows, by the caller's request id
        self.events: dict[str, Event] = {}  # among the rows, by their ids

    def number(self) -> int:
        """The number of the next row."""
        self.last += 1
        return self.last

    def answer(self, job: Job, result: Any) -> None:
        """Let ``result``, or an exception, be the answer to ``job`` when the rows are written."""
        self.answers.append((job, result))


@dataclass
class Shared:
    """The objects of all jobs. Only the worker's thread changes it, apart from ``admission``."""

    settings: Settings
    store: Store
    active: ActiveVersion
    memory: Memory
    transaction: Transaction
    admission: Admission
    clock: Callable[[], float] = field(default_factory=Clock)  # seconds since 1970
    counts: Counter[str] = field(default_factory=Counter)


def deliver(answers: Sequence[tuple[Job, Any]]) -> None:
    """Set the results, each in the thread of its event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Job, Any]]] = {}
    for job, result in answers:
        if job.reply is not None:
            by_loop.setdefault(job.reply.get_loop(), []).append((job, result))
    for loop, some in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_deliver, some)


def _deliver(answers: Sequence[tuple[Job, Any]]) -> None:
    for job, result in answers:
        if job.reply is None or job.reply.done():
            continue
        if isinstance(result, Exception):
            job.reply.set_exception(result)
        else:
            job.reply.set_result(result)
