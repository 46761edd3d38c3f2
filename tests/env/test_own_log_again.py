"""The platform of a log that was written again while the process lives."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from recsys_rl.logs.platform import load_log
from tests.own_logs import clicks
from tests.own_tables import decisions, table


def test_a_file_of_items_that_was_written_again_is_read_again(tmp_path: Path) -> None:
    log, items = str(clicks(tmp_path / "clicks.csv")), tmp_path / "items.csv"
    read = []
    for at, title in enumerate(("Ale", "Bun")):
        frame = pl.DataFrame({"item": ["i0", "i1", "i2", "i3"], "title": [title, "b", "c", "d"]})
        table(items, frame)
        os.utime(items, ns=(0, at))
        read.append(load_log({"log": log, "items": str(items)}).world.catalogue)
    assert [catalogue.titles[0] for catalogue in read] == ["Ale", "Bun"]


def test_a_part_of_a_folder_that_was_written_again_is_read_again(tmp_path: Path) -> None:
    folder, frame = tmp_path / "log", decisions(100)
    folder.mkdir()
    part = folder / "a.parquet"
    table(part, frame)
    table(folder / "b.parquet", decisions(100, seed=1))
    first = load_log({"log": str(folder)})
    before = folder.stat()
    table(part, frame.with_columns(item=pl.lit("elk")))
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))  # a part that is written in place
    second = load_log({"log": str(folder)})
    assert first.world.catalogue.num_items == 4 and second.world.catalogue.num_items == 5
    assert load_log({"log": str(folder)}) is second
