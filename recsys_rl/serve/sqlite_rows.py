"""Rows as SQLite keeps them: whole as msgpack, beside the few columns that are searched."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from recsys_rl.serve.rows import Decision, Event, Person, Row, Served, Session, digest, packed
from recsys_rl.serve.store import Damaged

INSERT = {
    Person: "INSERT INTO people VALUES (?, ?, ?)",
    Served: "INSERT INTO policies VALUES (?, ?, ?)",
    Session: "INSERT INTO sessions (number, person, row) VALUES (?, ?, ?)",
    Decision: "INSERT INTO decisions VALUES (?, ?, ?, ?)",
    Event: "INSERT INTO events VALUES (?, ?, ?, ?)",
}
UNREADABLE = (msgspec.MsgspecError, TypeError, ValueError)
"""Errors of a row whose bytes or whose type were changed."""
DECODERS: dict[type, msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in (Session, Decision, Event, Served)
}
R = TypeVar("R", Session, Decision, Event, Served)


def decoded(kind: type[R], row: bytes) -> R:
    """The row. Raises Damaged."""
    try:
        found: R = DECODERS[kind].decode(row)
        return found
    except UNREADABLE as error:
        raise Damaged("a row can't be read") from error


def is_person(number: int, name: object, wanted: int) -> bool:
    """True if the row of a person has this digest."""
    return isinstance(name, str) and digest(packed(Person(number, name))) == wanted


def columns_of(rows: Sequence[Row]) -> tuple[dict[type[Row], list[tuple[Any, ...]]], dict[int, list[int]]]:
    """The values of INSERT by kind, and the number of rows and the sum of their digests by session."""
    columns: dict[type[Row], list[tuple[Any, ...]]] = defaultdict(list)
    sums: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        whole = packed(row)
        if isinstance(row, Decision):
            columns[Decision].append((row.number, row.session, row.request or None, whole))
            session = row.session
        elif isinstance(row, Event):
            columns[Event].append((row.number, row.id, row.session, whole))
            session = row.session
        elif isinstance(row, Session):
            columns[Session].append((row.number, row.person, whole))
            session = row.number
        else:
            column = row.name if isinstance(row, Person) else whole
            columns[type(row)].append((row.number, column, digest(whole)))
            continue
        total = sums[session]
        total[0] += 1
        total[1] += digest(whole)
    return columns, sums
