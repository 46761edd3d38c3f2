"""The worker's settings, its jobs, what they change, and the transaction of their rows."""

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


def clock_from_now(wall: Callable[[], float] = time.time) -> Callable[[], float]:
    """Seconds since 1970: the machine's clock now, and the time since, whatever that clock is set to."""
    sleepless = getattr(time, "CLOCK_BOOTTIME", None)  # Linux: it counts the time in which the machine slept

    def steady() -> float:
        return time.monotonic() if sleepless is None else time.clock_gettime(sleepless)

    began = wall() - steady()
    return lambda: began + steady()


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
class Change:
    """An action of a release (release_changes.py)."""

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
    clock: Callable[[], float] = field(default_factory=clock_from_now)  # seconds since 1970
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
