"""Events of a request: each is accepted once, or answered with the reason why not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from recsys_rl.serve.rows import LEAVE, Event, Row
from recsys_rl.serve.store import Store
from recsys_rl.serve.versions import Version
from recsys_rl.serve.visits import ServedVisit
from recsys_rl.serve.wire import FeedbackAnswer, FeedbackEvent, Receipt

LARGEST = 1e9
"""Of the value of a signal without bounds: larger ones could overflow in a float32 network."""
OUT_OF_RANGE = "value-out-of-range"


class Worker(Protocol):
    """What the worker has for events."""

    store: Store
    ranges: Mapping[str, tuple[float, float]]
    rows: list[Row]
    staged_events: dict[str, Event]
    counts: Counter[str]

    @property
    def champion(self) -> Version: ...

    @property
    def now(self) -> float: ...

    def home(self, decision: int) -> ServedVisit | None: ...

    def number(self) -> int: ...


def ranges_of(version: Version) -> dict[str, tuple[float, float]]:
    """The lowest and the highest value of each visible signal of the platform."""
    # A platform of one's own may describe its signals in each user model, and not in the class.
    described = getattr(version.checkpoint.config.platform.users, "signals", ())
    known = {x.name: x for x in described} if isinstance(described, tuple) else {}
    ranges = {}
    for name in version.signals:
        low, high = (known[name].low, known[name].high) if name in known else (-math.inf, math.inf)
        ranges[name] = max(low, -LARGEST), min(high, LARGEST)
    return ranges


def take(worker: Worker, events: Sequence[FeedbackEvent]) -> FeedbackAnswer:
    """Add the events to their sessions and to the rows of the transaction. Raises Damaged."""
    places: Mapping[str, int] = worker.champion.signals
    results = []
    for index, event in enumerate(events):
        status, code = _take_one(worker, event, places)
        worker.counts[status] += 1
        detail = None
        if code == OUT_OF_RANGE:
            low, high = worker.ranges[event.signal]
            detail = f"The value of {event.signal} is {event.value:g}: it must be from {low:g} to {high:g}."
        results.append(Receipt(index, status, code, detail))  # type: ignore[arg-type]
    return FeedbackAnswer(results)


def _take_one(worker: Worker, event: FeedbackEvent, places: Mapping[str, int]) -> tuple[str, str | None]:
    """The status of an event, and the code of a rejection. Raises Damaged."""
    number = int(event.decision_id) if event.decision_id.isascii() and event.decision_id.isdecimal() else -1
    visit = worker.home(number) if 0 < number < 2**63 else None
    if visit is None:
        return "rejected", "unknown-decision"
    signal = LEAVE if event.signal == "leave" else places.get(event.signal)
    if signal is None:
        return "rejected", "unknown-signal"
    left, place = -1, event.position
    if event.left is not None:
        found = worker.champion.rows.get(event.left)
        if found is None:
            return "rejected", "unknown-item"
        left, place = found, 0
    if signal == LEAVE:
        left, place = -1, 0
    at = place if event.left is None else f"left {event.left}"
    # An id of the caller can't look like one of ours.
    name = f"{number}:{at}:{event.signal}" if event.event_id is None else f"={event.event_id}"
    new = Event(
        number=0,
        id=name,
        session=visit.row.number,
        decision=number,
        place=place,
        left=left,
        signal=signal,
        value=1.0 if signal == LEAVE else event.value,
        time=event.time,
        received=worker.now,
    )
    before = visit.events.get(name) or worker.staged_events.get(name) or worker.store.event(name)
    if before is not None:
        return ("duplicate" if before.content == new.content else "conflict"), None
    code = _refused(visit, new, worker.now)
    if code is None and signal != LEAVE:
        low, high = worker.ranges[event.signal]
        code = None if low <= new.value <= high else OUT_OF_RANGE
    if code is not None:
        return "rejected", code
    new = msgspec.structs.replace(new, number=worker.number())
    visit.happen(new)
    worker.staged_events[name] = new
    worker.rows.append(new)
    return "accepted", None


def _refused(visit: ServedVisit, event: Event, now: float) -> str | None:
    """Why the session can't take the event; None if it can."""
    decision = next((x for x in visit.decisions if x.number == event.decision), None)
    if decision is None:
        return "unknown-decision"
    if visit.matured(now):
        return "too-late"
    if event.signal == LEAVE:
        # The next decision shows that the user stayed.
        return "not-the-last" if visit.asked or visit.decisions[-1] is not decision else None
    if event.left >= 0:
        if not visit.interface.events:
            return "no-items-are-left"
        shown = any(event.left in x.items for x in visit.decisions if x.number <= event.decision)
        return None if shown else "not-shown"
    return None if event.place < len(decision.items) else "unknown-position"
