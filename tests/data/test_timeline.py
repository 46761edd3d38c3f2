"""Items in time, by hand: a costs 1 from 10 on and 2 from 20 on, b is there from 15 up to 20, c always."""

from __future__ import annotations

import dataclasses

import torch

from recsys_rl.data.tables.item_encoding import ItemEncoding, StockItem
from recsys_rl.data.timeline import ALWAYS, NEVER, ItemTimeline, without_gone
from recsys_rl.types import Catalogue

A, B, A_LATER, C = range(4)
ITEMS = [
    StockItem("a", "a", {}, since=10, until=20),
    StockItem("b", "b", {}, since=15, until=20),
    StockItem("a", "a", {}, since=20),
    StockItem("c", "c", {}),
]


def catalogue(items: list[StockItem] = ITEMS) -> Catalogue:
    return ItemEncoding().catalogue(items, torch.zeros(len(items)), "made up", "time")


def test_a_row_is_there_from_its_first_moment_up_to_its_last() -> None:
    timeline = ItemTimeline.of(catalogue())
    there = timeline.available_at(torch.tensor([9, 10, 14, 15, 19, 20]))
    assert [row.nonzero().squeeze(1).tolist() for row in there] == [
        [C],
        [A, C],
        [A, C],
        [A, B, C],
        [A, B, C],
        [A_LATER, C],  # the moment of an end is the first one without the row
    ]
    assert timeline.available_now.tolist() == [False, False, True, True]
    assert timeline.distinct == ("a", "b", "c")
    assert timeline.ids_available_at(torch.tensor([9, 19, 20])).tolist() == [
        [False, False, True],
        [True, True, True],
        [True, False, True],
    ]


def test_the_row_of_an_id_at_a_moment() -> None:
    timeline = ItemTimeline.of(catalogue())
    assert timeline.row_of == {"a": A_LATER, "b": B, "c": C}
    rows, moments = torch.tensor([A_LATER, A_LATER, A_LATER, B, C]), torch.tensor([10, 19, 20, 30, 0])
    assert timeline.rows_at(rows, moments).tolist() == [A, A, A_LATER, B, C]
    assert timeline.could_show(rows, moments).tolist() == [False, False, True, False, True]
    assert timeline.rows_at(torch.tensor([A_LATER]), torch.tensor([9])).tolist() == [A_LATER]
    assert timeline.first_rows.tolist() == [A, B, A, C]
    alone = torch.tensor([[False, False, True, False]])
    assert timeline.of_same_ids(alone).tolist() == [[True, False, True, False]]


def test_an_id_that_goes_on_is_not_gone_by_its_former_row() -> None:
    laid = without_gone(catalogue())
    there = ItemTimeline.of(laid).available_at(torch.tensor([9, 19, 20]))
    assert [row.nonzero().squeeze(1).tolist() for row in there] == [[C], [A, C], [A_LATER, C]]


def test_without_a_clock_each_row_is_there_at_any_time() -> None:
    undated = ItemTimeline.of(dataclasses.replace(catalogue(), attributes={}))
    assert undated.clock == "" and undated.attributes == {}
    assert undated.available_at(torch.tensor([ALWAYS, 0, NEVER - 1])).all()
