"""`recsys-rl data compare`: by hand on small logs, in pieces, and as a command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys_rl.cli import main
from recsys_rl.logs.describe.compare import Moved, compare

OLD = ["user,item,rating,timestamp", *(f"1,{i},5,{i}" for i in (1, 2, 3)), "2,1,5,7", "2,2,1,8", "2,1,5,9"]
NEW = ["user,item,rating,timestamp", "2,1,5,9", "2,2,4,10", "2,3,4,11", "3,3,5,12", "3,9,1,13", "3,3,5,14"]


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_by_hand(tmp_path: Path) -> None:
    """Rows of items 1, 2, 3, 9: 3, 2, 1, 0 of 6 before and 1, 1, 3, 1 of 6 now."""
    found = compare(write(tmp_path / "old.csv", OLD), write(tmp_path / "new.csv", NEW))
    assert (found.old.rows, found.old.users, found.old.items) == (6, 2, 3)
    assert (found.new.rows, found.new.users, found.new.items) == (6, 2, 3 + 1)
    assert (found.new.unknown_users, found.new.rows_of_unknown_users) == (1, 3)
    assert (found.old.unknown_users, found.old.rows_of_unknown_users) == (1, 3)
    assert (found.new.unknown_items, found.new.rows_of_unknown_items) == (1, 1)
    assert found.old.unknown_items == 0
    assert found.like_threshold == 5.0  # the lowest rating from 1 + 0.75 * 4 on in the old log
    assert found.old.likes_a_user == 2  # users like 3 and 1 different items
    assert found.new.likes_a_user == 1  # {1} and {3}, with the threshold of the old log
    assert found.repeated_rows == 1
    assert found.total_variation == pytest.approx((2 + 1 + 2 + 1) / 6 / 2)
    assert found.rank_correlation == pytest.approx(-(3**0.5) / 2)  # ranks 3, 2, 1 and 1.5, 1.5, 3
    assert found.risen[0] == Moved("3", 1 / 6, 3 / 6)
    assert {x.item for x in found.fallen} == {"1", "2"} and found.fallen[0].item == "1"


def test_ids_of_different_types_are_the_same(tmp_path: Path) -> None:
    """Whole numbers, the same with gaps in the column, and texts."""
    ids = list(range(8))
    whole = pl.DataFrame({"user": ids, "item": ids})
    whole.write_parquet(tmp_path / "old.parquet")
    with_gaps = pl.DataFrame({"user": [*map(float, ids), None], "item": [*map(str, ids), "x"]})
    with_gaps.write_parquet(tmp_path / "new.parquet")
    found = compare(tmp_path / "old.parquet", tmp_path / "new.parquet")
    assert found.new.rows == 8 and found.new.unknown_users == found.new.unknown_items == 0
    assert found.repeated_rows == 8 and found.total_variation == 0 and found.rank_correlation == 1
    assert found.like_threshold is None and found.risen == found.fallen == ()


def test_large_whole_floats_are_the_same_as_integers(tmp_path: Path) -> None:
    ids = [2**53, 2**60, -(2**62), 7]
    for name, kind in (("old", pl.Int64), ("new", pl.Float64)):
        pl.DataFrame({"user": ids, "item": ids}).cast(kind).write_parquet(tmp_path / f"{name}.parquet")
    found = compare(tmp_path / "old.parquet", tmp_path / "new.parquet")
    assert found.new.unknown_users == found.new.unknown_items == 0 and found.repeated_rows == 4


def test_rank_correlation_agrees_with_scipy(tmp_path: Path) -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    counts = rng.integers(1, 6, (2, 12))
    for name, row in zip(("old", "new"), counts, strict=True):
        items = np.repeat(np.arange(12), row)
        pl.DataFrame({"user": np.arange(len(items)), "item": items}).write_parquet(
            tmp_path / f"{name}.parquet"
        )
    found = compare(tmp_path / "old.parquet", tmp_path / "new.parquet")
    assert found.rank_correlation == pytest.approx(spearmanr(*counts).statistic)


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("old.csv"), OLD)
    write(Path("new.csv"), NEW)
    assert main(["data", "compare", "old.csv", "new.csv", "--json", "drift.json"]) == 0
    said = capsys.readouterr().out
    assert "users: 1 of 2 (50.0%) of the new log are unknown to the old one, with 50.0% of its rows" in said
    assert "50.0% of the rows have moved to other items" in said
    assert "most risen (share of the rows): '3' 16.67% to 50.00%" in said
    saved = json.loads(Path("drift.json").read_text())
    assert saved["new"]["unknown_items"] == 1 and saved["risen"][0]["item"] == "3"
