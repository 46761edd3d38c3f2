"""The file about the items of a log: numbers and ids that it can't have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recsys_rl.data.tables.item_encoding import Features, ItemEncoding, StockItem
from recsys_rl.data.tables.items import read_items
from recsys_rl.types import UserError


def items(folder: Path, *rows: str, columns: str = "id,price") -> Path:
    path = folder / "items.csv"
    path.write_text("\n".join([columns, *rows]) + "\n")
    return path


@pytest.mark.parametrize("price", ["1e300", "-1e39", "2e19"])
def test_a_number_that_32_bits_can_not_bear_is_refused(tmp_path: Path, price: str) -> None:
    with pytest.raises(UserError, match=r"'price'.*item 'cod'"):
        read_items(items(tmp_path, "ale,2.5", f"cod,{price}", "bun,"), "item", text_ids=True)


def test_large_numbers_that_are_no_attributes_are_read(tmp_path: Path) -> None:
    """Whole numbers of 64 bits; a number as the name of a creator; infinity, which counts as no value."""
    rows = "1,9223372036854775807,1e300,inf", "2,3,1e300,4"
    facts = read_items(items(tmp_path, *rows, columns="id,code,creator,price"), "item", text_ids=False)
    assert facts.tensors([1, 2])["code"].isfinite().all()
    assert facts.tensors([1, 2])["price"].tolist() == [4, 4]
    assert facts.attributes["creator"] == {1: "1e300", 2: "1e300"}


def test_ids_that_a_log_of_numbers_can_not_have_are_counted(tmp_path: Path) -> None:
    path = items(tmp_path, "1,2.5", "A7,3", "2,", "B9,1", ",4")
    facts = read_items(path, "item", text_ids=False)
    assert facts.ids == [1, 2] and "whole numbers: 2, such as 'A7'" in facts.note
    assert "whole numbers" not in read_items(path, "item", text_ids=True).note


def test_genres_of_items_by_hand() -> None:
    """One that the encoding does not know is in no column; an item may have several, or none."""
    rows: list[Features] = [{"genres": ["b", "x"]}, {}, {"genres": ["a", "b", "a"]}, {"genres": []}]
    items = [StockItem(f"i{at}", "", row) for at, row in enumerate(rows)]
    found = ItemEncoding(genres=("a", "b")).catalogue(items, torch.zeros(4), "made up")
    assert found.attributes["genres"].tolist() == [[0, 1], [0, 0], [1, 1], [0, 0]]
    assert found.embedding.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    assert ItemEncoding().catalogue(items, torch.zeros(4), "made up").attributes["genres"].shape == (4, 0)
