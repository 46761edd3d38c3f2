"""The state of a session, from its rows: its steps, their signals, and whether it has ended.

It is made from the rows alone, in the order of their numbers; the server and the tools that read the record
use this one code. Between two draws the observation's state is kept beside it, as bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from recsys_rl import session as sessions
from recsys_rl.recommender import Visit
from recsys_rl.serving.draw.versions import Version
from recsys_rl.serving.record.record_schema import LEAVE, Decision, Event, Session, SessionRows
from recsys_rl.types import Interface


@dataclass
class Step:
    """One step of a session, with the signals that are known so far."""

    items: tuple[int, ...]  # (K,) rows of the catalogue
    signals: list[list[float]]  # (K, S)
    left: dict[int, list[float]]  # items that the user left after it, where the history holds events: (S,)
    hour: float

    def copy(self) -> Step:
        """A copy that another thread may keep."""
        left = {item: [*values] for item, values in self.left.items()}
        return Step(self.items, [[*values] for values in self.signals], left, self.hour)


def events_left(
    steps: Sequence[Step], interface: Interface, width: int | None = None
) -> tuple[Tensor, Tensor]:
    """The items left after each of n steps (n, width), filled with -1, and their signals (n, width, S).

    ``width``: None: that of the longest.
    """
    width = max(1, *(len(step.left) for step in steps)) if width is None else width
    nothing = [0.0] * len(interface.signals)
    gaps = [width - len(step.left) for step in steps]
    items = [[*step.left, *[-1] * gap] for step, gap in zip(steps, gaps, strict=True)]
    signals = [[*step.left.values(), *[nothing] * gap] for step, gap in zip(steps, gaps, strict=True)]
    return torch.tensor(items), torch.tensor(signals, dtype=torch.float32)


@dataclass
class SessionState:
    """A session with its steps so far."""

    row: Session
    interface: Interface
    decisions: list[Decision] = field(default_factory=list)
    events: dict[str, Event] = field(default_factory=dict)  # by their ids
    steps: list[Step] = field(default_factory=list)
    left_after: int = -1  # the decision after which the user left; -1: not yet
    latest: float = 0.0  # of the last request or event
    timed_out: float | None = None  # when it ended by time; it does not open again
    packed: PackedVisit | None = None  # the observation's state after ``packed_steps``; None: make it again
    packed_steps: int = 0
    drawing: bool = False  # a decision is under way

    @classmethod
    def of(cls, rows: SessionRows, interface: Interface, before: int | None = None) -> SessionState:
        """The session as its rows tell it; ``before``: only rows with lower numbers."""
        session = cls(rows.session, interface, latest=rows.session.began)
        ordered: list[Decision | Event] = sorted(
            [*rows.decisions, *rows.events], key=lambda entry: entry.number
        )
        for row in ordered:
            if before is not None and row.number >= before:
                break
            if isinstance(row, Decision):
                session.add_decision(row)
            else:
                session.add_event(row)
        return session

    def add_decision(self, decision: Decision) -> None:
        """Add the steps of a decision."""
        width = self.interface.slate_size
        for start in range(0, len(decision.items), width):
            items = decision.items[start : start + width]
            nothing = [[0.0] * len(self.interface.signals) for _ in items]
            self.steps.append(Step(items, nothing, {}, decision.hour))
        self.decisions.append(decision)
        self.latest = max(self.latest, decision.time)

    def add_event(self, event: Event) -> None:
        """Add the signal of an event. Of several values of one signal the last one counts."""
        if event.received - self.latest <= self.row.timeout:
            self.latest = max(self.latest, event.received)
        self.events[event.id] = event
        if event.signal == LEAVE:
            self.left_after = event.decision
            return
        decision = next(
            decision for decision in reversed(self.decisions) if decision.number == event.decision
        )
        at, width = decision.step, self.interface.slate_size
        if event.left >= 0:
            at += len(decision.items) // width - 1
            values = self.steps[at].left.setdefault(event.left, [0.0] * len(self.interface.signals))
            values[event.signal] = event.value
        else:
            at += event.place // width
            self.steps[at].signals[event.place % width][event.signal] = event.value
        if at < self.packed_steps:
            self.forget_packed()

    def forget_packed(self) -> None:
        """Let the next draw make the observation's state from the begin of the session."""
        self.packed, self.packed_steps = None, 0

    def keep_packed_of(self, version: Version) -> None:
        """Keep ``packed`` only if it was made with the profiles and settings of this version's visits."""
        if self.packed is None or self.packed.like.checkpoint is not version.of_visits:
            self.forget_packed()

    def ended(self, now: float) -> float | None:
        """The time at which the session ended; None while it goes on."""
        if self.left_after >= 0:
            return next(event.received for event in self.events.values() if event.signal == LEAVE)
        if len(self.steps) >= self.interface.session_length:
            return self.decisions[-1].time
        timeout = self.row.timeout
        if self.timed_out is None and has_passed(timeout, self.latest, now):
            self.timed_out = self.latest + timeout
        return self.timed_out

    def matured(self, now: float) -> bool:
        """True if no more feedback counts."""
        ended = self.ended(now)
        return ended is not None and has_passed(self.row.window, ended, now)

    def consumed(self, full_signals: Sequence[float], taken: Sequence[int] = ()) -> list[int]:
        """The items of which the user consumed at least half, in their order.

        ``full_signals`` (S,) are those of an item that is consumed in full. The mean of the shares counts,
        over the signals that are not 0 there. So does an item with one of the signals ``taken`` in full.
        """
        consumed: dict[int, None] = {}
        for step in self.steps:
            shown_and_left = [*zip(step.items, step.signals, strict=True), *step.left.items()]
            for item, values in shown_and_left:
                shares = [value / full for value, full in zip(values, full_signals, strict=True) if full]
                half = bool(shares) and 2 * sum(shares) >= len(shares)
                if half or any(values[place] >= 1 for place in taken):
                    consumed[item] = None
        return [*consumed]

    @property
    def truncated(self) -> bool:
        """True if the platform's last step ended the session, and not the user."""
        return self.left_after < 0 and len(self.steps) >= self.interface.session_length


def has_passed(seconds: float, since: float, now: float) -> bool:
    """True if these seconds have passed ``since`` then.

    Also if that lies as far ahead: the clock of an earlier process was wrong, maybe by years.
    """
    return abs(now - since) >= seconds


class PackedVisit(NamedTuple):
    """The row of one person in the tensors of a batch of visits, as bytes.

    To split a batch of visits into their small tensors, and to put these together again, took a third of the
    time of a draw. A view would keep the rows of all others in memory.
    """

    like: Visit  # of one row, the batch's first: its checkpoint, shapes and types
    row: bytes


def pack(visits: Visit) -> list[PackedVisit]:
    """The visit of each person, as bytes."""
    columns = [column for column in _columns(visits) if column is not None]
    number = len(visits.session.users)
    parts = [
        column.reshape(number, column.shape[1:].numel()).contiguous().view(torch.uint8) for column in columns
    ]
    joined = torch.cat(parts, 1)  # (N, bytes)
    width, content = joined.shape[1], joined.numpy().tobytes()
    like = _with_columns(
        visits, [None if column is None else column[:1].clone() for column in _columns(visits)]
    )
    return [PackedVisit(like, content[at : at + width]) for at in range(0, len(content), width)]


def unpack(visits: Sequence[PackedVisit]) -> Visit:
    """The visits as the rows of one, in their order. They are of one checkpoint."""
    like, number = visits[0].like, len(visits)
    content = bytearray().join([visit.row for visit in visits])
    joined = torch.frombuffer(content, dtype=torch.uint8).view(number, -1)  # (N, bytes)
    columns, at = list[Tensor | None](), 0
    for column in _columns(like):
        if column is None or not column.nbytes:  # without visible signals there are no bytes to view
            columns.append(None if column is None else column.new_empty(number, *column.shape[1:]))
            continue
        # A copy: x's type may not begin at any byte.
        block = joined[:, at : at + column.nbytes].clone(memory_format=torch.contiguous_format)
        columns.append(block.view(column.dtype).view(number, *column.shape[1:]))
        at += column.nbytes
    return _with_columns(like, columns)


def _columns(visits: Visit) -> list[Tensor | None]:
    own = visits.session
    fixed = [own.users, own.steps, own.history, own.signals, own.shown_items, own.visit, own.day]
    # By name: a platform may list what is known in another order after a step than before the first.
    return [*fixed, *(visits.known[name] for name in sorted(visits.known))]


def _with_columns(like: Visit, columns: Sequence[Tensor | None]) -> Visit:
    """The visits with these tensors. ``tree_map`` and ``replace`` would take three times as long."""
    fixed = sessions.Session(like.session.interface, like.session.catalogue, *columns[:7])  # type: ignore[arg-type]
    return Visit(like.checkpoint, fixed, dict(zip(sorted(like.known), columns[7:], strict=True)))  # type: ignore[arg-type]
