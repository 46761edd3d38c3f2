"""The rows of the record. A decision stands beside all that is needed to make it again."""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import Struct

LEAVE = -1
"""``Event.signal`` of a user who left."""


class Person(Struct, array_like=True, frozen=True):
    number: int
    name: str


class Served(Struct, array_like=True, frozen=True):
    """One policy that decides: a version of a checkpoint, or popularity in its place."""

    number: int
    name: str
    sha256: str
    file: str


class Session(Struct, array_like=True, frozen=True):
    """One visit of a person."""

    number: int
    person: int
    visit: int  # visits of the person before this one
    began: float  # seconds since 1970
    known: int  # the person's row in the population; -1 for a stranger
    likes: tuple[int, ...]  # rows of the catalogue from which a stranger's profile is made
    timeout: float  # seconds without a request or an event after which it has ended
    window: float  # seconds after its end in which feedback counts


class Decision(Struct, array_like=True, frozen=True):
    """One answer. Rows of all kinds share one count, so it saw exactly the rows with lower numbers."""

    number: int
    session: int
    step: int  # steps of the session before it; a list of n single items takes n steps
    time: float
    policy: int  # Served.number
    request: str  # the caller's id; "" for none
    asked: str  # digest of the request; "" without an id of the caller
    hour: float  # of the week
    items: tuple[int, ...]  # rows of the catalogue, in the order of the places
    logprobs: tuple[float, ...]  # of each place given those before it, under the whole rule
    uniforms: tuple[float, ...]  # the numbers in [0, 1) that drew them
    explore: float  # probability of a uniform choice, which the rule mixes in
    candidates: tuple[int, ...] | None  # the only items that could be shown; None: all
    exclude: tuple[int, ...]  # items of the request that could not be shown
    degraded: str  # why popularity chose; "" if the policy did
    answer: bytes


class Event(Struct, array_like=True, frozen=True):
    """One signal of a person."""

    number: int
    id: str
    session: int
    decision: int
    place: int
    left: int  # row of the item that was left; -1: the signal is of the place
    signal: int  # place among the interface's signals, or LEAVE
    value: float
    time: float | None  # by the caller's clock
    received: float

    @property
    def content(self) -> tuple[int, int, int, int, float]:
        """What two events with one id must have in common."""
        return self.decision, self.place, self.left, self.signal, self.value


Row = Person | Served | Session | Decision | Event
Whole = tuple[Session, list[Decision], list[Event]]
"""A session with its rows, each kind in ascending order of the numbers."""

_encode = msgspec.msgpack.Encoder().encode
BITS = (1 << 62) - 1  # the sum of two such numbers fits into an integer of SQLite


def packed(row: Row) -> bytes:
    """The row as bytes."""
    return _encode(row)


def digest(content: bytes) -> int:
    """A number of 62 bits for a packed row. Those of a session are summed, so their order is free."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") & BITS
