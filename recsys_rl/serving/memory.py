"""The people and the sessions in memory. The record has all of them; here are the latest."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

from recsys_rl.serving.record.record_schema import Decision, Person, SessionRows
from recsys_rl.serving.record.store_reader import StoreReader
from recsys_rl.serving.session_state import SessionState
from recsys_rl.types import Interface

MOST_PEOPLE = 10_000  # in memory


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
    """Within a transaction the sessions here are ahead of the record, so none is forgotten before its end."""

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
