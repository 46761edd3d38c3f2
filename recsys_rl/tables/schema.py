"""The columns of a log of decisions, the rule of each value, and the rules of rows together.

One page for all that reads logs: cells.py and checks.py raise an error about the first value and the first
row that break a rule, and survey.py counts such values and rows. docs/09_logs.md describes the columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from recsys_rl.tables.clean import floats, truths_as_numbers, whole_numbers, whole_part

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


@dataclass(frozen=True)
class Rule:
    """A rule of rows. ``row`` is the number of a row in the file."""

    needs: tuple[str, ...]  # columns of the frame
    broken: pl.Expr  # True in a row that breaks it; null counts as False
    sentence: pl.Expr  # about the row
    problem: str = ""  # about several rows, in a description; "" for a rule that reading alone can check


_ROW, _SESSION, _STEP = pl.col("row"), pl.col("session"), pl.col("step")
_USER, _TIME = pl.col("user"), pl.col("time")
_SAME = _SESSION.shift() == _SESSION  # the row before is of the same session
_LAST = (_SESSION.shift(-1) != _SESSION).fill_null(True)
_WANTED = pl.when(_SAME).then(_STEP.shift() + 1).otherwise(0)
_ENDED = pl.col("terminated") | pl.col("truncated")

OF_SESSIONS = (
    Rule(
        ("session", "step"),
        _SAME & (_STEP.shift() == _STEP),
        pl.format(
            "rows {} and {} are both step {} of session {}: remove one of them",
            *(_ROW.shift(), _ROW, _STEP, _SESSION),
        ),
        "rows that repeat the session and step of an earlier row",
    ),
    Rule(
        ("session", "step"),
        _STEP > _WANTED,
        pl.format(
            "session {} has step {} in row {} but no step {}: steps count 0, 1, 2, ... without a gap; leave "
            "the whole session out",
            *(_SESSION, _STEP, _ROW, _WANTED),
        ),
        "rows whose session has no step before theirs",
    ),
    Rule(
        ("session", "user"),
        _SAME & (_USER.shift() != _USER),
        pl.format(
            "session {} is of the users {} and {} (row {}): give each session of each user its own number",
            *(_SESSION, _USER.shift(), _USER, _ROW),
        ),
        "rows of another user than the row before in their session",
    ),
    Rule(
        ("session", "step", "time"),
        _SAME & (_TIME.shift() > _TIME),
        pl.format(
            "session {} goes back in time at step {} (row {}): times may not fall within a session",
            *(_SESSION, _STEP, _ROW),
        ),
        "rows with an earlier time than the step before in their session",
    ),
    Rule(
        ("session", "terminated", "truncated"),
        _SAME & _ENDED.shift(),
        pl.format(
            "session {} goes on after it ended (row {}): only the last step may be terminated or truncated",
            *(_SESSION, _ROW),
        ),
        "rows of a session after its end",
    ),
    Rule(
        ("session", "terminated", "truncated"),
        (_LAST & ~_ENDED) | (pl.col("terminated") & pl.col("truncated")),
        pl.format(
            "the last step of session {} (row {}) is {} terminated {} truncated: give one, terminated if the "
            "user left, truncated if the recording stopped",
            *(_SESSION, _ROW),
            pl.when(_ENDED).then(pl.lit("both")).otherwise(pl.lit("neither")),
            pl.when(_ENDED).then(pl.lit("and")).otherwise(pl.lit("nor")),
        ),
    ),
)
"""Rules of a frame that is ordered by session and step."""

_ITEMS, _CANDIDATES, _EXCLUDE = pl.col("items"), pl.col("candidates"), pl.col("exclude")
_EXCLUDED = _ITEMS.list.set_intersection(_EXCLUDE)
_OUTSIDE = _ITEMS.list.set_difference(_CANDIDATES)
MEND = ", so it could not be shown: correct the row, or leave its session out"

OF_LISTS = (
    Rule(
        ("items", "exclude"),
        _EXCLUDED.list.len() > 0,
        pl.format("item {} of row {} is among the row's exclude" + MEND, _EXCLUDED.list.first(), _ROW),
        "items that the row excludes",
    ),
    Rule(
        ("items", "candidates"),
        _OUTSIDE.list.len() > 0,
        pl.format("item {} of row {} is not among the row's candidates" + MEND, _OUTSIDE.list.first(), _ROW),
        "items that are not among the candidates of their row",
    ),
    Rule(
        ("items", "slate"),
        _ITEMS.list.n_unique() < _ITEMS.list.len(),
        pl.format("row {} shows an item twice" + MEND, _ROW),
        "slates that show an item twice",
    ),
)
"""Rules of a frame with lists of ids, without padding."""

OF_FACTORS = (
    Rule(
        ("place_logprobs", "logprob"),
        ~(
            (pl.col("place_logprobs").list.sum() - pl.col("logprob")).abs()
            <= ROUNDING * pl.col("place_logprobs").list.len()
        ),
        pl.format(
            "place_logprobs of row {} do not add up to its logprob: a row's probability is the product of "
            "its places'",
            _ROW,
        ),
    ),
    Rule(
        ("logger_logprobs", "logprob", "logger"),
        ~((pl.col("logger_logprobs").list.get(pl.col("logger")) - pl.col("logprob")).abs() <= ROUNDING),
        pl.format(
            "logger_logprobs of row {} are impossible: that of the row's own logger is not its logprob", _ROW
        ),
    ),
)
"""Rules of the log-probabilities of a row."""


def broken(frame: pl.DataFrame, rules: Sequence[Rule]) -> Iterator[tuple[Rule, pl.Series]]:
    """The rules that some rows of the frame break, in their order, and True for each such row."""
    for rule in rules:
        if set(rule.needs) <= set(frame.columns):
            rows = frame.select(rule.broken.fill_null(False).alias("broken")).to_series()
            if rows.any():
                yield rule, rows
