"""The items of several files: a team's own, and then the one beside an export of a record."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from recsys_rl.data.tables.item_encoding import items_of
from recsys_rl.errors import UserError
from recsys_rl.logs.decision_table import read_table
from recsys_rl.logs.intervals import metadata_of
from recsys_rl.logs.platform import load_log
from tests.own_logs import write_csv

HEADER = ["user", "item", "clicked", "propensity"]


def files(folder: Path, **columns: list[object]) -> dict[str, object]:
    """An old log of i0 to i2, and an export of i1 to i3, where i1 has changed and i2 was withdrawn."""
    old = [[f"u{x}", f"i{x % 3}", x % 2, 1 / 3] for x in range(60)]
    write_csv(folder / "old.csv", HEADER, old)
    rows = [[f"i{x}", "", x, "ab"[x % 2]] for x in range(3)]
    write_csv(folder / "items.csv", ["item", "title", "price", "brand"], rows)
    metadata = metadata_of((0, 90))
    served = {
        "user": [f"u{x}" for x in range(60)], "item": [f"i{1 + x % 3}" for x in range(60)],
        "clicked": [x % 2 for x in range(60)], "propensity": [1 / 3] * 60, "stock": [4] * 60,
    }  # fmt: skip
    pl.DataFrame(served).write_parquet(folder / "served.parquet", metadata=metadata)
    beside = {
        "item": ["i1", "i2", "i1", "i3"], "title": ["", "", "One", ""], "price": [1.0, 2.0, None, 9.0],
        "stock_from": [1, 2, 3, 4], "stock_to": [3, 70, None, None],
    }  # fmt: skip
    pl.DataFrame({**beside, **columns}).write_parquet(folder / "served.items.parquet", metadata=metadata)
    return {
        "log": (str(folder / "old.csv"), str(folder / "served.parquet")),
        "items": str(folder / "items.csv"),
    }


def test_the_file_beside_an_export_has_the_last_word(tmp_path: Path) -> None:
    """On a gap of its column too; a column that it lacks is that of the other file."""
    catalogue = load_log(files(tmp_path)).world.catalogue
    rows = [(item.id, item.features, item.live) for item in items_of(catalogue)]
    assert rows == [
        ("i1", {"price": 1.0}, False),  # of before its change
        ("i0", {"price": 0.0, "brand": "a"}, True),
        ("i1", {"brand": "b"}, True),
        ("i2", {"price": 2.0, "brand": "a"}, False),
        ("i3", {"price": 9.0}, True),
    ]
    assert catalogue.titles[2] == "One"
    table = read_table(tmp_path / "served.parquet", items=tmp_path / "items.csv")
    assert table.items == ("i0", "i1", "i2", "i3")
    assert [item.features for item in items_of(table.catalogue)] == [row[1] for row in rows[1:]]


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    given = files(tmp_path)
    write_csv(tmp_path / "items.csv", ["item", "stock_from"], [["i0", 1], ["i1", 1], ["i2", 1]])
    with pytest.raises(UserError, match=r"items.csv and .*served.items.parquet: both"):
        load_log(given)
    given = files(tmp_path, embedding=[[0.5, 1.0]] * 4) | {"items": str(tmp_path / "vectors.csv")}
    write_csv(tmp_path / "vectors.csv", ["item", "embedding"], [[f"i{x}", "1|2|3"] for x in range(3)])
    with pytest.raises(UserError, match="2 and 3 numbers"):
        load_log(given)
    del given["items"]
    with pytest.raises(UserError, match=r"served.items.parquet lacks 1 item .*i0.*--items FILE"):
        load_log(given)
