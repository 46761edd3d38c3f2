"""Several files as one table: the rows of each file follow those of the file before it."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from recsys_rl.data.tables.columns import log_name
from recsys_rl.data.tables.read import TableFile, has_header, in_memory, open_table
from recsys_rl.data.tables.values import plain_text, text
from recsys_rl.errors import UserError, listed, one_line


@dataclass(frozen=True)
class SeveralFiles(TableFile):
    """Tables with the same columns, of any format. ``path`` names all of them."""

    parts: tuple[TableFile, ...] = ()

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """The number of rows up to the end of each file."""
        return tuple(itertools.accumulate(part.num_rows for part in self.parts))

    def rows(self, columns: Sequence[str]) -> pl.DataFrame:
        return self.collect(self.scan(columns))

    def scan(self, columns: Sequence[str]) -> pl.LazyFrame:
        """The rows of all files. A column that is text in one file is text in all."""
        scans = [part.texts(columns) for part in self.parts]
        kinds = [scan.collect_schema() for scan in scans]
        texts = [name for name in columns if any(of[name] == pl.String for of in kinds)]
        alike = [
            scan.with_columns(text(pl.col(name), of[name]) for name in texts)
            for scan, of in zip(scans, kinds, strict=True)
        ]
        return pl.concat(alike, how="vertical_relaxed")

    def has_texts(self, column: str) -> bool:
        return all(part.has_texts(column) for part in self.parts)

    @property
    def items(self) -> TableFile | None:
        return items_beside(self.parts)

    def goes_on(self, sessions: pl.Series, rows: pl.Series) -> pl.Series:
        """True for each of these ``rows`` (from 1) whose session has rows in a file before its own."""
        file = pl.Series(self.ends).search_sorted(rows, "left")
        frame = pl.DataFrame({"session": sessions, "file": file})
        return frame.select(pl.col("file") != pl.col("file").min().over("session")).to_series()

    def place(self, row: int) -> str:
        index = bisect_left(self.ends, row)
        part = self.parts[index]
        place = part.place(row - (self.ends[index - 1] if index else 0))
        of_folder = len(part.files) > 1  # whose files are named already
        return place if of_folder else f"{place} of {one_line(log_name(part.path.name, index + 1))}"


def open_tables(
    paths: Sequence[str | Path], separator: str | None = None, headless: Sequence[str] = ()
) -> TableFile:
    """``open_table`` of one path, or of several files that are one table. Raises UserError."""
    tables = [open_table(path, separator, headless) for path in paths]
    if len(tables) == 1:
        return tables[0]
    check_together(tables)
    first = tables[0]
    texts = pl.Schema(dict.fromkeys(first.names, pl.String()))
    kinds = [texts if of.raw is not None else of.texts(of.names).collect_schema() for of in tables]
    for table, of in zip(tables[1:], kinds[1:], strict=True):
        both = f"{one_line(first.path)} and {one_line(table.path)}"
        different = {*first.names} ^ {*table.names}
        if different:
            raise UserError(
                f"{both} have different columns ({listed(sorted(different))}): give files with the same ones."
            )
        for name in first.names:
            if _shape(kinds[0][name]) != _shape(of[name]):
                raise UserError(
                    f"{both} have different values in column {name!r} ({kinds[0][name]} and {of[name]}): "
                    "give files of one format."
                )
    notes = "; ".join(f"{table.note} ({one_line(table.path.name)})" for table in tables if table.note)
    path = Path(" + ".join(str(table.path) for table in tables))
    return SeveralFiles(path, first.names, note=notes, parts=tuple(tables))


def _shape(kind: pl.DataType) -> str:
    """The kind of values that can't stand in one column with others; "" for texts and numbers."""
    return "lists" if kind.is_nested() else "times" if kind.is_temporal() else ""


def items_beside(tables: Sequence[TableFile]) -> TableFile | None:
    """The table of the items that the tables have beside their decisions; None without one."""
    found = [table.items for table in tables if table.items is not None]
    if not found:
        return None
    return in_memory(found[0].path, pl.concat((of.rows(of.names) for of in found), how="diagonal_relaxed"))


def check_together(tables: Sequence[TableFile]) -> None:
    """Raise UserError for several tables that are not read together.

    They are of different kinds (a log of `recsys-rl record`, dsjson, a table with columns), two logs of
    `recsys-rl record`, or one file twice, also as a copy in another format.
    """
    kinds: dict[str, TableFile] = {}
    for table in tables:
        kinds.setdefault(_kind(table), table)
    if len(kinds) > 1:
        of_each = [f"{one_line(table.path)} is {kind}" for kind, table in kinds.items()]
        raise UserError(f"{of_each[0]}, and {of_each[1]}: give logs of one kind.")
    if _RECORDED in kinds and len(tables) > 1:
        both = f"{one_line(tables[0].path)} and {one_line(tables[1].path)}"
        raise UserError(
            f"{both} are two logs of recsys-rl record: give one, or a folder with the parts of one."
        )
    files = [file for table in tables for file in table.files or (table.path,)]
    whole = [file.resolve() for file in files]
    twice = next((file for file in files if whole.count(file.resolve()) > 1), None)
    if twice is not None:
        raise UserError(f"The log names {one_line(log_name(str(twice)))} twice: give each file once.")
    _refuse_copies([table for table in tables if not has_header(table.path)])


HEAD = 1_000
"""Rows by which tables are first told apart."""


def _refuse_copies(tables: Sequence[TableFile]) -> None:
    """Raise UserError if two tables have the same rows in the same order. The first rows tell most apart."""
    alike = [tables]
    for rows in (HEAD, None):
        alike = [some for of in alike for some in _by_digest(of, rows) if len(some) > 1]
    if alike:
        one, two = (one_line(log_name(str(table.path), tables.index(table) + 1)) for table in alike[0][:2])
        raise UserError(f"{one} and {two} hold the same rows, which would count twice: give one of them.")


def _by_digest(tables: Sequence[TableFile], rows: int | None) -> list[list[TableFile]]:
    """The tables with the same columns and the same first ``rows``, or all rows for None."""
    groups: dict[tuple[object, ...], list[TableFile]] = {}
    for table in tables if len(tables) > 1 else ():
        names = sorted(table.names)
        scan = table.texts(names)
        kinds = (scan if rows is None else scan.head(rows)).collect_schema()
        hashes = [plain_text(pl.col(name), kinds[name]).hash(seed=7).alias(name) for name in names]
        found = table.collect((scan if rows is None else scan.head(rows)).select(hashes))
        digest = found.hash_rows(seed=7).hash(seed=7)  # of each row
        order = digest * pl.int_range(1, len(digest) + 1, dtype=pl.UInt64, eager=True)  # wraps around
        groups.setdefault((*names, found.height, int(order.sum() or 0)), []).append(table)
    return [*groups.values()]


_RECORDED = "a log of recsys-rl record"


def _kind(table: TableFile) -> str:
    if table.is_dsjson:
        return "dsjson"
    return _RECORDED if table.files and has_header(table.path) else "a table with columns"
