"""Files of JSON lines as tables: one object a line, with the columns of any table, or Vowpal Wabbit's dsjson.

An object inside an object gives columns with both names: ``{"context": {"age": 30}}`` is ``context.age``.
Lines that can't be read are left out and counted, up to a share of MOST_BROKEN of the file.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recsys_rl.data.tables.dsjson import BrokenLineError, Decisions, is_dsjson, once
from recsys_rl.errors import UserError, amount, one_line

MOST_BROKEN = 0.01
"""Share of the lines that may be broken; with more the file is refused."""
SHOWN = 3
"""Broken lines that a message names."""
FIRST = 100
"""Lines of which one shows whether the file is dsjson."""


@dataclass(frozen=True)
class JsonTable:
    """The rows of a file of JSON lines."""

    frame: pl.DataFrame
    lines: Sequence[int]  # of each row
    note: str = ""  # what was left out
    items: pl.DataFrame | None = None  # the features of the items, by their ids in ``item``
    dsjson: bool = False
    mixed: frozenset[str] = frozenset()  # columns with strings beside numbers or truths


def read_json_lines(path: Path, raw: bytes) -> JsonTable:
    """The table in the lines of ``raw``, which is UTF-8. Raises UserError for too many broken lines."""
    broken: list[tuple[int, str]] = []
    objects = _objects(raw, broken)
    first = list(itertools.islice(objects, FIRST))
    of_decisions = any(is_dsjson(line) for _, line in first)
    decisions, plain, total = Decisions(), [], 0
    for number, line in itertools.chain(first, objects):
        total += 1
        try:
            if of_decisions:
                decisions.add(number, line)
            else:
                plain.append((number, once(_cells(line))))
        except BrokenLineError as error:
            broken.append((number, str(error)))
            total -= 1
    _check(path, sorted(broken), total + len(broken))
    left = [f"read without {_counted(sorted(broken), total + len(broken))}"] if broken else []
    if not of_decisions:
        names = dict.fromkeys(name for _, row in plain for name in row)
        columns = {name: [row.get(name) for _, row in plain] for name in names}
        lines = tuple(number for number, _ in plain)
        return JsonTable(_frame(columns), lines, "; ".join(left), mixed=_mixed(columns))
    columns, of_rows = decisions.table()
    if not of_rows:
        raise UserError(f"{one_line(path)} holds no decisions: {'; '.join([*left, *decisions.notes()])}.")
    items = decisions.item_table()
    note = "; ".join(
        [f"Vowpal Wabbit's dsjson, with {amount(len(of_rows), 'decision')}", *left, *decisions.notes()]
    )
    of_items = _frame(items) if items else None
    return JsonTable(_frame(columns), tuple(of_rows), note, of_items, True, _mixed(columns))


def _objects(raw: bytes, broken: list[tuple[int, str]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number of each line and its object; lines without one go to ``broken``."""
    start, number = 0, 0
    while start < len(raw):
        end = raw.find(b"\n", start)
        end = len(raw) if end < 0 else end
        line, start, number = raw[start:end].strip(), end + 1, number + 1
        if not line:
            continue
        try:
            found = json.loads(line)
            if b"\\u" in line:
                json.dumps(found, ensure_ascii=False).encode()  # half of a pair of surrogates is not a text
        except (ValueError, RecursionError):
            broken.append((number, "is not JSON, or is cut"))
            continue
        if isinstance(found, dict):
            yield number, found
        else:
            broken.append((number, "is not an object"))


def _cells(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _cells(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _check(path: Path, broken: list[tuple[int, str]], total: int) -> None:
    """Raise UserError if too many of the lines are broken."""
    if len(broken) > MOST_BROKEN * total:
        raise UserError(
            f"{one_line(path)} has {_counted(broken, total)}, and at most {MOST_BROKEN:.0%} are left out: "
            "mend them, or leave them out yourself."
        )


def _counted(broken: list[tuple[int, str]], total: int) -> str:
    texts = [f"line {number} {why}" for number, why in broken[:SHOWN]] + ["..."] * (len(broken) > SHOWN)
    return f"{amount(len(broken), 'broken line')} of {total:,} ({'; '.join(texts)})"


def _mixed(columns: Mapping[str, list[Any]]) -> frozenset[str]:
    kinds = {name: {type(value) for value in values} - {type(None)} for name, values in columns.items()}
    return frozenset(name for name, of in kinds.items() if str in of and len(of) > 1)


def _frame(columns: Mapping[str, list[Any]]) -> pl.DataFrame:
    return pl.DataFrame([series(name, values) for name, values in columns.items()])


def series(name: str, values: Sequence[Any]) -> pl.Series:
    """A column of JSON's values: numbers, truths, texts, or lists of these; texts where kinds are mixed."""
    kinds = {type(value) for value in values if value is not None}
    if list in kinds:
        lists = [value if value is None or isinstance(value, list) else [value] for value in values]
        inner = series("", [x for one in lists if one is not None for x in one]).dtype
        if inner == pl.String:
            lists = [None if one is None else [x if x is None else _text(x) for x in one] for one in lists]
        return pl.Series(name, lists, dtype=pl.List(inner), strict=False)
    plain = {bool: pl.Boolean, int: pl.Int64, float: pl.Float64, str: pl.String}
    kind = plain[kinds.pop()] if len(kinds) == 1 else pl.Float64 if kinds == {int, float} else pl.String
    if kind != pl.String:
        # A number of more than 64 bits makes the column one of texts.
        with contextlib.suppress(OverflowError, TypeError, pl.exceptions.PolarsError):
            return pl.Series(name, values, dtype=kind, strict=kind == pl.Int64)
    return pl.Series(name, [value if value is None else _text(value) for value in values], dtype=pl.String)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
