"""The people and the sessions in memory. The record has all of them; here are the latest."""

from __future__ import annotations

from collections import OrderedDict

from recsys_rl.serve.jobs import Visitor
from recsys_rl.serve.rows import Decision, Person, Whole
from recsys_rl.serve.store import Store
from recsys_rl.serve.visits import ServedVisit
from recsys_rl.types import Interface

MOST_PEOPLE = 10_000  # in memory


class Memory:
    """Within a transaction the sessions here are ahead of the record, so none is forgotten before its end."""

    def __init__(self, store: Store, interface: Interface) -> None:
        self.store, self.interface = store, interface
        self.people: OrderedDict[str, Visitor] = OrderedDict()
        self._homes: dict[int, ServedVisit] = {}  # of decisions of people in memory
        self._over: list[ServedVisit] = []  # sessions to forget after the transaction
        self._borrowed: dict[int, ServedVisit] = {}  # of decisions of sessions that are read for it alone
        self._staged: set[int] = set()  # its decisions, which nobody knows yet

    def visitor(self, name: str, known: int) -> Visitor:
        """The person with this name, new or not; ``known`` is the row in the population. Raises Damaged."""
        found = self.people.get(name)
        if found is not None:
            self.people.move_to_end(name)
            return found
        stored = self.store.person(name)
        if stored is None:
            found = Visitor(Person(0, name), known, None, saved=False)
        else:
            row, whole = stored
            found = Visitor(row, known, None if whole is None else self._visit(whole), saved=True)
        self.people[name] = found
        return found

    def _visit(self, whole: Whole) -> ServedVisit:
        # One that was borrowed has the events of this transaction, which the store lacks.
        visit = self._borrowed.get(whole[1][-1].number) if whole[1] else None
        visit = visit or ServedVisit.of(whole, self.interface)
        self._homes.update((decision.number, visit) for decision in visit.decisions)
        return visit

    def home(self, decision: int) -> ServedVisit | None:
        """The session of a decision that was answered. Raises Damaged."""
        if decision in self._staged:
            return None
        visit = self._homes.get(decision) or self._borrowed.get(decision)
        if visit is not None:
            return visit
        found = self.store.decision(decision)
        if found is None:
            return None
        visit = ServedVisit.of(found[0], self.interface)
        # Until the transaction ends: further events of the session must find this one.
        self._borrowed.update((x.number, visit) for x in visit.decisions)
        return visit

    def begin(self, visitor: Visitor, visit: ServedVisit) -> None:
        """``visit`` is the person's session from now on."""
        if visitor.visit is not None:
            self._over.append(visitor.visit)
        visitor.visit = visit

    def decide(self, visit: ServedVisit, decision: Decision) -> None:
        """Add a decision to its session."""
        visit.decide(decision)
        self._homes[decision.number] = visit
        self._staged.add(decision.number)

    def end(self) -> None:
        """The transaction is written: forget sessions that are over, and people beyond MOST_PEOPLE."""
        self._staged.clear()
        self._borrowed.clear()
        while len(self.people) > MOST_PEOPLE:
            oldest = next((x for x, visitor in self.people.items() if not visitor.busy), None)
            if oldest is None:
                break
            visit = self.people.pop(oldest).visit
            if visit is not None:
                self._over.append(visit)
        for visit in self._over:
            for decision in visit.decisions:
                self._homes.pop(decision.number, None)
        self._over.clear()

    def clear(self) -> None:
        """The transaction is lost: forget all."""
        for part in (self.people, self._homes, self._over, self._borrowed, self._staged):
            part.clear()
