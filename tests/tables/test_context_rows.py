"""Contexts of requests are encoded as those of a table."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import torch

from recsys_rl.errors import UserError
from recsys_rl.tables.cells import Cells
from recsys_rl.tables.context_rows import ContextRows, encoded
from recsys_rl.tables.pieces import Piece, seen_pieces, tensors
from recsys_rl.tables.values import fits_a_table


def table(**columns: object) -> Cells:
    return Cells("table", pl.DataFrame({f"context.{name}": values for name, values in columns.items()}))


LOG = table(
    age=[20.0, 40.0, 90.0],  # larger than 10: standardised
    share=[0.5, -0.25, 0.0],  # as it is
    device=["desk", "phone", " desk "],
    taste=[[1.0, 200.0], [0.5, 300.0], [0.0, 700.0]],
)


def pieces() -> tuple[Piece, ...]:
    return tuple(piece.piece(name)[0] for name, piece in seen_pieces(LOG).items())


def test_rows_of_requests_are_the_rows_of_the_table() -> None:
    contexts = ContextRows(pieces())
    requests = [
        {"device": " desk ", "age": 20, "share": 0.5, "taste": [1, 200]},
        {"taste": (0.5, 300.0), "age": 40.0, "share": -0.25, "device": "phone"},
        {"age": 90.0, "share": 0.0, "device": "desk", "taste": [0.0, 700.0]},
    ]
    made = contexts.tensors([contexts.row(request) for request in requests])
    for name, expected in tensors(pieces(), LOG).items():
        assert torch.equal(made[name], expected), name
        assert torch.equal(encoded(pieces(), requests[1])[name], expected[1])
    # The mean of the ages is 50, their variance (30^2 + 10^2 + 40^2) / 3.
    assert made["age"][0, 0].item() == pytest.approx(-30 / (2600 / 3) ** 0.5)
    assert made["device"].tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert contexts.tensors([contexts.row({**requests[0], "device": "tv"})])["device"].tolist() == [[0, 0, 1]]
    assert contexts.tensors([contexts.example])["age"].item() == pytest.approx(5 / (2600 / 3) ** 0.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("age", None),
        ("age", "20"),
        ("age", True),
        ("age", float("nan")),
        ("age", float("inf")),
        ("age", 1e30),
        ("age", [20]),
        ("share", -2e6),
        ("device", 3),
        ("device", ["desk"]),
        ("taste", 0.5),
        ("taste", [0.5]),
        ("taste", [0.5, "1"]),
        ("taste", [0.5, float("nan")]),
        ("height", 3),
    ],
)
def test_a_wrong_value_is_named(name: str, value: object) -> None:
    sound: dict[str, object] = {"age": 20, "share": 0.5, "device": "desk", "taste": [1, 200]}
    contexts = ContextRows(pieces())
    contexts.row(sound)
    with pytest.raises(UserError) as caught:
        contexts.row({**sound, name: value})
    assert name in str(caught.value)
    if name in sound:
        with pytest.raises(UserError):
            contexts.row({key: x for key, x in sound.items() if key != name})


@pytest.mark.parametrize("text", ["", " ", "nan", "NULL", "12", "1,5", "true", "a|3", "inf"])
def test_texts_that_a_table_would_take_for_gaps_or_numbers(text: str, tmp_path: Path) -> None:
    assert not fits_a_table(text)
    for fits in ("desk", "7th", "a, b", "no 3", "v2"):
        assert fits_a_table(fits)
        column = table(x=["phone", fits])
        assert seen_pieces(column)["x"].kind == "text"
    try:
        kind = seen_pieces(table(x=["phone", text]))["x"].kind
    except UserError:
        kind = "list"  # it is none, and so refused
    assert kind != "text"
