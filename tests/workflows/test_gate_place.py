"""A candidate reads the champion's observations in its own encoding of the context."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from recsys_rl.tables.pieces import Piece
from recsys_rl.types import Obs
from recsys_rl.workflows import gate_place


def test_numbers_and_their_gaps_get_the_encoding_of_the_candidates_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    age = Piece("age", "number", (0.0,), (90.0,), (40.0,), (10.0,), gaps=True, mean=(42.0,))
    size = Piece("size", "list", (0.0, 0.0), (9.0, 9.0), (1.0, 2.0), (2.0, 4.0))
    day = Piece("day", "text", values=("mon", "tue"))
    of_champion = (age, size, day)
    of_candidate = (
        replace(age, shift=(30.0,), scale=(5.0,), mean=(33.0,)),
        replace(size, shift=(0.0, 0.0)),
        day,
    )
    monkeypatch.setattr(gate_place, "pieces_of", lambda checkpoint: checkpoint.pieces)

    def encoded(
        pieces: tuple[Piece, ...], rows: list[tuple[list[float], list[float], list[float]]]
    ) -> torch.Tensor:
        columns = zip(pieces, zip(*rows, strict=True), strict=True)
        return torch.cat([piece.scaled(torch.tensor(values).double()) for piece, values in columns], 1)

    known: Any = ([50.0, 0.0], [3.0, 6.0], [0.0, 1.0, 0.0])
    missing = [([*of.missing], [3.0, 6.0], [0.0, 1.0, 0.0]) for of in (of_champion[0], of_candidate[0])]
    champion = SimpleNamespace(
        pieces=of_champion, interface=SimpleNamespace(context=(("age", 2), ("size", 2), ("day", 3)))
    )
    by, plus = gate_place._change(SimpleNamespace(pieces=of_candidate), champion)  # type: ignore[arg-type]
    seen = gate_place.Recoded(None, by, plus).own(Obs(encoded(of_champion, [known, missing[0]])))  # type: ignore[arg-type]
    torch.testing.assert_close(seen.context, encoded(of_candidate, [known, missing[1]]))
