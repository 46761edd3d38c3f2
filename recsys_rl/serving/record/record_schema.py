"""The schema of the record: its rows as structs, and the tables of SQLite that hold them.

A table has each row whole, as msgpack, beside the few columns that are searched. A decision stands beside all
that is needed to make it again.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

LEAVE = -1
"""``Event.signal`` of a user who left."""
APPLICATION = 0x5253524C  # "RSRL", in the header of the file
OLDEST, FORMAT = 3, 6
"""The lowest format that this version reads, and the one that it writes."""
TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE people (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, digest INTEGER NOT NULL);
CREATE TABLE policies (number INTEGER PRIMARY KEY, row BLOB NOT NULL, digest INTEGER NOT NULL);
CREATE TABLE sessions (number INTEGER PRIMARY KEY, person INTEGER NOT NULL, row BLOB NOT NULL,
                       tally INTEGER NOT NULL DEFAULT 0, digest INTEGER NOT NULL DEFAULT 0);
CREATE INDEX sessions_of ON sessions (person);
CREATE TABLE decisions (number INTEGER PRIMARY KEY, session INTEGER NOT NULL, request TEXT UNIQUE,
                        row BLOB NOT NULL);
CREATE INDEX decisions_of ON decisions (session);
CREATE TABLE events (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, session INTEGER NOT NULL,
                     row BLOB NOT NULL);
CREATE INDEX events_of ON events (session);
CREATE TABLE releases (number INTEGER PRIMARY KEY, row BLOB NOT NULL, digest INTEGER NOT NULL);
"""
ITEMS = """
CREATE TABLE IF NOT EXISTS items (number INTEGER PRIMARY KEY, row BLOB NOT NULL, digest INTEGER NOT NULL)
"""
"""The table that records of format 5 and below lack."""


class Person(Struct, array_like=True, frozen=True):
    number: int
    name: str


class ServedPolicy(Struct, array_like=True, frozen=True):
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
    population_row: int  # the person's row in the population; -1 for a stranger
    likes: tuple[int, ...]  # rows of the catalogue from which a stranger's profile is made
    timeout: float  # seconds without a request or an event after which it has ended
    window: float  # seconds after its end in which feedback counts


Arm = Literal["", "champion", "challenger"]
Unit = Literal["session", "user"]
ReleaseKind = Literal["alias", "start", "share", "promote", "freeze", "back", "stop"]
PieceInRecord = float | str | tuple[float, ...] | None
Pieces = tuple[PieceInRecord, ...]
"""The pieces of a context, as the request gave them, in the alphabetical order of their names; None: none."""


class Decision(Struct, array_like=True, frozen=True):
    """One answer. Rows of all kinds share one count, so it saw exactly the rows with lower numbers."""

    number: int
    session: int
    step: int  # steps of the session before it; a list of n single items takes n steps
    time: float
    policy: int  # ServedPolicy.number; of an application's decision: the version that served meanwhile, or 0
    request: str  # the caller's id; "" for none
    request_digest: str  # of the whole request; "" without an id of the caller
    hour: float  # of the week
    items: tuple[int, ...]  # rows of the catalogue, in the order of the places
    # Of each place given those before it, under the whole rule. An application may give one of the whole
    # slate, or none.
    logprobs: tuple[float, ...]
    uniforms: tuple[float, ...]  # the numbers in [0, 1) that drew them; () where an application chose
    explore: float  # probability of a uniform choice, which the rule mixes in
    candidates: tuple[int, ...] | None  # the only items that could be shown; None: all
    exclude: tuple[int, ...]  # items of the request that could not be shown
    degraded: str  # why popularity chose; "" if the policy did
    answer: bytes
    application: str = ""  # the name of the application that chose; "" if the policy or popularity did
    context: Pieces = ()
    arm: Arm = ""  # of the release under way, to which the session belongs; "" outside of a release
    arm_probability: float = 1.0  # with which the session, or its person, got this arm
    new_items: float = 0.0  # probability of an item that the training never showed, which the rule mixes in

    @property
    def propensity(self) -> float | None:
        """The probability of all items in this order; None if it is unknown."""
        return math.exp(sum(self.logprobs)) if self.logprobs else None


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
        """The fields in which two events with one id must be equal."""
        return self.decision, self.place, self.left, self.signal, self.value


class Release(Struct, array_like=True, frozen=True):
    """One action of a release. All rows in their order give its state (arms.py)."""

    number: int
    time: float  # seconds since 1970
    kind: ReleaseKind
    champion: str  # SHA-256 of the version that serves from this row on
    challenger: str  # SHA-256 of the version that the row is about; "" for none
    share: float  # of the challenger from this row on
    unit: Unit  # that gets an arm
    reason: str
    verdict: str  # JSON, of what the action was based on; "" for nothing


class ItemChange(Struct, array_like=True, frozen=True):
    """One change of the items of a team's own place. All rows in their order give its stock (stock.py)."""

    number: int
    row: int  # of the item in the catalogue: 0, 1, ... in the order in which the items came
    kind: Literal["add", "withdraw"]
    id: str
    time: float  # seconds since 1970
    title: str  # "" of a withdrawal
    features: dict[str, float | str | list[float | str]]  # by column; {} of a withdrawal


Row = Person | ServedPolicy | Session | Decision | Event | Release | ItemChange


class SessionRows(NamedTuple):
    """A session with its rows, each kind in ascending order of the numbers."""

    session: Session
    decisions: list[Decision]
    events: list[Event]

    def decision(self, number: int) -> Decision | None:
        """The decision of this number; None if the session has no such one."""
        return next((decision for decision in self.decisions if decision.number == number), None)


class Damaged(Exception):
    """Rows of a session are missing, changed or doubled."""


INSERT = {
    Person: "INSERT INTO people VALUES (?, ?, ?)",
    ServedPolicy: "INSERT INTO policies VALUES (?, ?, ?)",
    Session: "INSERT INTO sessions (number, person, row) VALUES (?, ?, ?)",
    Decision: "INSERT INTO decisions VALUES (?, ?, ?, ?)",
    Event: "INSERT INTO events VALUES (?, ?, ?, ?)",
    Release: "INSERT INTO releases VALUES (?, ?, ?)",
    ItemChange: "INSERT INTO items VALUES (?, ?, ?)",
}
UNREADABLE = (msgspec.MsgspecError, TypeError, ValueError)
"""Errors of a row whose bytes or whose type were changed."""
DECODERS: dict[type, msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(kind)
    for kind in (Session, Decision, Event, ServedPolicy, Release, ItemChange)
}
R = TypeVar("R", Session, Decision, Event, ServedPolicy, Release, ItemChange)
DIGEST_BITS = (1 << 62) - 1  # the sum of two such numbers fits into an integer of SQLite
_encode = msgspec.msgpack.Encoder().encode


def encoded(row: Row) -> bytes:
    """The row as bytes."""
    return _encode(row)


def decoded(kind: type[R], content: bytes) -> R:
    """The row of these bytes. Raises Damaged."""
    try:
        row: R = DECODERS[kind].decode(content)
        return row
    except UNREADABLE as error:
        raise Damaged("a row can't be read") from error


def digest(content: bytes) -> int:
    """A number of 62 bits for an encoded row. Those of a session are summed, so their order is free."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") & DIGEST_BITS


def is_person(number: int, name: object, wanted: int) -> bool:
    """True if the row of a person has this digest."""
    return isinstance(name, str) and digest(encoded(Person(number, name))) == wanted


def columns_of(rows: Sequence[Row]) -> tuple[dict[type[Row], list[tuple[Any, ...]]], dict[int, list[int]]]:
    """The values of INSERT by kind, and the number of rows and the sum of their digests by session."""
    columns: dict[type[Row], list[tuple[Any, ...]]] = defaultdict(list)
    sums: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        content = encoded(row)
        if isinstance(row, Decision):
            columns[Decision].append((row.number, row.session, row.request or None, content))
            session = row.session
        elif isinstance(row, Event):
            columns[Event].append((row.number, row.id, row.session, content))
            session = row.session
        elif isinstance(row, Session):
            columns[Session].append((row.number, row.person, content))
            session = row.number
        else:
            column = row.name if isinstance(row, Person) else content
            columns[type(row)].append((row.number, column, digest(content)))
            continue
        total = sums[session]
        total[0] += 1
        total[1] += digest(content)
    return columns, sums
