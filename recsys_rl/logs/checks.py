"""The rules of the rows of a DecisionLog, and the UserError for the first row that breaks one.

describe/decision_survey.py counts such rows by the same rules. Rows are counted from 1, in the order of the
file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from recsys_rl.data.catalogue_hash import catalogue_hash
from recsys_rl.data.tables.findings import Finding, TableError, wrong
from recsys_rl.data.tables.schema import ROUNDING, STORED
from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog
from recsys_rl.types import Catalogue, UserError

BLOCK = 65_536  # rows whose lists are compared together


@dataclass(frozen=True)
class Rule:
    """A rule of rows. ``row`` is the number of a row in the file."""

    needs: tuple[str, ...]  # columns of the frame
    broken: pl.Expr  # True in a row that breaks it; null counts as False
    sentence: str  # about the row, with places (data/tables/findings.py)
    values: Mapping[str, pl.Expr]  # of these places
    problem: str = ""  # about several rows, in a description; "" for a rule that reading alone can check

    def finding(self, frame: pl.DataFrame, rows: pl.Series) -> Finding:
        """The first in the order of the file of the ``rows`` that break the rule, True for each."""
        values = frame.select(_ROW.alias("\0row"), **self.values).filter(rows).sort("\0row")
        return Finding(self.sentence, values.drop("\0row").row(0, named=True))


_ROW, _SESSION, _STEP = pl.col("row"), pl.col("session"), pl.col("step")
_USER, _TIME, _PLACE = pl.col("user"), pl.col("time"), pl.col("list_place")
_SAME = _SESSION.shift() == _SESSION  # the row before is of the same session
_LAST = (_SESSION.shift(-1) != _SESSION).fill_null(True)
_WANTED = pl.when(_SAME).then(_STEP.shift() + 1).otherwise(0)
_ENDED = pl.col("terminated") | pl.col("truncated")

OF_SESSIONS = (
    Rule(
        ("session", "step"),
        _SAME & (_STEP.shift() == _STEP),
        "{rows} are both step {step} of {session}: remove one of them",
        {"rows": pl.concat_list(_ROW.shift(), _ROW), "step": _STEP, "session": _SESSION},
        "rows that repeat the session and step of an earlier row",
    ),
    Rule(
        ("session", "step"),
        _STEP > _WANTED,
        "{session} has step {step} in {row} but no step {wanted}: steps count 0, 1, 2, ... without a gap; "
        "leave the whole session out",
        {"session": _SESSION, "step": _STEP, "row": _ROW, "wanted": _WANTED},
        "rows whose session has no step before theirs",
    ),
    Rule(
        ("session", "user"),
        _SAME & (_USER.shift() != _USER),
        "{session} is of the {users} ({row}): give each session of each user its own number",
        {"session": _SESSION, "users": pl.concat_list(_USER.shift(), _USER), "row": _ROW},
        "rows of another user than the row before in their session",
    ),
    Rule(
        ("session", "step", "time"),
        _SAME & (_TIME.shift() > _TIME),
        "{session} goes back in time at step {step} ({row}): times may not fall within a session",
        {"session": _SESSION, "step": _STEP, "row": _ROW},
        "rows with an earlier time than the step before in their session",
    ),
    Rule(
        ("session", "terminated", "truncated"),
        _SAME & _ENDED.shift(),
        "{session} goes on after it ended ({row}): only the last step may be terminated or truncated",
        {"session": _SESSION, "row": _ROW},
        "rows of a session after its end",
    ),
    Rule(
        ("session", "terminated", "truncated"),
        (_LAST & ~_ENDED) | (pl.col("terminated") & pl.col("truncated")),
        "the last step of {session} ({row}) is {one} terminated {other} truncated: give one, terminated if "
        "the user left, truncated if the recording stopped",
        {
            "session": _SESSION,
            "row": _ROW,
            "one": pl.when(_ENDED).then(pl.lit("both")).otherwise(pl.lit("neither")),
            "other": pl.when(_ENDED).then(pl.lit("and")).otherwise(pl.lit("nor")),
        },
    ),
    Rule(
        ("session", "list_place"),
        (_PLACE > 0) & ~(_SAME & (_PLACE.shift() == _PLACE - 1)).fill_null(False),
        "{row} of {session} has list_place {place}, and the row before it has not {before}: the rows of a "
        "list stand one after another, and their places count 0, 1, 2, ...",
        {"row": _ROW, "session": _SESSION, "place": _PLACE, "before": _PLACE - 1},
        "rows of a list without the place before theirs",
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
        "{item} of {row} is among the row's exclude" + MEND,
        {"item": _EXCLUDED.list.first(), "row": _ROW},
        "items that the row excludes",
    ),
    Rule(
        ("items", "candidates"),
        _OUTSIDE.list.len() > 0,
        "{item} of {row} is not among the row's candidates" + MEND,
        {"item": _OUTSIDE.list.first(), "row": _ROW},
        "items that are not among the candidates of their row",
    ),
    Rule(
        ("items", "slate"),
        _ITEMS.list.n_unique() < _ITEMS.list.len(),
        "{row} shows an item twice" + MEND,
        {"row": _ROW},
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
        "place_logprobs of {row} do not add up to its logprob: a row's probability is the product of its "
        "places'",
        {"row": _ROW},
    ),
    Rule(
        ("logger_logprobs", "logprob", "logger"),
        ~((pl.col("logger_logprobs").list.get(pl.col("logger")) - pl.col("logprob")).abs() <= ROUNDING),
        "logger_logprobs of {row} are impossible: that of the row's own logger is not its logprob",
        {"row": _ROW},
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


def check_rows(name: str, log: DecisionLog, rows: Tensor) -> None:
    """Raise UserError for the first mistake in a log whose rows are ordered by session and step.

    ``rows`` (E,) are the numbers of the rows in the file, from 1.
    """
    fields = {column.name: getattr(log, column.field) for column in STORED if column.form == "row"}
    columns = {"row": rows} | {column: values for column, values in fields.items() if values is not None}
    _refuse(name, pl.DataFrame({column: values.numpy() for column, values in columns.items()}), OF_SESSIONS)
    for start in range(0, log.num_rows, BLOCK):
        at = torch.arange(start, min(start + BLOCK, log.num_rows))
        _refuse(name, _lists(log.rows(at), rows[at]), (*OF_LISTS, *OF_FACTORS))
    if not log.header.interface.repeats:
        _refuse_repeats(name, log, rows)
    if log.lists_propensities:
        several = len(log.header.loggers) > 1 and not log.header.applications
        if several and log.logger_logprobs is None:
            raise UserError(
                f"{name} has several loggers but no column logger_logprobs: each row needs its logprob under "
                "every logger."
            )
    elif log.place_logprobs is not None or log.logger_logprobs is not None:
        raise UserError(
            f"{name} has place_logprobs or logger_logprobs but neither logprob nor propensity: add that of "
            "the whole action."
        )


def check_catalogue(name: str, header: DecisionHeader, catalogue: Catalogue, source: str = "") -> None:
    """Raise UserError if the log is of another catalogue than ``catalogue``.

    ``source``: the data that the checkpoint's catalogue was made of, in words; "" if unknown.
    """
    if header.num_items == catalogue.num_items and header.catalogue == catalogue_hash(catalogue):
        return
    of = f", made of {source}" if source else ""
    mend = "give the checkpoint, or the log, of the same data, seed and platform"
    if header.num_items == catalogue.num_items:
        raise UserError(
            f"{name} is a log of another catalogue than the checkpoint's{of}: both have "
            f"{catalogue.num_items:,} items, but their ids, embeddings or attributes differ; {mend}."
        )
    raise UserError(
        f"{name} is a log of another catalogue ({header.num_items:,} items) than the checkpoint's "
        f"({catalogue.num_items:,} items{of}): {mend}."
    )


def _refuse(name: str, frame: pl.DataFrame, rules: Sequence[Rule]) -> None:
    for rule, rows in broken(frame, rules):
        raise TableError(name, rule.finding(frame, rows))


def _lists(log: DecisionLog, rows: Tensor) -> pl.DataFrame:
    """The frame of ``OF_LISTS`` and ``OF_FACTORS``."""
    columns = {"row": pl.Series(rows.numpy())}
    needed = {name for rule in (*OF_LISTS, *OF_FACTORS) for name in rule.needs}
    for column in STORED:
        values, ids = getattr(log, column.field), column.kind == "id"
        if column.name in needed and values is not None and (ids or log.lists_propensities):
            columns[column.name] = _column(values, ids)
    if log.header.interface.repeats and log.items.shape[1] > 1:
        columns["slate"] = columns["row"]
    return pl.DataFrame(columns)


def _column(values: Tensor, ids: bool) -> pl.Series:
    """A column of numbers (E,), or of lists of the values (E, n), without the padding of ``ids``."""
    if values.ndim == 1:
        return pl.Series(values.numpy())
    if not values.shape[1]:
        return pl.Series([[]] * len(values), dtype=pl.List(pl.Int64))
    lists = pl.Series(values.numpy()).arr.to_list()
    return lists.list.eval(pl.element().filter(pl.element() >= 0)) if ids else lists


def _refuse_repeats(name: str, log: DecisionLog, rows: Tensor) -> None:
    """Raise UserError for the first item that was shown before in its session."""
    places = log.items.shape[1]
    frame = pl.DataFrame(
        {
            "row": rows.repeat_interleave(places).numpy(),
            "session": log.sessions.repeat_interleave(places).numpy(),
            "item": log.items.flatten().numpy(),
        }
    )
    again = pl.struct("session", "item").is_first_distinct().not_() & (pl.col("item") >= 0)
    repeats = frame.lazy().filter(again).sort("row").head(1).collect()
    if repeats.height:
        row, _, item = repeats.row(0)
        raise wrong(name, "{item} of {row} was shown before in the same session" + MEND, item=item, row=row)
