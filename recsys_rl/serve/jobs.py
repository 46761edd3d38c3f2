"""What the worker does for a request, and what it keeps of people and of draws under way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from recsys_rl.serve import wire
from recsys_rl.serve.clock import Clock
from recsys_rl.serve.inference import Ask, Drawn
from recsys_rl.serve.rows import Person
from recsys_rl.serve.versions import Version
from recsys_rl.serve.visits import ServedVisit


@dataclass(frozen=True)
class Settings:
    """How the worker works."""

    session_timeout: float = 1800.0  # seconds
    feedback_window: float = 3600.0  # seconds
    deadline: float = 0.1  # seconds until a request is answered or refused
    explore: float = 0.0
    strangers: bool = True
    fsync_decisions: bool = False
    clock: Callable[[], float] = field(default_factory=Clock)


@dataclass
class Visitor:
    """A person in memory."""

    row: Person
    known: int  # row of the population; -1 for a stranger
    visit: ServedVisit | None
    saved: bool  # the row is in the record
    busy: bool = False  # a draw is under way
    waiting: deque[Job] = field(default_factory=deque)


@dataclass
class Job:
    """Something to do, and the future of its result."""

    what: Any
    reply: asyncio.Future[Any] | None = None
    deadline: float = 0.0


@dataclass
class Pending:
    """A draw under way."""

    jobs: list[Job]  # several with one request id
    visitor: Visitor
    visit: ServedVisit
    fresh: bool  # the session begins with this decision
    ask: Ask
    asked: str
    events: int  # of the session, when it was asked


@dataclass(frozen=True)
class Recommend:
    request: wire.RecommendRequest
    asked: str  # digest of the request; "" without an id


@dataclass(frozen=True)
class Feedback:
    events: Sequence[wire.FeedbackEvent]


@dataclass(frozen=True)
class Look:
    """The session and the row of a decision."""

    decision: int


@dataclass(frozen=True)
class Swap:
    """Serve ``version`` from now on."""

    version: Version


@dataclass(frozen=True)
class Latest:
    """The latest decisions, each with its session: a new version is tried on them."""


@dataclass(frozen=True)
class Rows:
    """The latest decisions as rows."""

    number: int


@dataclass(frozen=True)
class Drawings:
    asks: Sequence[Ask]
    found: Sequence[Drawn]


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
