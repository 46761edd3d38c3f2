"""Events of a request: each is accepted once, or answered with the reason why not."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from recsys_rl.serving.draw.session_state import SessionState
from recsys_rl.serving.messages import FeedbackAnswer, FeedbackEvent, Receipt
from recsys_rl.serving.record.record_schema import LEAVE, Event
from recsys_rl.serving.work.jobs import Shared
from recsys_rl.settings.fields import shown

OUT_OF_RANGE, UNKNOWN_SIGNAL, UNKNOWN_DECISION = "value-out-of-range", "unknown-signal", "unknown-decision"
USER_LEFT = "leave"


def take_feedback(shared: Shared, events: Sequence[FeedbackEvent]) -> FeedbackAnswer:
    """Add the events to their sessions and to the rows of the transaction. Raises Damaged."""
    # Also if it fails: the events that it took are duplicates when they are sent again.
    shared.transaction.durable = True
    receipts = []
    for index, event in enumerate(events):
        status, code = _take_one(shared, event)
        shared.counts[status] += 1
        receipts.append(Receipt(index, status, code, _detail(shared, event, code)))  # type: ignore[arg-type]
    return FeedbackAnswer(receipts)


def _detail(shared: Shared, event: FeedbackEvent, code: str | None) -> str | None:
    """A sentence on a rejection, where the code does not say all."""
    version = shared.active.version
    if code == OUT_OF_RANGE:
        of = version.ranges[event.signal]
        values = "0 or 1" if of.binary else f"from {of.low:g} to {of.high:g}"
        return f"The value of {event.signal} is {event.value:g}: it must be {values}."
    if code == UNKNOWN_SIGNAL:
        known = ", ".join(version.signals)
        return f"There is no signal {shown(event.signal)}: give {known}{' or ' * bool(known)}{USER_LEFT}."
    if code == UNKNOWN_DECISION:
        return (
            f"The record has no decision {shown(event.decision_id)}: give the decision_id of an answer of "
            "/v1/recommend or /v1/observe of this server, which writes the record."
        )
    return None


def _take_one(shared: Shared, event: FeedbackEvent) -> tuple[str, str | None]:
    """The status of an event, and the code of a rejection. Raises Damaged."""
    version, transaction = shared.active.version, shared.transaction
    number = int(event.decision_id) if event.decision_id.isascii() and event.decision_id.isdecimal() else -1
    session = shared.memory.session_of(number) if 0 < number < 2**63 else None
    if session is None:
        return "rejected", UNKNOWN_DECISION
    signal = LEAVE if event.signal == USER_LEFT else version.signals.get(event.signal)
    if signal is None:
        return "rejected", UNKNOWN_SIGNAL
    left, position = -1, event.position
    if event.left is not None:
        row = version.row_of_item.get(event.left)
        if row is None:
            return "rejected", "unknown-item"
        left, position = row, 0
    if signal == LEAVE:
        left, position = -1, 0
    at = position if event.left is None else f"left {event.left}"
    # An id of the caller can't look like one of ours.
    id_ = f"{number}:{at}:{event.signal}" if event.event_id is None else f"={event.event_id}"
    new = Event(
        number=0,
        id=id_,
        session=session.row.number,
        decision=number,
        place=position,
        left=left,
        signal=signal,
        value=1.0 if signal == LEAVE else float(event.value),
        time=event.time,
        received=shared.clock(),
    )
    before = session.events.get(id_) or transaction.events.get(id_) or shared.store.event(id_)
    if before is not None:
        return ("duplicate" if before.content == new.content else "conflict"), None
    code = _rejected(session, new, shared.clock())
    if code is None and signal != LEAVE:
        low, high, binary = version.ranges[event.signal]
        fits = new.value in (low, high) if binary else low <= new.value <= high
        code = None if fits else OUT_OF_RANGE
    if code is not None:
        return "rejected", code
    new = msgspec.structs.replace(new, number=transaction.number())
    session.add_event(new)
    transaction.events[id_] = new
    transaction.rows.append(new)
    return "accepted", None


def _rejected(session: SessionState, event: Event, now: float) -> str | None:
    """Why the session can't take the event; None if it can."""
    decision = next((decision for decision in session.decisions if decision.number == event.decision), None)
    if decision is None:
        return UNKNOWN_DECISION
    if session.matured(now):
        return "too-late"
    if event.signal == LEAVE:
        # The next decision shows that the user stayed.
        return "not-the-last" if session.drawing or session.decisions[-1] is not decision else None
    if event.left >= 0:
        if not session.interface.events:
            return "no-items-are-left"
        shown = any(
            event.left in earlier.items for earlier in session.decisions if earlier.number <= event.decision
        )
        return None if shown else "not-shown"
    return None if event.place < len(decision.items) else "unknown-position"
