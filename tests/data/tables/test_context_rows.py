"""Contexts of requests are encoded as those of a table."""

from __future__ import annotations

import polars as pl
import pytest
import torch

from recsys_rl.data.tables.cells import Cells
from recsys_rl.data.tables.context_rows import ContextRows, encoded
from recsys_rl.data.tables.pieces import Piece, seen_pieces, tensors
from recsys_rl.data.tables.values import in_table, label
from recsys_rl.errors import UserError


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
    # The example of a request holds the median age, 40, and not the middle of the range, 55.
    assert contexts.tensors([contexts.example])["age"].item() == pytest.approx(-10 / (2600 / 3) ** 0.5)


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


@pytest.mark.parametrize(
    "text",
    ["12", "7", "007", "1,5", "true", "a|3", "inf", "[1]", "1]", "[[2", "a|1]", "[a; 1 ]", "[]", "[ ]"],
)
def test_texts_that_a_table_would_take_for_numbers_stand_in_quotation_marks(text: str) -> None:
    """Alone in a column they would make it one of numbers, or of lists, or be a gap."""
    assert in_table(text) == f'"{text}"' and label(in_table(text)) == text
    seen = seen_pieces(table(x=[in_table(text), in_table("zebra"), in_table("zebra")]))["x"]
    assert (seen.kind, dict(seen.texts)) == ("text", {text: 1, "zebra": 2})
    piece, _ = seen.piece("x")
    assert piece.tensor(table(x=[text, in_table(text), "8"])).argmax(1).tolist() == [0, 0, 2]
    assert [int(encoded([piece], {"x": x})["x"].argmax()) for x in (text, in_table(text), "8")] == [0, 0, 2]
    for fits in ("desk", "7th", "a, b", "no 3", "v2", "[a]", "a [1"):
        assert in_table(fits) == fits


@pytest.mark.parametrize("text", ["", " ", "nan", "NULL"])
def test_a_text_that_a_table_would_take_for_a_gap_is_refused(text: str) -> None:
    piece, _ = seen_pieces(table(x=["desk", "phone"]))["x"].piece("x")
    with pytest.raises(UserError):
        encoded([piece], {"x": text})


def test_true_and_false_are_numbers_where_the_log_has_none_but_0_to_1() -> None:
    log = table(member=[True, False, True], share=["0.5", "true", "0"], age=[20, 1, 0], pair=[[0, 1]] * 3)
    contexts = ContextRows([seen.piece(name)[0] for name, seen in seen_pieces(log).items()])
    sound: dict[str, object] = {"member": True, "share": False, "age": 1, "pair": [True, 0]}
    row = contexts.row(sound)
    assert row == (1, 0, 1, 1, 0) and not any(type(x) is bool for x in row)
    with pytest.raises(UserError):  # ages go up to 20
        contexts.row({**sound, "age": True})
