"""Counts over the rows of a table that is too large for the memory: polars runs each scan piece by piece.

The rows of a scan have their number from 1 in the column ROW.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from recsys_rl.tables.read import TableFile

ROW = "\0row"
Count = tuple[int, int]
"""A number of rows, and the first of them from 1."""


def numbered(scan: pl.LazyFrame) -> pl.LazyFrame:
    return scan.with_row_index(ROW, offset=1)


def counted(table: TableFile, scan: pl.LazyFrame, checks: Mapping[str, pl.Expr]) -> dict[str, Count]:
    """The rows for which each check is true, without those of which there are none."""
    if not checks:
        return {}
    each = scan.select(ROW, *(check.alias(name) for name, check in checks.items()))
    totals = [
        x
        for name in checks
        for x in (pl.col(name).sum().alias(f"{name}\0"), pl.when(name).then(ROW).min().alias(name))
    ]
    row = table.collect(each.select(totals)).row(0, named=True)
    return {name: (row[f"{name}\0"], row[name]) for name in checks if row[f"{name}\0"]}


def counts(table: TableFile, values: pl.LazyFrame) -> pl.DataFrame:
    """Each distinct ``value`` of the only column of ``values``, without null, and its ``count``."""
    scan = values.rename({values.collect_schema().names()[0]: "value"}).drop_nulls()
    return table.collect(scan.group_by("value").agg(pl.len().alias("count")))


def repeats(table: TableFile, keys: pl.LazyFrame) -> Count:
    """The rows whose ``key`` (UInt64) an earlier row has; 0, 0 without any."""
    rows = table.collect(keys.select(ROW, "key"))
    ordered = rows["key"].sort()
    again = ordered.filter(ordered == ordered.shift())
    del ordered
    if again.is_empty():
        return 0, 0
    rows = rows.filter(pl.col("key").is_in(again.unique().implode())).sort(ROW)
    return again.len(), rows.filter(~pl.col("key").is_first_distinct())[ROW][0]
