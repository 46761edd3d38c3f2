"""The columns of a log of decisions: the kind of their values, the rule of each value, and its sentence.

One table for all that reads logs: cells.py raises an error about the first value that breaks a rule, and
survey.py counts such values. docs/09_logs.md describes the columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl

from recsys_rl.files.clean import floats, truths_as_numbers, whole_numbers, whole_part

ROUNDING = 1e-5
"""Largest error of a logarithm or of a sum of logarithms that counts as rounding."""
X = pl.col("x")  # a value of a column
_LOGARITHM = X.is_not_nan() & (X <= ROUNDING)


@dataclass(frozen=True)
class Column:
    """A column, or all columns whose names begin alike."""

    name: str  # a beginning ends with a point: "signal."
    kind: Literal["id", "whole", "number", "truth", "name"]
    sound: pl.Expr | None = None  # of X; True for a value that follows the rule
    sentence: str = ""  # the rule, after a wrong value and its row
    problem: str = ""  # what a column with wrong values "has" or "is", in a description


_TABLE = (
    Column("user", "id"),
    Column("session", "id"),
    Column("policy", "name"),
    Column("logger", "name"),
    Column("items", "id"),
    Column("event_items", "id"),
    Column("candidates", "id"),
    Column("exclude", "id"),
    Column("time", "whole"),
    Column("step", "whole", X >= 0, "steps are whole numbers from 0 on", "has no whole number from 0 on"),
    Column(
        "propensity",
        "number",
        (X > 0) & (X <= 1),
        "a probability is above 0 and at most 1, as the action was taken",
        "is not a probability above 0 and up to 1",
    ),
    Column(
        "logprob",
        "number",
        X.is_finite() & (X <= ROUNDING),
        "a logarithm of a probability is a number up to 0",
        "is not a logarithm of a probability above 0 and up to 1",
    ),
    # Of a policy that did not decide: the action may be impossible under it.
    Column("propensity.", "number", X.is_between(0, 1), "a probability lies in 0..1", "is not in 0..1"),
    Column("probability.", "number", X >= 0, "a probability is at least 0", "is not a probability"),
    Column("probabilities", "number", X >= 0, "a probability is at least 0", "is not a probability"),
    Column("logger_logprobs", "number", _LOGARITHM, "logarithms of probabilities are at most 0"),
    Column("place_logprobs", "number"),
    Column("reward", "number", X.is_finite(), "give every shown item its outcome", "has no finite number"),
    Column("signal.", "number", X.is_finite(), "give every shown item its outcome", "has no finite number"),
    Column("event_signal.", "number", X.is_finite(), "give each event its outcome"),
    Column("context.", "number", X.is_finite(), "give finite numbers"),
    Column("terminated", "truth"),
    Column("truncated", "truth"),
)
COLUMNS = {column.name: column for column in _TABLE}
BY_NAME = ("step", "terminated", "truncated", "place_logprobs", "probabilities")
"""Columns of a table of decisions that are found by this name alone; others have a role with common names."""
BY_START = ("signal.", "context.", "probability.", "propensity.")
"""Beginnings of the names of its columns for signals, pieces of context, items and policies."""


def column_of(name: str) -> Column:
    """The entry of the table for a column of this name."""
    return COLUMNS.get(name) or COLUMNS[name.partition(".")[0] + "."]


def numbers(values: pl.Series, column: Column) -> tuple[pl.Series, pl.Series]:
    """The values as numbers, null where they have none, and True for each that breaks the rule.

    Numbers are Int64 for whole numbers, else floats; texts may hold them. Gaps break no rule.
    """
    if column.kind in ("whole", "id"):
        found = _whole(values)
    elif column.kind == "truth":
        found = values if values.dtype == pl.Boolean else _truths(values)
    else:
        found = values if values.dtype.is_float() else floats(values)
    wrong = found.is_null()
    if column.sound is not None:
        wrong |= found.to_frame("x").select(~column.sound).to_series().fill_null(True)
    return found, wrong & values.is_not_null()


def _whole(values: pl.Series) -> pl.Series:
    if values.dtype == pl.String:
        return whole_numbers(values.str.strip_chars())
    if values.dtype.is_float():
        return whole_part(values)
    sound = values.dtype.is_integer()
    return values.cast(pl.Int64, strict=False) if sound else pl.Series([None] * len(values), dtype=pl.Int64)


def _truths(values: pl.Series) -> pl.Series:
    """Boolean: true, false, 1 and 0, whatever their case."""
    if values.dtype.is_nested():
        return pl.Series([None] * len(values), dtype=pl.Boolean)
    texts = truths_as_numbers(values.cast(pl.String))
    return texts.replace_strict({"0": False, "1": True}, default=None, return_dtype=pl.Boolean)
