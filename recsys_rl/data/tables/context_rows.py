"""Contexts of requests, values by the names of their pieces, encoded as pieces.py encodes a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from recsys_rl.data.tables.pieces import Piece
from recsys_rl.data.tables.values import is_gap, label
from recsys_rl.errors import UserError, listed, short

_NUMBERS = (int, float)


class ContextRows:
    """The encoding of contexts with these pieces.

    ``row`` makes no tensor, as a server has one context at a time; ``tensors`` takes those of a batch.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = tuple(pieces)
        self.names = tuple(piece.name for piece in pieces)
        self.alphabetical = tuple(sorted(self.names))
        self._bounds = {piece.name: piece.bounds for piece in pieces}
        self._codes = {piece.name: _codes(piece) for piece in pieces}
        nothing = 1.0, -1.0  # no number lies between these
        plain = [piece.kind == "number" and not piece.gaps for piece in pieces]
        ends = [piece.bounds[0] if one else nothing for piece, one in zip(pieces, plain, strict=True)]
        self._parts = [(piece.name, *end, piece) for piece, end in zip(pieces, ends, strict=True)]
        self._optional = any(piece.gaps for piece in pieces)
        self._sizes = [piece.size for piece in pieces]
        scaling = [piece.scaling for piece in pieces]
        shift, scale = ([x for of in scaling for x in of[k]] for k in range(2))
        self._shift, self._scale = torch.tensor([shift, scale], dtype=torch.float64)  # (n,) each

    def row(self, context: Mapping[str, object], recorded: bool = False) -> tuple[float, ...]:
        """(n,) the numbers of all pieces, and a text's code of zeros and a one, in the order of the pieces.

        ``recorded``: another version took the context, and knows gaps that this one does not: these are the
        example of the piece, or another text.

        Raises UserError for a missing piece, unless its column has gaps, for one that is not of the log, and
        for a wrong value.
        """
        row: list[float] = []
        if self._optional or len(context) > len(self.pieces):
            strange = next((name for name in context if name not in self._codes), None)
            if strange is not None:
                known = listed(self.names) or "none"
                raise UserError(f"context has no piece {short(strange)}: it has {known}.")
        for name, low, high, piece in self._parts:
            value = context.get(name)
            if type(value) is float and low <= value <= high:  # many pieces are single numbers
                row.append(value)
            else:
                if recorded and value is None and not piece.gaps:
                    value = "other than any" if piece.kind == "text" else piece.example
                row += self._numbers_of(piece, value, recorded or name in context)
        return tuple(row)

    def _numbers_of(self, piece: Piece, value: object, given: bool) -> Sequence[float]:
        """The numbers of a piece in a row. Raises UserError."""
        if piece.gaps and is_missing(piece, value):
            return piece.missing
        if not given:
            raise UserError(f"context lacks {piece.name}: give {piece.rule}.")
        codes, bounds = self._codes[piece.name], self._bounds[piece.name]
        if codes is not None and isinstance(value, str) and not is_gap(value):
            return codes.get(label(value), codes[None])
        several = isinstance(value, list | tuple)
        numbers: Sequence[Any] = value if several else (value,)  # type: ignore[assignment]
        if piece.low and min(piece.low) >= 0 and max(piece.high) <= 1:  # maybe of a column of true and false
            numbers = [float(x) if type(x) is bool else x for x in numbers]
        if (
            several != (piece.kind == "list")
            or len(numbers) != len(bounds)
            or not all(
                type(x) in _NUMBERS and low <= x <= high
                for x, (low, high) in zip(numbers, bounds, strict=True)
            )
        ):
            raise UserError(f"context.{piece.name} is {short(value)}: give {piece.rule}.")
        return (*numbers, 0.0) if piece.mean else numbers

    @property
    def example(self) -> tuple[float, ...]:
        """(n,) the row of the examples of all pieces."""
        return self.row({piece.name: piece.example for piece in self.pieces})

    def tensors(self, rows: Sequence[Sequence[float]]) -> dict[str, Tensor]:
        """The pieces (N, size) float32 of N rows, by name."""
        values = torch.tensor(rows, dtype=torch.float64).view(len(rows), len(self._shift))
        scaled = ((values - self._shift) / self._scale).float()
        return {
            piece.name: part for piece, part in zip(self.pieces, scaled.split(self._sizes, 1), strict=True)
        }


def is_missing(piece: Piece, value: object) -> bool:
    """True if a table with this value has a gap there."""
    if piece.kind == "text":
        return value is None or (isinstance(value, str) and is_gap(value))
    return value is None or (piece.kind == "list" and value == [])


def _codes(piece: Piece) -> dict[str | None, tuple[float, ...]] | None:
    """The code of each text, and of None, which stands for all others; None for numbers."""
    if piece.kind != "text":
        return None
    ends = [*piece.values, None]
    return {text: tuple(float(at == place) for at in range(piece.size)) for place, text in enumerate(ends)}


def encoded(pieces: Sequence[Piece], context: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors (size,) of the pieces of one request, by name. Raises the errors of ``ContextRows.row``."""
    contexts = ContextRows(pieces)
    return {name: rows[0] for name, rows in contexts.tensors([contexts.row(context)]).items()}
