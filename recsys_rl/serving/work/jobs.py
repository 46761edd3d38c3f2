"""The worker's jobs, what they change (people in memory, versions), and the transaction of their rows."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from recsys_rl.serving.draw.draw_request import DrawRequest, DrawResult
from recsys_rl.serving.draw.session_state import SessionState
from recsys_rl.serving.draw.versions import Version
from recsys_rl.serving.messages import ObserveRequest, RecommendRequest
from recsys_rl.serving.options import ServeConfig
from recsys_rl.serving.record.record_schema import Decision, Event, Person, Row, SessionRows
from recsys_rl.serving.record.store import Store
from recsys_rl.serving.record.store_reader import StoreReader
from recsys_rl.serving.releases.active_version import ActiveVersion
from recsys_rl.serving.releases.arms import UnderWay
from recsys_rl.serving.work.limits import Admission
from recsys_rl.types import Interface

MOST_PEOPLE = 10_000  # in memory


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
class Call:
    """Read the record, or change something: the answer is the function's result."""

    function: Callable[[Shared], Any]


@dataclass(frozen=True)
class Moment:
    """The state of the worker at one moment, for the canary."""

    now: float  # by the worker's clock
    floor: int  # sessions with lower numbers are in the record, or will never be
    under_way: UnderWay | None
    challenger: Version | None


@dataclass(frozen=True)
class ReadMoment:
    """Give the Moment."""


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
class Visitor:
    """A person in memory."""

    row: Person
    population_row: int  # -1 for a stranger
    session: SessionState | None  # the latest
    saved: bool  # the row is in the record
    busy: bool = False  # a draw is under way
    waiting: deque[Any] = field(default_factory=deque)  # jobs of later requests


class Memory:
    """The people and the sessions in memory: the latest ones; the record has all of them.

    Within a transaction the sessions here are ahead of the record, so none is forgotten before its end.
    """

    def __init__(self, store: StoreReader, interface: Interface) -> None:
        self.store, self.interface = store, interface
        self.people: OrderedDict[str, Visitor] = OrderedDict()
        self._by_decision: dict[int, SessionState] = {}  # sessions of people in memory
        self._finished: list[SessionState] = []  # sessions to forget after the transaction
        self._for_events: dict[int, SessionState] = {}  # others, by decision, until the transaction ends
        self._unwritten: set[int] = set()  # decisions of the transaction, which nobody knows yet

    def visitor(self, name: str, population_row: int) -> Visitor:
        """The person with this name, new or not. Raises Damaged."""
        visitor = self.people.get(name)
        if visitor is not None:
            self.people.move_to_end(name)
            return visitor
        stored = self.store.person(name)
        if stored is None:
            visitor = Visitor(Person(0, name), population_row, None, saved=False)
        else:
            person, rows = stored
            session = None if rows is None else self._from_rows(rows)
            visitor = Visitor(person, population_row, session, saved=True)
        self.people[name] = visitor
        return visitor

    def _from_rows(self, rows: SessionRows) -> SessionState:
        # One that was read for an event has the events of this transaction, which the store lacks.
        session = self._for_events.get(rows.decisions[-1].number) if rows.decisions else None
        session = session or SessionState.of(rows, self.interface)
        self._by_decision.update((decision.number, session) for decision in session.decisions)
        return session

    def session_of(self, decision: int) -> SessionState | None:
        """The session of a decision that was answered. Raises Damaged."""
        if decision in self._unwritten:
            return None
        session = self._by_decision.get(decision) or self._for_events.get(decision)
        if session is not None:
            return session
        stored = self.store.decision(decision)
        if stored is None:
            return None
        session = SessionState.of(stored[0], self.interface)
        # Until the transaction ends: further events of the session must find this one.
        self._for_events.update((decision.number, session) for decision in session.decisions)
        return session

    def begin(self, visitor: Visitor, session: SessionState) -> None:
        """``session`` is the person's from now on."""
        if visitor.session is not None:
            self._finished.append(visitor.session)
        visitor.session = session

    def add_decision(self, session: SessionState, decision: Decision) -> None:
        """Add a decision to its session."""
        session.add_decision(decision)
        self._by_decision[decision.number] = session
        self._unwritten.add(decision.number)

    def end(self) -> None:
        """The transaction is written: forget sessions that are over, and people beyond MOST_PEOPLE."""
        self._unwritten.clear()
        self._for_events.clear()
        while len(self.people) > MOST_PEOPLE:
            oldest = next((person for person, visitor in self.people.items() if not visitor.busy), None)
            if oldest is None:
                break
            session = self.people.pop(oldest).session
            if session is not None:
                self._finished.append(session)
        for session in self._finished:
            for decision in session.decisions:
                self._by_decision.pop(decision.number, None)
        self._finished.clear()

    def clear(self) -> None:
        """The transaction is lost: forget all."""
        for table in (self.people, self._by_decision, self._finished, self._for_events, self._unwritten):
            table.clear()


@dataclass
class Shared:
    """The objects of all jobs. Only the worker's thread changes it, apart from ``admission``."""

    settings: ServeConfig
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
