"""The newest rows of benchmarks/results/*.csv, and Markdown tables."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

Row = Mapping[str, str]


def read(results: Path, name: str, keys: Sequence[str] = (), **known: str) -> list[Row]:
    """The newest rows of a CSV file that have the ``known`` values."""
    return newest(every(results, name, **known), keys)


def every(results: Path, name: str, **known: str) -> list[Row]:
    """The rows of a CSV file that have the ``known`` values, also older ones."""
    with (results / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if all(row[k] == v for k, v in known.items())]


def newest(rows: Sequence[Row], keys: Sequence[str] = ()) -> list[Row]:
    """The rows of the last date and commit in their order, for each combination of ``keys`` by itself."""
    last = {tuple(row[key] for key in keys): (row["date"], row["commit"]) for row in rows}
    return [row for row in rows if last[tuple(row[key] for key in keys)] == (row["date"], row["commit"])]


def origin(rows: Sequence[Row]) -> str:
    """The commits of the rows, and the date of the last."""
    return f"commit {', '.join(dict.fromkeys(row['commit'] for row in rows))}, {rows[-1]['date']}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: bool = False) -> str:
    """Markdown: the first column to the left, the others to the right; with ``words`` all to the left."""
    lines = ["|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|" for line in (head, *rows)]
    rest = "---|" if words else "---:|"
    return "\n".join([lines[0], "|---|" + rest * (len(head) - 1), *lines[1:]])
