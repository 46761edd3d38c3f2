"""Check the events of a log: parse ids, times and numbers, and name all problems together.

Ids are whole numbers 0..2**63-1, or strings. If any id of a column does not look like a number, the column is
read as strings. data/tables/times.py parses times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import polars as pl

from recsys_rl.data.tables.findings import Finding, TableError, found
from recsys_rl.data.tables.kinds import left_in, weighted
from recsys_rl.data.tables.schema import COLUMNS, NO_COLUMN, follows
from recsys_rl.data.tables.times import format_in, seconds
from recsys_rl.data.tables.values import NUMBER, decimal_commas, measure, no_value, on, whole_number
from recsys_rl.errors import amount, short
from recsys_rl.types import UserError

Missing = Literal["refuse", "drop"]
Duplicates = Literal["refuse", "sum", "keep-first"]


@dataclass
class Problems:
    """The problems of one source, each with its count and its first row (counted from 1)."""

    source: str
    findings: list[Finding] = field(default_factory=list)
    mends: list[str] = field(default_factory=list)

    def add(self, finding: Finding, mend: str) -> None:
        self.findings.append(finding)
        if mend not in self.mends:
            self.mends.append(mend)

    def gaps(self, name: str, count: int, first_row: int) -> None:
        """Add the rows without a value in the column ``name``."""
        self.add(
            without_value(repr(name), count, first_row),
            "fill the gaps, or give --missing drop to leave such rows out",
        )

    def bad_values(self, name: str, values: pl.Series, rows: pl.Series, bad: pl.Series, rule: str) -> None:
        """Add the values with a true ``bad`` (null counts as true)."""
        places = bad.fill_null(True).arg_true()
        if places.len():
            first = int(places[0])
            (value,) = values.slice(first, 1).to_list()
            more = f" (and {places.len() - 1:,} more rows)" if places.len() > 1 else ""
            sentence, row = "column {column!r} has {value} in {row}{more}", int(rows[first]) + 1
            self.add(found(sentence, row=row, column=name, value=short(value), more=more), rule)

    def refuse(self) -> None:
        """Raise UserError with all problems, if there are any."""
        if self.findings:
            raise TableError(self.source, *self.findings, mends=self.mends)


def without_value(column: str, count: int, first_row: int) -> Finding:
    """`column 'user' has no value in 2 rows (the first is row 5)`, with ``column`` as it is printed."""
    sentence = "column {column} has no value in {count} (the first is {row})"
    return found(sentence, row=first_row, column=column, count=amount(count, "row"))


def dropped(lacking: Mapping[str, int], total: int) -> str:
    """A note about rows left out. ``lacking``: those without a value, by role; a row may lack several."""
    without = {role: f"without {'an' if role == 'item' else 'a'} {role}" for role in lacking}
    if len(lacking) == 1:
        return f"{amount(total, 'row')} {without.popitem()[1]} dropped"
    parts = ", ".join(f"{lacking[role]:,} {text}" for role, text in without.items())
    return f"{amount(total, 'row')} dropped ({parts})"


@dataclass(frozen=True)
class Events:
    """Checked events, and notes about rows that were dropped or merged."""

    # user, item: Int64 or String; time: Int64 or Float64 in seconds; rating; weight; event: String
    frame: pl.DataFrame
    notes: tuple[str, ...]


def clean_events(
    columns: dict[str, pl.Series | None],
    names: dict[str, str],
    source: str,
    missing: Missing = "refuse",
    duplicates: Duplicates = "refuse",
    event_weights: Mapping[str, float] | None = None,
) -> Events:
    """Check E events: columns ``user``, ``item`` and maybe ``time``, ``rating``, ``weight``, ``event``.

    A row without a value in one of the columns is refused or dropped. Rows with the same user, item and time
    (without times: the same user and item) are refused, or only the first is kept, or they are merged into
    the first: their weights are summed (1 for each row without a weight) and their ratings averaged.

    Args:
        names: the name of each column in the source, for errors.
        event_weights: the weight of each kind in the column ``event``. Rows of a kind with the weight 0 are
            left out first, and events of different kinds are not repeats.

    Raises UserError with all problems of the source together, their counts and first rows.
    """
    problems, notes = Problems(source), []
    frame = pl.DataFrame({role: values for role, values in columns.items() if values is not None})
    frame = frame.with_row_index("row")
    if event_weights is not None and "event" in frame.columns:
        frame, note = left_in(frame, on(frame["event"], no_value), names["event"], event_weights, source)
        notes.append(note)
    roles = [role for role in frame.columns if role != "row"]
    gaps = frame.select(no_value(pl.col(role), frame.schema[role]).alias(role) for role in roles)
    gone = gaps.select(pl.any_horizontal(roles)).to_series()
    lacking = {role: count for role in roles if (count := int(gaps[role].sum()))}
    if missing == "drop":
        notes += [dropped(lacking, int(gone.sum()))] if lacking else []
    else:
        for role, count in lacking.items():
            problems.gaps(names[role], count, int(frame["row"][int(gaps[role].arg_true()[0])]) + 1)
    complete = frame.filter(~gone)
    if complete.height == 0:
        problems.refuse()
        raise UserError(f"{source} holds no events, so no users: give a log with at least one row.")
    parsed = {"row": complete["row"]}
    for role in roles:
        values, rows = complete[role], complete["row"]
        if role == "event":
            parsed[role] = values
            continue
        parse = {"user": _ids, "item": _ids, "time": _times}.get(role, _numbers)
        parsed[role], rule, note = parse(values, role)
        problems.bad_values(names[role], values, rows, parsed[role].is_null(), rule)
        notes += [note] if note else []
    complete = pl.DataFrame(parsed).drop_nulls()
    if event_weights is not None and "event" in complete.columns:
        complete = weighted(complete, event_weights)
    if duplicates == "sum" and "weight" not in complete.columns:
        complete = complete.with_columns(weight=pl.lit(1.0, pl.Float32))
    complete, note = _without_repeats(complete, problems, duplicates)
    problems.refuse()
    return Events(complete, (*notes, *([note] if note else [])))


Parsed = tuple[pl.Series, str, str]
"""Parsed values, null where a value is none, the rule, and a note."""


def _ids(column: pl.Series, role: str) -> Parsed:
    """Ids as Int64, or as String if they are names."""
    rule = "ids are whole numbers from 0 to 2**63-1, or strings"
    if column.dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    if column.dtype == pl.String and not column.str.contains(NUMBER).all():
        return column.str.strip_chars(), rule, ""
    numbers = on(column, whole_number)
    return numbers.set((numbers < 0).fill_null(False), None), rule, ""


def _times(column: pl.Series, role: str) -> Parsed:
    form = format_in(column)
    return on(column, seconds, form), form.rule, form.note


def _numbers(column: pl.Series, role: str) -> Parsed:
    texts = column.dtype == pl.String
    commas = texts and bool(on(column, lambda cells, _: decimal_commas(cells)).any())
    rule = COLUMNS[role].sentence
    if texts and not commas and column.str.contains(r"\d,\d").any():
        rule += ", without commas between digits"
    if role == "weight":
        rule += f" (--weight-column {NO_COLUMN} for no weights)"
    numbers = on(
        on(column, measure, commas), lambda cells, _: pl.when(follows(cells, COLUMNS[role])).then(cells)
    )
    return numbers, rule, "decimal commas read as points" if commas else ""


def _without_repeats(frame: pl.DataFrame, problems: Problems, how: Duplicates) -> tuple[pl.DataFrame, str]:
    """The events without repeats, sorted by row, and a note; or a problem."""
    keys = [role for role in ("user", "item", "time", "event") if role in frame.columns]
    more = frame.height - frame.select(pl.struct(keys).n_unique()).item()
    if more == 0:
        return frame, ""
    if how == "refuse":
        repeated = frame.filter(frame.select(keys).is_duplicated())
        first = repeated.join(repeated.head(1).select(keys), on=keys, how="semi")["row"] + 1
        others = f" (and {more - 1:,} more rows repeat others)" * (more > 1)
        sentence = "{rows} have the same {columns}" + others
        mend = "remove repeated rows, give a time column with different times for them, or give --duplicates "
        finding = found(sentence, rows=(first[0], first[1]), columns=", ".join(keys))
        problems.add(finding, mend + "sum or --duplicates keep-first")
        return frame, ""
    if how == "keep-first":
        distinct = frame.unique(keys, keep="first", maintain_order=True)
        return distinct, f"{more:,} repeated rows dropped"
    merged = frame.group_by(keys, maintain_order=True).agg(
        pl.col("row").first(),
        *([pl.col("rating").mean()] if "rating" in frame.columns else []),
        pl.col("weight").sum(),
    )
    return merged, f"{more:,} repeated rows merged into others"


def observed_range(ratings: pl.Series) -> tuple[float, float]:
    """The smallest and the largest rating; 0 or 1 stands in for one of them if all are the same."""
    low, high = float(np.min(ratings.to_numpy())), float(np.max(ratings.to_numpy()))
    # A single rating does not show its scale: extend the range to 0, or to 1.
    return (low, high) if low < high else (min(low, 0.0), max(high, 1.0))


def as_series(name: str, values: Any) -> pl.Series:
    """A column as a series. Raises UserError if its values are of several kinds."""
    if isinstance(values, pl.Series):
        return values
    try:
        return pl.Series(name, values, strict=True)
    except (TypeError, OverflowError, pl.exceptions.PolarsError) as error:
        raise UserError(
            f"column {name!r} mixes kinds of values or exceeds 64 bits: give one kind."
        ) from error
