"""Encodings of the context of a team's own log: numbers by hand, texts, another order, other files."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import polars as pl
import pytest
import torch

from recsys_rl.data.tables.cells import Cells
from recsys_rl.data.tables.context_rows import encoded
from recsys_rl.data.tables.pieces import (
    MOST_TEXTS,
    Piece,
    merged,
    pieces_of_file,
    pieces_text,
    read_pieces,
    seen_pieces,
)
from recsys_rl.types import UserError


def cells(**columns: Sequence[object]) -> Cells:
    return Cells("log.csv", pl.DataFrame({f"context.{name}": values for name, values in columns.items()}))


def pieces_of(*tables: Cells) -> dict[str, Piece]:
    files = [(f"{number}.csv", seen_pieces(table)) for number, table in enumerate(tables)]
    return {name: seen.piece(name)[0] for name, seen in merged(files).items()}


def test_small_numbers_stay_and_large_ones_are_standardised() -> None:
    pieces = pieces_of(cells(mood=[-1.0, 0.5, 2.0], price=[100, 200, 300]))
    assert (pieces["mood"].shift, pieces["mood"].scale) == ((0.0,), (1.0,))
    deviation = math.sqrt((100**2 + 0 + 100**2) / 3)
    assert pieces["price"].shift == (200.0,) and pieces["price"].scale[0] == pytest.approx(deviation)
    assert (pieces["price"].low, pieces["price"].high) == ((100.0,), (300.0,))
    values = pieces["price"].tensor(cells(price=[100, 250]))
    assert torch.allclose(values, torch.tensor([[-100 / deviation], [50 / deviation]]))


def test_example_is_the_median() -> None:
    """Not the middle of the range, which one rare value moves; of two files about the mean of theirs."""
    lists = [[0.0, 1.0], [1.0, 5.0], [9.0, 6.0], [1.0, 1.0], [1.0, 1.0]]
    pieces = pieces_of(cells(spend=[1.0, 2.0, 3.0, 2.5, 480.0], v=lists))
    assert pieces["spend"].example == 2.5 and pieces["v"].example == [1.0, 1.0]
    two = pieces_of(cells(spend=[1.0, 2.0, 30.0]), cells(spend=[8.0]))
    assert two["spend"].example == pytest.approx((3 * 2 + 8) / 4)
    text = pieces_text([pieces["spend"]])
    assert read_pieces(text)[0].median == (2.5,)
    earlier = [{name: x for name, x in one.items() if name != "median"} for one in json.loads(text)]
    assert read_pieces(json.dumps(earlier))[0].example == 240.5


def test_large_numbers_with_a_small_spread_are_standardised() -> None:
    """Milliseconds of a clock: the mean is far from the values' own differences."""
    start = 1.7e12
    times = [start - 1000, start + 1000] * 50
    lists = [[0.001 * (-1) ** row, time] for row, time in enumerate(times)]
    for tables in (
        [cells(at=times, both=lists)],
        [cells(at=times[n::3], both=lists[n::3]) for n in range(3)],
    ):
        pieces = pieces_of(*tables)
        assert pieces["at"].shift[0] == pytest.approx(start, abs=0.01)
        assert pieces["at"].scale[0] == pytest.approx(1000, rel=1e-6)
        assert pieces["both"].scale == pytest.approx((0.001, 1000), rel=1e-6)
        values = pieces["at"].tensor(cells(at=[start - 1000, start, start + 2000]))
        assert values.squeeze(1).tolist() == pytest.approx([-1, 0, 2], abs=1e-4)


def test_a_log_with_a_number_that_no_network_bears_is_refused() -> None:
    for values in ([1.0, 1e300], [[1.0, 1.0], [1.0, -1e300]]):
        with pytest.raises(UserError):
            seen_pieces(cells(v=values))


def test_a_constant_number_is_no_division_by_zero() -> None:
    piece = pieces_of(cells(year=[2026, 2026]))["year"]
    assert piece.tensor(cells(year=[2026, 2027])).tolist() == [[0.0], [1.0]]


def test_texts_have_codes_in_alphabetical_order_and_new_ones_are_other() -> None:
    piece = pieces_of(cells(device=["phone", "desk", "phone"]))["device"]
    assert piece.values == ("desk", "phone") and piece.size == 3
    table = cells(device=["phone", "watch", " desk "])
    assert piece.tensor(table).tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert piece.unknown(table) == 1


def test_the_rarest_texts_are_other() -> None:
    texts = [
        f"t{number:03}" for number in range(MOST_TEXTS + 5) for _ in range(2 if number < MOST_TEXTS else 1)
    ]
    piece, note = seen_pieces(cells(city=texts))["city"].piece("city")
    assert piece.values == tuple(f"t{number:03}" for number in range(MOST_TEXTS)) and "5 rarest" in note


def test_the_most_frequent_texts_keep_their_codes_wherever_they_stand_in_the_alphabet() -> None:
    rare, common = [f"a{number:02}" for number in range(3)], [f"b{number:02}" for number in range(MOST_TEXTS)]
    piece, _ = seen_pieces(cells(city=rare + 2 * common))["city"].piece("city")
    assert piece.values == tuple(common)
    assert piece.tensor(cells(city=["a00", "b00"])).argmax(1).tolist() == [MOST_TEXTS, 0]


def test_equally_frequent_texts_are_chosen_by_the_alphabet_in_any_order_of_the_rows() -> None:
    texts = [f"t{number:03}" for number in range(2 * MOST_TEXTS)]
    for order in (texts, texts[::-1], texts[1::2] + texts[::2]):
        assert pieces_of(cells(city=order))["city"].values == tuple(texts[:MOST_TEXTS])


def test_two_files_are_encoded_as_one() -> None:
    one = cells(price=[100, 200, 300, 400], device=["a", "b", "c", "a"], sizes=["[1, 2]", "[3, 4]"] * 2)
    first = cells(price=[100, 200], device=["a", "b"], sizes=["[1, 2]", "[3, 4]"])
    second = cells(device=["c", "a"], sizes=["[1, 2]", "[3, 4]"], price=[300, 400])
    assert pieces_of(first, second) == pieces_of(one)
    assert pieces_of(one)["sizes"].size == 2


def test_the_text_of_the_settings_and_a_single_request_give_the_same_numbers() -> None:
    table = cells(price=[100, 250, 300], device=["a", "b", "a"], sizes=["[1, 20]", "[3, 40]", "[5, 60]"])
    pieces = list(pieces_of(table).values())
    assert list(read_pieces(pieces_text(pieces))) == pieces
    request = encoded(pieces, {"sizes": [3, 40], "device": "b", "price": 250})
    assert all(torch.equal(request[piece.name], piece.tensor(table)[1]) for piece in pieces)


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"price": "many", "device": "a"},
        {"price": math.nan, "device": "a"},
        {"price": [1.0], "device": "a"},
        {"price": 1, "device": 3},
        {"price": 1, "device": "a", "age": 4},
    ],
)
def test_a_wrong_request_is_refused(context: dict[str, object]) -> None:
    pieces = list(pieces_of(cells(price=[1, 2], device=["a", "b"])).values())
    with pytest.raises(UserError):
        encoded(pieces, context)


@pytest.mark.parametrize(
    "other", [cells(price=["a"]), cells(price=["[1, 2]"]), cells(prices=[1]), cells(price=[1], age=[2])]
)
def test_files_with_other_pieces_are_refused(other: Cells) -> None:
    with pytest.raises(UserError):
        pieces_of(cells(price=[1, 2]), other)


@pytest.mark.parametrize("values", [["[1, 2]", "[1]"], [1, None], ["a", ""], [1, "x"]])
def test_wrong_cells_are_refused(values: list[object]) -> None:
    table = Cells("log.csv", pl.DataFrame({"context.v": [str(v) if v is not None else None for v in values]}))
    with pytest.raises(UserError):
        seen_pieces(table)


@pytest.mark.parametrize("value", [1e300, -1e300, 1e9])
def test_a_number_that_no_request_may_have_is_refused_in_a_table_too(value: float) -> None:
    """Small numbers stay as they are, so that a million is the most."""
    pieces = pieces_of(cells(price=[1.0, 3.0], sizes=[[1.0, 2.0], [3.0, 4.0]]))
    edge = pieces["price"].tensor(cells(price=[1.0, 1e6]))
    assert edge.tolist() == [[1.0], [1e6]]
    for name, values in (("price", [1.0, value]), ("sizes", [[1.0, 2.0], [1.0, value]])):
        with pytest.raises(UserError) as caught:
            pieces[name].tensor(cells(**{name: values}))
        assert f"context.{name}" in str(caught.value) and "row 2" in str(caught.value)


@pytest.mark.parametrize(
    "series",
    [
        pl.Series([[], []], dtype=pl.List(pl.Float64)),
        pl.Series([["a", "b"], ["c", "d"]]),
        pl.Series([["a", "b"], ["c", "d"]], dtype=pl.Array(pl.String, 2)),
        pl.Series([{"a": 1}, {"a": 2}]),
    ],
)
def test_columns_of_parquet_that_are_no_piece_are_refused(series: pl.Series) -> None:
    with pytest.raises(UserError) as caught:
        seen_pieces(Cells("log.parquet", series.alias("context.v").to_frame()))
    assert "context.v" in str(caught.value)


@pytest.mark.parametrize(
    "section",
    [
        {"kind": "number", "low": -(10**400)},
        {"kind": "number", "low": 1, "high": -1},
        {"kind": "number", "low": 1, "high": 1},
        {"kind": "list", "size": 2, "low": math.nan},
        {"kind": "text", "values": ['"a"', "b"]},
        {"kind": "number", "missing": "yes"},
        {"kind": "text", "values": [" a", "b"]},
        {"kind": "text", "values": ["nan", "b"]},
        {"kind": "text", "values": "abc"},
        {"kind": "text", "values": [1, 2]},
    ],
)
def test_a_section_that_describes_no_piece_is_refused(section: dict[str, object]) -> None:
    sound = pieces_of_file("context.toml", {"v": {"kind": "text", "values": ["xl", "7", "a, b"]}})
    assert sound[0].values == ("7", "a, b", "xl")
    with pytest.raises(UserError):
        pieces_of_file("context.toml", {"v": section})


NUMBER = {"name": "a", "kind": "number", "low": [0], "high": [1], "shift": [0], "scale": [1], "values": []}
TEXT = {"name": "b", "kind": "text", "low": [], "high": [], "shift": [], "scale": [], "values": ["x", "y"]}


@pytest.mark.parametrize(
    "pieces",
    [
        [{"name": "a"}],
        [TEXT | {"values": []}],
        [TEXT | {"values": ["y", "x"]}],
        [TEXT | {"name": "b[0]"}],
        [NUMBER | {"scale": [0]}],
        [NUMBER | {"low": [0, 0]}],
        [NUMBER | {"kind": "word"}],
        [NUMBER, NUMBER],
    ],
)
def test_a_text_that_holds_no_pieces_is_refused(pieces: list[dict[str, object]]) -> None:
    assert len(read_pieces(json.dumps([NUMBER, TEXT]))) == 2
    for text in (json.dumps(pieces), "no JSON"):
        with pytest.raises(UserError):
            read_pieces(text)
