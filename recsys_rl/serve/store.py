"""The record as the server sees it: a few functions, so that another database can take SQLite's place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from recsys_rl.serve.rows import Decision, Event, Person, Row, Served, Whole


class Damaged(Exception):
    """Rows of a session are missing, changed or doubled."""


class Full(Exception):
    """The disk has no room. Nothing of the transaction was written."""


class Lost(Exception):
    """A write failed in another way. What is on the disk is unknown: another process must read it again."""


class Store(Protocol):
    """One thread at a time calls it."""

    last: int
    """The highest number of any row."""

    def person(self, name: str) -> tuple[Person, Whole | None] | None:
        """A person with the latest session, or None. Raises Damaged."""
        ...

    def session(self, number: int) -> Whole | None:
        """Raises Damaged."""
        ...

    def decision(self, number: int) -> tuple[Whole, Decision] | None:
        """A decision with its session; None if there is none. Raises Damaged."""
        ...

    def answered(self, request: str) -> Decision | None:
        """The decision of the caller's request id. Raises Damaged."""
        ...

    def latest(self, number: int) -> tuple[list[tuple[Decision, str, int]], list[int]]:
        """The last decisions, the latest first, and the numbers of those among them whose session is damaged.

        With each decision come the person's name and the number of events. Raises Damaged.
        """
        ...

    def event(self, id: str) -> Event | None:
        """Raises Damaged."""
        ...

    def write(self, rows: Sequence[Row], durable: bool) -> None:
        """One transaction; ``durable``: it is on the disk when the call returns. Raises Full, Lost."""
        ...

    def policies(self) -> list[Served]: ...

    def people(self) -> Sequence[Person]:
        """Raises Damaged."""
        ...

    def sessions(self) -> Sequence[int]:
        """The numbers of all sessions, ascending."""
        ...

    def fact(self, name: str, value: Any) -> None:
        """Keep a fact that may change, such as the champion. Raises Full, Lost."""
        ...

    def erase(self, name: str) -> int:
        """Delete a person with all rows. Returns the number of decisions.

        Raises UserError if unknown, or if old rows may remain somewhere; Damaged, Full, Lost.
        """
        ...

    def close(self) -> None: ...
