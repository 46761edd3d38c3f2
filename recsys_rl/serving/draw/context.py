"""The context of a request: the named pieces of a team's own log, or the hour of the week."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from recsys_rl.data.tables.pieces import Piece
from recsys_rl.data.tables.values import is_gap
from recsys_rl.errors import UserError
from recsys_rl.recommender.visit import NOON
from recsys_rl.serving.draw.versions import Version
from recsys_rl.serving.field_errors import field_error
from recsys_rl.serving.messages import Hour, PieceValue, Problem
from recsys_rl.serving.record.record_schema import PieceInRecord, Pieces


class Context(NamedTuple):
    """The context of one request, checked."""

    hour: float  # of the week; NOON where the policy does not see it
    pieces: Pieces = ()
    row: tuple[float, ...] = ()  # the numbers of the pieces (``ContextRows.row``)


def context_of(context: Mapping[str, PieceValue], version: Version, now: float) -> Context:
    """The context of a request to ``version``. Raises Problem."""
    if version.contexts is None:
        return Context(_hour_of(context, version, now))
    try:
        row = version.contexts.row(context)
    except UserError as error:
        raise Problem(422, "wrong-context", str(error)) from None
    given = [context.get(name) for name in version.contexts.alphabetical]
    values = tuple(value if type(value) is float else _kept(value) for value in given)
    if not version.decides:
        by_name = dict(zip(version.contexts.alphabetical, values, strict=True))
        for piece in version.contexts.pieces:
            _check(piece, by_name[piece.name])
    return Context(NOON, values, row)


def _kept(value: PieceValue) -> PieceInRecord:
    """A checked value as the record keeps it, without a difference between the ways to leave it out."""
    if isinstance(value, list):
        return tuple(map(float, value)) or None
    if isinstance(value, str):
        return None if is_gap(value) else value
    return value if value is None else float(value)


def row_of(pieces: Pieces, version: Version) -> tuple[float, ...]:
    """The row of a context of the record, for any version of its platform."""
    return () if version.contexts is None else version.contexts.row(named(pieces, version), recorded=True)


def named(pieces: Pieces, version: Version) -> dict[str, PieceValue]:
    """The pieces of a context of the record by their names."""
    if version.contexts is None:
        return {}
    values = [[*value] if isinstance(value, tuple) else value for value in pieces]
    return dict(zip(version.contexts.alphabetical, values, strict=True))


def schema_of_context(version: Version) -> dict[str, Any]:
    """The JSON schema of the context of requests to ``version``."""
    if version.contexts is None:
        schema: dict[str, Any] = msgspec.json.schema_components([Hour])[1]["Hour"]
        return schema
    pieces = version.contexts.pieces
    return {
        "type": "object",
        "properties": {piece.name: _schema_of(piece) for piece in pieces},
        "required": [piece.name for piece in pieces if not piece.gaps],
        "additionalProperties": False,
    }


def _schema_of(piece: Piece) -> dict[str, Any]:
    about = {"description": piece.rule, "examples": [piece.example]}
    none = ["null"] * piece.gaps
    if piece.kind == "text":
        return {"type": ["string", *none], **about}
    truths = ["boolean"] * (min(piece.low) >= 0 and max(piece.high) <= 1)
    if piece.kind == "number":
        low, high = piece.bounds[0]
        return {"type": ["number", *truths, *none], "minimum": low, "maximum": high, **about}
    sizes = {"minItems": 0 if piece.gaps else piece.size, "maxItems": piece.size}
    return {"type": ["array", *none], "items": {"type": ["number", *truths]}, **sizes, **about}


def _hour_of(context: Mapping[str, PieceValue], version: Version, now: float) -> float:
    """The hour of the week of a request; NOON where the policy does not see it. Raises Problem."""
    given = None
    if context:
        try:
            given = msgspec.convert(context, Hour).hour
        except msgspec.ValidationError as error:
            raise Problem(422, "wrong-field", field_error(error, context, Hour, "context")) from None
    if given is not None and not version.by_hour:
        raise Problem(422, "no-hour", "context.hour: this policy does not see the hour: leave it out.")
    if given is not None:
        return given
    if not version.by_hour:
        return NOON
    moment = datetime.fromtimestamp(now)
    return 24 * moment.weekday() + moment.hour + moment.minute / 60


def _check(piece: Piece, value: PieceInRecord) -> None:
    """Raise Problem for a number out of the range that the place describes."""
    if value is None or isinstance(value, str):
        return
    numbers = value if isinstance(value, tuple) else (value,)
    for number, low, high in zip(numbers, piece.low, piece.high, strict=True):
        if not low <= number <= high:
            why = f"context.{piece.name} is {number:g}: it must be from {low:g} to {high:g}."
            raise Problem(422, "wrong-context", why)
