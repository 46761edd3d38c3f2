"""The columns of an exported table, where the team's own names are those that an export uses itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from recsys_rl.serving.at_rest.export_table import TableRow, frame_of, ids_of
from recsys_rl.serving.record.facts import COLUMNS
from recsys_rl.serving.record.record_schema import ItemChange
from recsys_rl.serving.record.stock import Stock


def stock_of(*ids: str) -> Stock:
    return Stock().after([ItemChange(row, row, "add", id_, 0.0, id_, {}) for row, id_ in enumerate(ids)])


ROW = TableRow(
    stock=9,
    user="ann",
    session="1-1000",
    time=1000,
    policy="bc",
    version="abc",
    items=(1,),
    logprobs=(0.0,),
    candidates=(0, 1),
    exclude=(),
    above=(),
    signals=[[0.75]],
    context={},
)


@pytest.mark.parametrize("reward", ["time", "policy", "version", "propensity", "candidates", "click"])
def test_no_column_takes_the_place_of_another(reward: str) -> None:
    """A reward with the name of a column that the export adds: both are in the table."""
    facts: dict[str, Any] = {
        "slate_size": 1,
        "signals": [reward],
        "context": [],
        COLUMNS: {"item": "item", "reward": reward},
    }
    stock = stock_of("i0", "i1")
    frame = frame_of([ROW], facts, stock, ids_of(stock))
    assert frame[reward].to_list() == [0.75] and len(frame.columns) == 8
    added = {"time", "policy", "version", "propensity", "candidates"} - {reward}
    known = {"time": 1000, "policy": "bc", "version": "abc", "propensity": 1.0, "candidates": ["i0", "i1"]}
    row = frame.row(0, named=True)
    assert {name: row[name] for name in added} == {name: known[name] for name in added}
    if reward in known:
        (moved,) = {*frame.columns} - added - {"item", "stock", reward}
        assert row[moved] == known[reward]


def test_candidates_are_what_could_be_shown_and_a_list_names_its_places() -> None:
    facts: dict[str, Any] = {"slate_size": 1, "signals": ["x"], "context": []}
    free = replace(ROW, candidates=None)
    rows = [ROW, free, replace(free, items=(2,), above=(1,)), replace(free, exclude=(0,))]
    stock = stock_of("a", "b", "c")
    frame = frame_of(rows, facts, stock, ids_of(stock))
    assert frame["candidates"].to_list() == [["a", "b"], ["a", "b", "c"], ["a", "c"], ["b", "c"]]
    assert frame["list_place"].to_list() == [0, 0, 1, 0]
    assert "candidates" not in frame_of(rows[1:3], facts, stock, ids_of(stock)).columns
    assert "list_place" not in frame_of(rows[:2], facts, stock, ids_of(stock)).columns


def test_a_moved_column_of_times_is_found_again() -> None:
    facts: dict[str, Any] = {"slate_size": 1, "signals": ["time"], "context": []}
    stock = stock_of("i0", "i1")
    facts |= {COLUMNS: {"item": "item", "reward": "time"}}
    frame = frame_of([ROW], facts, stock, ids_of(stock))
    assert frame["timestamp"].to_list() == [1000]
