"""A table on disk by the roles of its columns: which roles it has, of which types, and their values.

Polars runs each scan piece by piece: no Parquet file has to fit the memory.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import polars as pl

from recsys_rl.data.tables.read import HEADLESS, TableFile, open_table, parsing
from recsys_rl.data.tables.schema import ROLES, find_columns, named
from recsys_rl.data.tables.times import TimeFormat, format_of, seconds
from recsys_rl.data.tables.values import (
    COMMA,
    LIST,
    as_lists,
    commas_or_lists,
    decimal_commas,
    entries,
    hashed,
    is_list,
    measure,
    no_entry,
    no_value,
)

ROW = "\0row"
"""The column of a scan with the number of the row, from 1."""
Count = tuple[int, int]
"""A number of rows, and the first of them from 1."""


def roles_of(
    table: TableFile,
    given: Mapping[str, str | None],
    roles: Sequence[str] = ROLES,
    required: Collection[str] = (),
) -> dict[str, str]:
    """``find_columns`` of a table that may hold slates, in a column ``items``. Raises UserError."""
    if "items" in table.names and given.get("item") is None:
        given = {**given, "item": "items"}
    return find_columns(table.path, table.names, given, roles, required)


class Layout:
    """The columns of a file by their roles, and their values as expressions on ``scan``."""

    def __init__(self, table: TableFile, roles: Mapping[str, str], more: Sequence[str] = ()) -> None:
        """``roles``: the column of each; ``more``: columns without a role that are scanned too."""
        self.table, self.roles = table, dict(roles)
        columns = list(dict.fromkeys([*roles.values(), *more]))
        self.scan = table.texts(columns).with_row_index(ROW, offset=1)
        self.types = self.scan.collect_schema()

    @classmethod
    def open(
        cls,
        path: str | Path,
        given: Mapping[str, str | None],
        separator: str | None,
        roles: Sequence[str],
        required: Collection[str] = ("user", "item"),
    ) -> Self:
        """The columns of these roles (``schema.find_columns``). Raises UserError."""
        table = open_table(path, separator, HEADLESS)
        return cls(table, find_columns(table.path, table.names, given, roles, required))

    @property
    def holds_decisions(self) -> bool:
        """True if the file has propensities, signals or candidates; events may have rewards (clicks) too."""
        known = {"propensity", "candidates"} & self.roles.keys() or "probabilities" in self.table.names
        starts = ("signal.", "context.", "probability.", "propensity.")
        return bool(known) or any(named(self.table.names, start) for start in starts)

    @property
    def slates(self) -> bool:
        """True if the column of items holds a slate in each row, by its name or its type."""
        item = self.roles.get("item")
        return item is not None and (item == "items" or is_list(self.types[item]))

    @cached_property
    def form(self) -> TimeFormat | None:
        """The format of the times; None without a column of times."""
        if "time" not in self.roles:
            return None
        with parsing(self.table.path):
            return format_of(self.scan, self.roles["time"])

    @cached_property
    def rows(self) -> int:
        return int(self.collect(self.scan.select(pl.len())).item())

    def is_list(self, name: str) -> bool:
        """True if the column holds lists, by its type or the signs in its texts."""
        return is_list(self.types[name]) or name in self._texts_with[0]

    def unclear(self, name: str) -> pl.Expr | None:
        """True in a row of which nobody can say whether it is a list of numbers; None if there is none."""
        return pl.col(name).str.contains(COMMA) if name in self._texts_with[2] else None

    @cached_property
    def _texts_with(self) -> tuple[set[str], set[str], set[str]]:
        """The columns of texts with lists, those with decimal commas, and those that may have either."""
        names = [name for name, kind in self.types.items() if kind == pl.String]
        lists = [pl.col(name).str.contains(LIST).any().alias(f"0{name}") for name in names]
        commas = [decimal_commas(pl.col(name)).alias(f"1{name}") for name in names]
        either = [commas_or_lists(pl.col(name)).alias(f"2{name}") for name in names]
        row = self.collect(self.scan.select(*lists, *commas, *either)).row(0, named=True) if names else {}
        of_lists, of_commas, of_either = ({name for name in names if row[f"{k}{name}"]} for k in range(3))
        return of_lists, of_commas, of_either

    def gap(self, name: str) -> pl.Expr:
        """True in a row without a value."""
        return no_value(pl.col(name), self.types[name])

    def no_entry(self, name: str) -> pl.Expr:
        """``gap``, or a list without an entry."""
        return no_entry(pl.col(name), self.types[name])

    def hash(self, name: str) -> pl.Expr:
        return hashed(pl.col(name), self.types[name])

    def measure(self, name: str) -> pl.Expr:
        """Float32: finite numbers, such as ratings."""
        return measure(pl.col(name), self.types[name], name in self._texts_with[1])

    def lists(self, name: str) -> pl.Expr:
        """The values of each row as a list; a single value is a list of one."""
        return as_lists(pl.col(name), self.types[name]) if self.is_list(name) else pl.concat_list(name)

    def entries(self, name: str) -> pl.Expr:
        """The lists of ids in each row, without padding."""
        lists = self.lists(name)
        if not self.is_list(name):
            return lists
        return entries(lists, pl.List(pl.String) if self.types[name] == pl.String else self.types[name])

    @property
    def seconds(self) -> pl.Expr:
        """The times in seconds; null for a value that is not a time."""
        assert self.form is not None
        name = self.roles["time"]
        return seconds(pl.col(name), self.types[name], self.form)

    def collect(self, scan: pl.LazyFrame) -> pl.DataFrame:
        return self.table.collect(scan)

    def counted(self, checks: Mapping[str, pl.Expr], scan: pl.LazyFrame | None = None) -> dict[str, Count]:
        """The rows for which each check is true, without those of which there are none."""
        each = (self.scan if scan is None else scan).select(
            ROW, *(check.alias(name) for name, check in checks.items())
        )
        totals = [pl.col(name).sum().alias(f"0{name}") for name in checks]
        firsts = [pl.when(name).then(ROW).min().alias(f"1{name}") for name in checks]
        row = self.collect(each.select(*totals, *firsts)).row(0, named=True) if checks else {}
        return {name: (row[f"0{name}"], row[f"1{name}"]) for name in checks if row[f"0{name}"]}

    def counts(self, values: pl.Expr, scan: pl.LazyFrame | None = None) -> pl.DataFrame:
        """Each distinct ``value`` but null, and its ``count``. Give hashes, which take 8 bytes each."""
        groups = (self.scan if scan is None else scan).select(value=values).drop_nulls().group_by("value")
        return self.collect(groups.agg(pl.len().alias("count")))

    def repeats(self, keys: Sequence[pl.Expr], gap: pl.Expr) -> Count:
        """The rows whose ``keys`` an earlier row has; one with a ``gap`` repeats no other. 8 bytes each."""
        key = pl.struct(value.alias(str(k)) for k, value in enumerate(keys)).hash(seed=7)
        rows = self.collect(self.scan.filter(~gap).select(ROW, key=key))
        ordered = rows["key"].sort()
        again = ordered.filter(ordered == ordered.shift())
        del ordered
        if again.is_empty():
            return 0, 0
        rows = rows.filter(pl.col("key").is_in(again.unique().implode())).sort(ROW)
        return again.len(), rows.filter(~pl.col("key").is_first_distinct())[ROW][0]

    def repeated_events(self, timed: bool = False) -> Count:
        """The rows with the user, the item and (if there are times) the time of an earlier row.

        ``timed``: a row with a value that is not a time repeats no other.
        """
        if not {"user", "item"} <= self.roles.keys() or self.slates:
            return 0, 0
        keys = [self.hash(self.roles[role]) for role in ("user", "item")]
        keys += [] if self.form is None else [self.seconds]
        gaps = [self.gap(name) for role, name in self.roles.items() if role != "event"]
        gaps += [self.seconds.is_null()] if timed and self.form is not None else []
        return self.repeats(keys, pl.any_horizontal(gaps))
