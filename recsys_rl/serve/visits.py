"""A session under way, as its rows tell it: its steps, their signals, and whether it has ended.

It is made from the rows alone, in the order of their numbers; the server and the tools that read the record
use this one code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from recsys_rl.serve.kept import Kept
from recsys_rl.serve.rows import LEAVE, Decision, Event, Session, Whole
from recsys_rl.serve.versions import Version
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


@dataclass
class ServedVisit:
    """A session with its steps so far."""

    row: Session
    interface: Interface
    decisions: list[Decision] = field(default_factory=list)
    events: dict[str, Event] = field(default_factory=dict)  # by their ids
    steps: list[Step] = field(default_factory=list)
    left_after: int = -1  # the decision after which the user left; -1: not yet
    latest: float = 0.0  # of the last request or event
    over: float | None = None  # when it ended by time; it does not open again
    visit: Kept | None = None  # the observation's state after ``covered`` steps; None: make it again
    covered: int = 0
    asked: bool = False  # a decision is under way

    @classmethod
    def of(cls, whole: Whole, interface: Interface, before: int | None = None) -> ServedVisit:
        """The session as its rows tell it; ``before``: only rows with lower numbers."""
        row, decisions, events = whole
        made = cls(row, interface, latest=row.began)
        rows: list[Decision | Event] = sorted([*decisions, *events], key=lambda x: x.number)
        for each in rows:
            if before is not None and each.number >= before:
                break
            if isinstance(each, Decision):
                made.decide(each)
            else:
                made.happen(each)
        return made

    def decide(self, decision: Decision) -> None:
        """Add the steps of a decision."""
        width = self.interface.slate_size
        for start in range(0, len(decision.items), width):
            items = decision.items[start : start + width]
            nothing = [[0.0] * len(self.interface.signals) for _ in items]
            self.steps.append(Step(items, nothing, {}, decision.hour))
        self.decisions.append(decision)
        self.latest = max(self.latest, decision.time)

    def happen(self, event: Event) -> None:
        """Add what an event tells. Of several values of one signal the last one counts."""
        if event.received - self.latest <= self.row.timeout:
            self.latest = max(self.latest, event.received)
        self.events[event.id] = event
        if event.signal == LEAVE:
            self.left_after = event.decision
            return
        decision = next(x for x in reversed(self.decisions) if x.number == event.decision)
        at, width = decision.step, self.interface.slate_size
        if event.left >= 0:
            at += len(decision.items) // width - 1
            values = self.steps[at].left.setdefault(event.left, [0.0] * len(self.interface.signals))
            values[event.signal] = event.value
        else:
            at += event.place // width
            self.steps[at].signals[event.place % width][event.signal] = event.value
        if at < self.covered:
            self.visit, self.covered = None, 0

    def keep_for(self, version: Version) -> None:
        """Keep ``visit`` only if it was made with this version's own profiles and settings."""
        if self.visit is None or self.visit.like.checkpoint is not version.checkpoint:
            self.visit, self.covered = None, 0

    def ended(self, now: float) -> float | None:
        """The time at which the session ended; None while it goes on."""
        if self.left_after >= 0:
            return next(x.received for x in self.events.values() if x.signal == LEAVE)
        if len(self.steps) >= self.interface.session_length:
            return self.decisions[-1].time
        timeout = self.row.timeout
        if self.over is None and is_over(self.latest, timeout, now):
            self.over = self.latest + timeout
        return self.over

    def matured(self, now: float) -> bool:
        """True if no more feedback counts."""
        ended = self.ended(now)
        return ended is not None and is_over(ended, self.row.window, now)

    def consumed(self, full: Sequence[float]) -> list[int]:
        """The items of which the user consumed at least half, in their order.

        ``full`` (S,) has the signals of an item that is consumed in full. The mean of the shares counts, over
        the signals that are not 0 there.
        """
        found: dict[int, None] = {}
        for step in self.steps:
            shares = [*zip(step.items, step.signals, strict=True), *step.left.items()]
            for item, values in shares:
                parts = [value / most for value, most in zip(values, full, strict=True) if most]
                if parts and 2 * sum(parts) >= len(parts):
                    found[item] = None
        return [*found]

    @property
    def truncated(self) -> bool:
        """True if the platform's last step ended the session, and not the user."""
        return self.left_after < 0 and len(self.steps) >= self.interface.session_length


def is_over(since: float, seconds: float, now: float) -> bool:
    """True if these seconds have passed ``since`` then.

    Also if that lies as far ahead: the clock of an earlier process was wrong, maybe by years. That of one
    process goes ahead alone (clock.py).
    """
    return abs(now - since) >= seconds
