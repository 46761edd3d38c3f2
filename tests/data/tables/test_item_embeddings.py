"""A file about items with a vector for each: used as it is, in a log of a team's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from recsys_rl.data.tables.items import catalogue_of_items, knows_items, read_items
from recsys_rl.errors import UserError
from recsys_rl.make import make_world
from recsys_rl.models.item_columns import feature_columns, feature_names
from recsys_rl.settings.config import Config, brought_settings
from recsys_rl.types import Catalogue
from tests.own_logs import clicks, write_csv

VECTORS = {"i0": "[0.5, -1, 2]", "i1": "1|0|0.25", "i2": "0, 0, 1e-3", "i3": "[3;1;1]", "i9": "1,1,1"}


def catalogue(log: Path, items: Path) -> Catalogue:
    settings: dict[str, Any] = {"log": (str(log),), "items": str(items)}
    config = Config(algo="bc", env="own-log", **brought_settings("own-log", settings), **settings)
    assert config.model_config.head == "two-tower"
    return make_world(config).catalogue


def test_vectors_are_the_embeddings_in_the_order_of_the_catalogue(tmp_path: Path) -> None:
    """An item that no decision shows has features too, and joins. Other columns are features beside them."""
    rows = [
        [name, f"T {name}", int(name[1]), "ab"[int(name[1]) % 2], vector]
        for name, vector in reversed(VECTORS.items())
    ]
    file = write_csv(tmp_path / "items.csv", ["item", "title", "price", "brand", "embedding"], rows)
    made = catalogue(clicks(tmp_path / "clicks.csv"), file)
    assert made.item_names == ("i0", "i1", "i2", "i3", "i9") and made.titles[1] == "T i1"
    wanted = [[0.5, -1, 2], [1, 0, 0.25], [0, 0, 1e-3], [3, 1, 1], [1, 1, 1]]
    assert torch.equal(made.embedding, torch.tensor(wanted))
    assert feature_names(made) == ("price", "brand a", "brand b", "brand (other)")
    price = torch.tensor([0.0, 1, 2, 3, 9])
    columns = feature_columns(made)
    torch.testing.assert_close(columns[:, 0], (price - price.mean()) / price.std())
    assert columns[:, 1].tolist() == [1, 0, 1, 0, 0] and columns[:, 2].tolist() == [0, 1, 0, 1, 1]
    assert float(made.popularity[4]) == 0 and float(made.popularity.sum()) == pytest.approx(1)


def test_lists_of_parquet_give_the_same(tmp_path: Path) -> None:
    frame = pl.DataFrame({"item": [3, 1], "embedding": [[0.1, 0.2], [0.3, 0.4]]})
    frame.write_parquet(tmp_path / "items.parquet")
    facts = read_items(tmp_path / "items.parquet", "item", text_ids=False)
    assert "embedding" not in facts.attributes
    made = catalogue_of_items([1, 3], facts, torch.zeros(2), "")
    assert torch.equal(made.embedding, torch.tensor([[0.3, 0.4], [0.1, 0.2]])) and knows_items(made)


@pytest.mark.parametrize("vector", ["", "1|2", "1|x|3", "7", "1|inf|3"])
def test_gaps_and_other_vectors_are_refused(tmp_path: Path, vector: str) -> None:
    rows = [["i0", "1|2|3"], ["i1", vector]]
    file = write_csv(tmp_path / "items.csv", ["item", "embedding"], rows)
    with pytest.raises(UserError):
        read_items(file, "item", text_ids=True)
