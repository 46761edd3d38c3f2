"""The rules that the rows of a log of decisions follow together, as expressions of polars.

checks.py raises an error about the first row that breaks a rule, and survey.py counts such rows. The rule of
each single value stands in columns.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from recsys_rl.decisions.columns import ROUNDING


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
