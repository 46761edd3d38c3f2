"""The shape of a team's own log: facts about all its decisions, as the settings of a run hold them."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from recsys_rl.data.tables.item_encoding import ItemEncoding, encoding_text, read_encoding
from recsys_rl.data.tables.pieces import Piece, pieces_text, read_pieces
from recsys_rl.errors import UserError, short
from recsys_rl.logs.decision_table import WINDOW
from recsys_rl.types import is_name


class SignalRange(NamedTuple):
    """The values of a signal in a log."""

    low: float
    high: float
    binary: bool = False  # 0 and 1 are there, and no other


@dataclass(frozen=True)
class LogShape:
    """Facts about all decisions of a log, which the settings of a run hold."""

    pieces: tuple[Piece, ...]  # of the context, in the order of the columns
    signals: tuple[str, ...]
    slate_size: int  # K
    session_length: int  # T: steps of the longest session
    repeats: bool  # False: no session of several steps shows an item twice
    columns: Mapping[str, str] = field(default_factory=dict)  # of each role, in the first file
    ranges: Mapping[str, SignalRange] = field(default_factory=dict)  # of signals; {} before a log
    items: ItemEncoding | None = None  # of the columns of the items; None in files of earlier versions

    @property
    def history_length(self) -> int:
        """L: items in the history of an observation; 0 for sessions of one step."""
        if self.session_length == 1:
            return 0
        items = self.session_length * self.slate_size
        return items if not self.repeats else max(self.slate_size, min(WINDOW, items))


def shape_text(shape: LogShape, weights: Mapping[str, float]) -> str:
    """The shape and the weight of each signal in the reward, as a text of JSON for the settings of a run."""
    return json.dumps(
        {
            "signals": shape.signals,
            "slate_size": shape.slate_size,
            "repeats": shape.repeats,
            "weights": weights,
            "pieces": json.loads(pieces_text(shape.pieces)),
            "columns": dict(shape.columns),
            "ranges": dict(shape.ranges),
            "items": None if shape.items is None else encoding_text(shape.items),
        }
    )


@functools.lru_cache(8)
def read_shape(text: str, session_length: int) -> tuple[LogShape, Mapping[str, float]]:
    """The inverse of ``shape_text``, for sessions of this length. Raises UserError for another text."""
    try:
        shape = json.loads(text)
        signals, slate_size = tuple(map(str, shape.get("signals", ["reward"]))), shape.get("slate_size", 1)
        repeats, weights = shape.get("repeats", True), shape.get("weights", {})
        sound = type(slate_size) is int and slate_size > 0 and type(repeats) is bool and bool(signals)
        pieces = read_pieces(json.dumps(shape.get("pieces", [])))
        numbers = {str(name): float(weight) for name, weight in weights.items()}
        columns = {str(role): str(name) for role, name in shape.get("columns", {}).items()}
        given = {str(name): [*entry] for name, entry in shape.get("ranges", {}).items()}
        ranges = {name: SignalRange(float(x), float(y), z is True) for name, (x, y, z) in given.items()}
        items = None if shape.get("items") is None else read_encoding(shape["items"])
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise UserError(f"The shape of this log can't be read ({short(str(error))}): train again.") from error
    if not sound or not all(map(math.isfinite, numbers.values())):
        raise UserError("The shape of this log can't be read: train again.")
    return LogShape(pieces, signals, slate_size, session_length, repeats, columns, ranges, items), numbers


def check_signals(source: str, names: Sequence[str]) -> None:
    """Raise UserError for a name that a run's file can't hold, and for a name twice; ``source``: of them."""
    wrong = next((name for name in names if not is_name(name)), None)
    if wrong is not None:
        raise UserError(
            f"{source}: {short(wrong)} is not a name of a signal: give letters, digits and signs other than "
            "[ and ]."
        )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{source}: the signal {short(twice)} stands twice: give each name once.")
