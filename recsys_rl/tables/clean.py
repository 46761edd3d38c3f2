"""Check the events of a log: parse ids, times and numbers, and name all problems together.

Ids are whole numbers 0..2**63-1, or strings. If any id of a column does not look like a number, the column is
read as strings. tables/times.py parses times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import polars as pl

from recsys_rl.errors import short
from recsys_rl.tables.columns import NO_COLUMN
from recsys_rl.tables.kinds import left_in, weighted
from recsys_rl.tables.read import NUMBER
from recsys_rl.tables.times import times_of
from recsys_rl.types import UserError

Missing = Literal["refuse", "drop"]
Duplicates = Literal["refuse", "sum", "keep-first"]

NO_VALUE = ("", "nan", "null", "\\n")  # without case and spaces; \N is the null of database exports


@dataclass
class Problems:
    """The problems of one source, each with its count and its first row (counted from 1)."""

    source: str
    found: list[str] = field(default_factory=list)
    mends: list[str] = field(default_factory=list)

    def add(self, text: str, mend: str) -> None:
        self.found.append(text)
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
            self.add(f"column {name!r} has {short(value)} in row {int(rows[first]) + 1}{more}", rule)

    def refuse(self) -> None:
        """Raise UserError with all problems, if there are any."""
        if len(self.found) == 1:
            raise UserError(f"{self.source}: {self.found[0]}: {self.mends[0]}.")
        if self.found:
            raise UserError(
                f"{self.source} has {len(self.found)} problems: {'; '.join(self.found)}: "
                f"{'; '.join(self.mends)}."
            )


def number_of_rows(count: int) -> str:
    """`1 row`, `2 rows`."""
    return f"{count:,} {'row' if count == 1 else 'rows'}"


def without_value(column: str, count: int, first_row: int) -> str:
    """`column 'user' has no value in 2 rows (the first is row 5)`, with ``column`` as it is printed."""
    return f"column {column} has no value in {number_of_rows(count)} (the first is row {first_row})"


def dropped(lacking: Mapping[str, int], total: int) -> str:
    """A note about rows left out. ``lacking``: those without a value, by role; a row may lack several."""
    without = {role: f"without {'an' if role == 'item' else 'a'} {role}" for role in lacking}
    if len(lacking) == 1:
        return f"{number_of_rows(total)} {without.popitem()[1]} dropped"
    parts = ", ".join(f"{lacking[x]:,} {text}" for x, text in without.items())
    return f"{number_of_rows(total)} dropped ({parts})"


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
        frame, note = left_in(frame, no_value(frame["event"]), names["event"], event_weights, source)
        notes.append(note)
    roles = [role for role in frame.columns if role != "row"]
    gaps = frame.select(no_value(frame[role]).alias(role) for role in roles)
    gone = gaps.select(pl.any_horizontal(roles)).to_series()
    lacking = {role: count for role in roles if (count := int(gaps[role].sum()))}
    if missing == "drop":
        notes += [dropped(lacking, int(gone.sum()))] if lacking else []
    else:
        for role, count in lacking.items():
            problems.gaps(names[role], count, int(frame["row"][int(gaps[role].arg_true()[0])]) + 1)
    kept = frame.filter(~gone)
    if kept.height == 0:
        problems.refuse()
        raise UserError(f"{source} holds no events, so no users: give a log with at least one row.")
    parsed = {"row": kept["row"]}
    for role in roles:
        values, rows = kept[role], kept["row"]
        if role == "event":
            parsed[role] = values
            continue
        parse = {"user": _ids, "item": _ids, "time": times_of}.get(role, numbers_of)
        parsed[role], bad, rule, unit = parse(values, role)
        problems.bad_values(names[role], values, rows, bad, rule)
        notes += [unit] if unit else []
    kept = pl.DataFrame(parsed).drop_nulls()
    if event_weights is not None and "event" in kept.columns:
        kept = weighted(kept, event_weights)
    if duplicates == "sum" and "weight" not in kept.columns:
        kept = kept.with_columns(weight=pl.lit(1.0, pl.Float32))
    kept, note = _without_repeats(kept, problems, duplicates)
    problems.refuse()
    return Events(kept, (*notes, *([note] if note else [])))


def no_value(column: pl.Series) -> pl.Series:
    """True for null, NaN, blank text and NO_VALUE."""
    if column.dtype == pl.String:
        blank = column.str.strip_chars().str.to_lowercase().is_in(NO_VALUE)
        return column.is_null() | blank.fill_null(True)
    if column.dtype.is_float():
        return column.is_null() | column.is_nan().fill_null(True)
    return column.is_null()


Parsed = tuple[pl.Series, pl.Series, str, str]
"""Parsed values (null where bad), True for each bad value, the rule, and a note."""


def _ids(column: pl.Series, role: str) -> Parsed:
    """Ids as Int64, or as String if they are names."""
    rule = "ids are whole numbers from 0 to 2**63-1, or strings"
    if column.dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    if column.dtype == pl.String:
        if not column.str.contains(NUMBER).all():
            names = column.str.strip_chars()
            return names, pl.repeat(False, column.len(), dtype=pl.Boolean, eager=True), rule, ""
        numbers = whole_numbers(column.str.strip_chars())
    elif column.dtype.is_integer():
        numbers = column.cast(pl.Int64, strict=False)
    elif column.dtype.is_float():
        numbers = whole_part(column)
    else:
        numbers = pl.repeat(None, column.len(), dtype=pl.Int64, eager=True)
    bad = (numbers < 0).fill_null(True)
    return numbers.set(bad, None), bad, rule, ""


def whole_numbers(texts: pl.Series) -> pl.Series:
    """Int64 of texts without spaces at the ends, null where a text is not a whole number."""
    numbers = texts.cast(pl.Int64, strict=False)
    if numbers.has_nulls():  # 12.0, as programs write whole numbers of a column with gaps
        numbers = numbers.fill_null(whole_part(texts.cast(pl.Float64, strict=False)))
    return numbers


def whole_part(numbers: pl.Series) -> pl.Series:
    """Int64, null where a number has a fraction or is too large to be exact."""
    sound = (numbers == numbers.floor()) & (numbers.abs() < 2.0**53)
    return numbers.set(~sound.fill_null(False), None).cast(pl.Int64, strict=False)


def numbers_of(column: pl.Series, role: str) -> Parsed:
    numbers, note, commas = pl.repeat(None, column.len(), dtype=pl.Float32, eager=True), "", ""
    if column.dtype == pl.String:
        column, note = _with_points(truths_as_numbers(column))
        commas = ", without commas between digits" if column.str.contains(r"\d,\d").any() else ""
    if column.dtype in (pl.String, pl.Boolean) or column.dtype.is_numeric():
        numbers = column.cast(pl.Float32, strict=False)
    bad = numbers.is_finite().not_().fill_null(True)
    rule = f"{role}s are finite numbers{commas}"
    if role == "weight":
        bad, rule = bad | (numbers <= 0).fill_null(True), f"weights are finite numbers above 0{commas}"
        rule += f" (--weight-column {NO_COLUMN} for no weights)"
    return numbers.set(bad, None), bad, rule, note


def floats(column: pl.Series) -> pl.Series:
    """Float64, null where a value is not a number, as in a column of lists; `true` is 1 and `false` 0."""
    if column.dtype.is_nested():
        return pl.repeat(None, column.len(), dtype=pl.Float64, eager=True)
    return (truths_as_numbers(column) if column.dtype == pl.String else column).cast(pl.Float64, strict=False)


def truths_as_numbers(texts: pl.Series) -> pl.Series:
    """Texts with 1 in place of `true` and 0 in place of `false`, whatever their case."""
    words = texts.str.strip_chars().str.to_lowercase()
    return texts.set((words == "true").fill_null(False), "1").set((words == "false").fill_null(False), "0")


def _with_points(column: pl.Series) -> tuple[pl.Series, str]:
    """Texts with points in place of decimal commas, and a note; unchanged if 1,234 could be 1234."""
    commas = column.filter(column.str.contains(r"^\s*[+-]?\d+,\d+\s*$").fill_null(False))
    clear = commas.len() and not commas.str.contains(r",\d{3}\s*$").all()
    if not clear or column.str.contains(".", literal=True).any():
        return column, ""
    return column.str.replace(",", ".", literal=True), "decimal commas read as points"


def _without_repeats(frame: pl.DataFrame, problems: Problems, how: Duplicates) -> tuple[pl.DataFrame, str]:
    """The events without repeats, sorted by row, and a note; or a problem."""
    keys = [role for role in ("user", "item", "time", "event") if role in frame.columns]
    more = frame.height - frame.select(pl.struct(keys).n_unique()).item()
    if more == 0:
        return frame, ""
    if how == "refuse":
        repeated = frame.filter(frame.select(keys).is_duplicated())
        first = repeated.join(repeated.head(1).select(keys), on=keys, how="semi")["row"] + 1
        text = f"rows {first[0]} and {first[1]} have the same {', '.join(keys)}"
        if more > 1:
            text += f" (and {more - 1:,} more rows repeat others)"
        mend = "remove repeated rows, give a time column with different times for them, or give --duplicates "
        problems.add(text, mend + "sum or --duplicates keep-first")
        return frame, ""
    if how == "keep-first":
        kept = frame.unique(keys, keep="first", maintain_order=True)
        return kept, f"{more:,} repeated rows dropped"
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
