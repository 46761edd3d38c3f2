"""Contexts of requests, values by the names of their pieces, encoded as tables/pieces.py encodes a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from recsys_rl.errors import UserError, listed, short
from recsys_rl.tables.pieces import Piece

_NUMBERS = (int, float)


class ContextRows:
    """The encoding of contexts with these pieces.

    ``row`` makes no tensor, as a server has one context at a time; ``tensors`` takes those of a batch.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = tuple(pieces)
        self.names = tuple(piece.name for piece in pieces)
        self.alphabetical = tuple(sorted(self.names))
        self.has_lists = any(piece.kind == "list" for piece in pieces)
        self._bounds = {piece.name: piece.bounds for piece in pieces}
        self._codes = {piece.name: _codes(piece) for piece in pieces}
        nothing = 1.0, -1.0  # no number lies between these
        ends = [piece.bounds[0] if piece.kind == "number" else nothing for piece in pieces]
        self._parts = [(piece.name, *end, piece) for piece, end in zip(pieces, ends, strict=True)]
        self.texts = tuple(piece for piece in pieces if piece.kind == "text")
        self._sizes = [piece.size for piece in pieces]
        shift = [x for piece in pieces for x in piece.shift or (0.0,) * piece.size]
        scale = [x for piece in pieces for x in piece.scale or (1.0,) * piece.size]
        self._shift, self._scale = torch.tensor([shift, scale], dtype=torch.float64)  # (n,) each

    def row(self, context: Mapping[str, object]) -> tuple[float, ...]:
        """(n,) the numbers of all pieces, and a text's code of zeros and a one, in the order of the pieces.

        Raises UserError for a missing piece, for one that is not of the log, and for a wrong value.
        """
        row: list[float] = []
        if len(context) > len(self.pieces):
            strange = next(name for name in context if name not in self.names)
            raise UserError(f"context has no piece {short(strange)}: it has {listed(self.names) or 'none'}.")
        for name, low, high, piece in self._parts:
            value = context.get(name)
            if type(value) is float and low <= value <= high:  # many pieces are single numbers
                row.append(value)
            else:
                row += self._numbers_of(piece, value, name in context)
        return tuple(row)

    def _numbers_of(self, piece: Piece, value: object, given: bool) -> Sequence[float]:
        """The numbers of a piece in a row. Raises UserError."""
        if not given:
            raise UserError(f"context lacks {piece.name}: give {piece.rule}.")
        codes, bounds = self._codes[piece.name], self._bounds[piece.name]
        if codes is not None and isinstance(value, str):
            return codes.get(value.strip(), codes[None])
        several = isinstance(value, list | tuple)
        numbers: Sequence[Any] = value if several else (value,)  # type: ignore[assignment]
        if (
            several != (piece.kind == "list")
            or len(numbers) != len(bounds)
            or not all(
                type(x) in _NUMBERS and low <= x <= high
                for x, (low, high) in zip(numbers, bounds, strict=True)
            )
        ):
            raise UserError(f"context.{piece.name} is {short(value)}: give {piece.rule}.")
        return numbers

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


def _codes(piece: Piece) -> dict[str | None, tuple[float, ...]] | None:
    """The code of each text, and of None, which stands for all others; None for numbers."""
    if piece.kind != "text":
        return None
    ends = [*piece.values, None]
    return {text: tuple(float(at == place) for at in range(len(ends))) for place, text in enumerate(ends)}


def encoded(pieces: Sequence[Piece], context: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors (size,) of the pieces of one request, by name. Raises the errors of ``ContextRows.row``."""
    contexts = ContextRows(pieces)
    return {name: rows[0] for name, rows in contexts.tensors([contexts.row(context)]).items()}
