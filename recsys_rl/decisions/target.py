"""The probabilities of anyone's policy for the rows of a DecisionLog, from a CSV or Parquet file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys_rl.decisions.checks import check_distributions
from recsys_rl.decisions.log import DecisionLog
from recsys_rl.errors import listed, one_line, short
from recsys_rl.files.clean import no_value, without_value
from recsys_rl.files.columns import COMMON, plain_name
from recsys_rl.files.read import lists_of, open_table, parsing
from recsys_rl.types import UserError


@dataclass(frozen=True)
class Target:
    """Anyone's policy on the E rows of a log."""

    logprobs: Tensor  # (E,) float64: of the logged actions
    every: Tensor | None = None  # (E, I) float64: the probability of every item
    places: Tensor | None = None  # (E, K) float64: the terms of logprobs, each place given those above


@dataclass(frozen=True)
class Ids:
    """The ids of people's own log (decisions/table.py), which a file of probabilities refers to."""

    items: Sequence[str]  # (I,)
    rows: Tensor  # (E,): the place in the log's file of each row
    sessions: Sequence[str] | None  # by number; None: the log has none
    session_column: str = ""


def read_target(path: str | Path, log: DecisionLog, ids: Ids | None = None) -> Target:
    """The probabilities of a policy, from a CSV or Parquet file with one row for each decision.

    Columns: ``session``, ``step``, and ``propensity`` (or ``logprob``) of the logged action under the policy.
    It may have the probability of every item (``check_support`` checks the masks): a list ``probabilities``
    in the order of the catalogue, or a column ``probability.ID`` for each item. For slates it may have a
    list ``place_logprobs``. Beside people's own log (``ids``) the column of the sessions may have the log's
    name or another common one; a file without it has the rows of the log in the order of its file. ``step``
    may be absent if each session has one.

    Raises UserError if a row is missing, double, or has no probability, or if its columns disagree.
    """
    path = Path(path)
    name = one_line(path)
    if not path.is_file():
        raise UserError(f"{name} is not a file: give a file with the columns session, step and propensity.")
    with parsing(name):
        table = open_table(path)
        frame = table.rows(table.names)
    column = "propensity" if "propensity" in frame.columns else "logprob"
    frame = _as_numbers(name, frame, column, texts=ids is not None and ids.sessions is not None)
    frame = _keyed(name, frame, log, ids)
    missing = [x for x in ("session", "step", column) if x not in frame.columns]
    if missing:
        raise UserError(
            f"{name} has no column {missing[0]}: it needs session, step and propensity (or logprob)."
        )
    keys = pl.DataFrame({"session": log.sessions.numpy(), "step": log.steps.numpy()}).with_row_index("row")
    with parsing(name):
        frame = frame.with_columns(pl.col("session", "step").cast(pl.Int64))
    joined = keys.join(frame, on=["session", "step"], how="left", maintain_order="left")
    if len(joined) != log.num_rows:
        raise UserError(f"{name} has a decision twice: give one row for each session and step.")
    values = torch.from_numpy(joined[column].fill_null(float("nan")).to_numpy().astype(np.float64))
    _check(name, column, values, log)
    logprobs = values if column == "logprob" else values.log()
    every = _every(name, joined, log, ids)
    if every is not None:
        _check_agreement(name, column, values, every.gather(1, log.items).squeeze(1), logprobs, log)
    return Target(logprobs, every, _places(name, joined, logprobs, log))


def _as_numbers(name: str, frame: pl.DataFrame, column: str, texts: bool) -> pl.DataFrame:
    """The frame with its numbers as such; ``texts``: its sessions may be texts.

    Raises UserError with the row of a cell that is empty or no number, of sessions and steps no whole number.
    """
    kinds = {x: pl.Float64 for x in frame.columns if x == column or x.startswith("probability.")}
    whole = {x: pl.Int64 for x in ("step", *(() if texts else ("session",))) if x in frame.columns}
    found = []
    for which, kind in {**kinds, **whole}.items():
        series = frame[which]
        gaps = no_value(series)
        if gaps.any():
            raise UserError(
                f"{name}: {without_value(short(which), int(gaps.sum()), int(gaps.arg_true()[0]) + 1)}: "
                "fill them in, or leave these rows out."
            )
        with parsing(name):
            plain = series.str.strip_chars() if series.dtype == pl.String else series
            values = plain.cast(pl.Float64, strict=False)
            # Large whole numbers are read as such; the text 1.0 is none to polars.
            numbers = plain.cast(kind, strict=False).fill_null(values.cast(kind, strict=False))
        wrong = (numbers.is_null() | (values != numbers)).arg_true()  # a cast to whole numbers cuts fractions
        if wrong.len():
            row = int(wrong[0])
            what = "whole numbers" if kind == pl.Int64 else "numbers"
            raise UserError(
                f"{name}: column {short(which)} has {short(series[row])} in row {row + 1}: give {what}."
            )
        found.append(numbers)
    return frame.with_columns(found)


def _keyed(name: str, frame: pl.DataFrame, log: DecisionLog, ids: Ids | None) -> pl.DataFrame:
    """The frame with the numbers of sessions and steps, beside people's own log."""
    if ids is None:
        return frame
    if ids.sessions is not None:
        frame = _with_session(name, frame, ids.session_column)
    if "session" not in frame.columns:
        return _in_order(name, frame, log, ids.rows)
    if ids.sessions is not None:
        numbers = {text: number for number, text in enumerate(ids.sessions)}
        texts = frame["session"].cast(pl.String).str.strip_chars()
        frame = frame.with_columns(texts.replace_strict(numbers, default=None, return_dtype=pl.Int64))
    if "step" not in frame.columns and not bool(log.steps.any()):
        frame = frame.with_columns(step=pl.lit(0))
    return frame


def _with_session(name: str, frame: pl.DataFrame, wanted: str) -> pl.DataFrame:
    """The frame whose column of sessions, if it has one, has the name ``session``."""
    if "session" in frame.columns:
        return frame
    fits = [x for x in frame.columns if x == wanted]
    fits = fits or [x for x in frame.columns if plain_name(x) in COMMON["session"]]
    if len(fits) > 1:
        raise UserError(f"{name}: {listed(fits)} may all hold the session: name one of them session.")
    return frame.rename(dict.fromkeys(fits, "session"))


def _in_order(name: str, frame: pl.DataFrame, log: DecisionLog, rows: Tensor) -> pl.DataFrame:
    """The frame of a file that has the rows of the log in the order of its file; ``rows`` (E,): see Ids."""
    if frame.height != log.num_rows:
        raise UserError(
            f"{name} has {frame.height:,} rows and the log {log.num_rows:,}: give a row for each "
            "decision, in the order of the log, or the column session."
        )
    frame = frame[rows.numpy()]
    steps = pl.Series("step", log.steps.numpy())
    if "step" in frame.columns and not frame["step"].cast(pl.Int64, strict=False).eq_missing(steps).all():
        raise UserError(
            f"{name} has no column of sessions, and its steps are not those of the log row by row: add the "
            "column session, or give the rows in the order of the log."
        )
    return frame.with_columns(steps, pl.Series("session", log.sessions.numpy()))


def _every(name: str, joined: pl.DataFrame, log: DecisionLog, ids: Ids | None) -> Tensor | None:
    """(E, I) of the list ``probabilities`` or of the columns ``probability.ID``; None without either."""
    if "probabilities" in joined.columns:
        return _distributions(name, joined["probabilities"], log)
    named = [x for x in joined.columns if x.startswith("probability.")]
    if not named:
        return None
    items = ids.items if ids is not None else [str(k) for k in range(log.header.num_items)]
    lacking = [x for x in items if f"probability.{x}" not in named]
    if lacking or len(named) > len(items):
        more = [x for x in named if x.removeprefix("probability.") not in items]
        what = (
            f"no column probability.{one_line(lacking[0])}" if lacking else f"the column {one_line(more[0])}"
        )
        hint = ""
        if ids is not None and not lacking:
            hint = (
                " The log neither shows nor offers this item: if it could be shown, name it in the log's "
                "column candidates, or give the log a column probability.ID for every item."
            )
        raise UserError(
            f"{name} has {what}: give one column for each of the {len(items):,} items of the log.{hint}"
        )
    columns = [joined[f"probability.{x}"] for x in items]
    lists = pl.DataFrame(columns).select(pl.concat_list(pl.all())).to_series()
    return _distributions(name, lists, log)


def _places(name: str, joined: pl.DataFrame, logprobs: Tensor, log: DecisionLog) -> Tensor | None:
    """(E, K) of the list ``place_logprobs``; None without it."""
    if "place_logprobs" not in joined.columns:
        return None
    places = log.items.shape[1]
    found = _numbers(joined["place_logprobs"], places)
    if found is None:
        raise UserError(f"{name}: each row of place_logprobs needs a list of {places} numbers.")
    total = found.sum(1)
    wrong = torch.where(logprobs.isfinite(), ~((total - logprobs).abs() <= 1e-4), total != logprobs)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise UserError(f"{name}: place_logprobs of {_place(log, row)} do not sum to its log-probability.")
    return found


def _numbers(column: pl.Series, size: int) -> Tensor | None:
    """(E, size) float64, NaN for a missing number; None if a row is no list of ``size`` numbers."""
    lists = lists_of(column)
    if lists is None or lists.is_null().any() or (lists.list.len() != size).any():
        return None
    values = lists.explode()
    found = values.cast(pl.Float64, strict=False)
    if (found.is_null() & values.is_not_null()).any():
        return None
    return torch.from_numpy(found.to_numpy().copy()).view(-1, size)


def _check_agreement(
    name: str, column: str, values: Tensor, chosen: Tensor, logprobs: Tensor, log: DecisionLog
) -> None:
    wrong = (chosen - logprobs.exp()).abs() > 1e-4
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise UserError(
            f"{name}: the logged item of {_place(log, row)} has the {column} {float(values[row]):g}, but "
            f"{float(chosen[row]):g} in the column probabilities: correct one of them."
        )


def _distributions(name: str, column: pl.Series, log: DecisionLog) -> Tensor:
    """(E, I) float64 from lists of I probabilities, which sum to 1. Raises UserError."""
    if log.items.shape[1] > 1:
        raise UserError(
            f"{name}: the column probabilities is for logs of single items, and this log has slates of "
            f"{log.items.shape[1]}: leave the column out."
        )
    items = log.header.num_items
    every = _numbers(column, items)
    if every is None:
        raise UserError(
            f"{name}: each row of the column probabilities needs a list of {items} numbers, one of each item."
        )
    check_distributions(name, every, lambda row: _place(log, row))
    return every


def check_support(every: Tensor, allowed: Tensor, rows: Tensor, log: DecisionLog) -> None:
    """Raise UserError if a policy gives an item above 0 that could not be shown.

    Args:
        every: (B, I) probabilities.
        allowed: (B, I) bool.
        rows: (B,) of the log.
    """
    wrong = (every > 0) & ~allowed  # (B, I)
    if bool(wrong.any()):
        row, item = wrong.nonzero()[0].tolist()
        raise UserError(
            f"The column probabilities gives item {item} {float(every[row, item]):g} at "
            f"{_place(log, int(rows[row]))}, where it could not be shown: give it 0."
        )


def _place(log: DecisionLog, row: int) -> str:
    return f"step {int(log.steps[row])} of session {int(log.sessions[row])}"


def _check(name: str, column: str, values: Tensor, log: DecisionLog) -> None:
    nothing = values.isnan()
    if bool(nothing.any()):
        row = int(nothing.nonzero()[0])
        raise UserError(
            f"{name} has no {column} for {_place(log, row)}: give one row for each decision of the log."
        )
    low, high = (0.0, 1.0) if column == "propensity" else (-float("inf"), 0.0)
    wrong = (values < low) | (values > high)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        hint = "a logarithm of a probability is at most 0"
        if column == "propensity":
            hint = "a probability lies in 0..1"
            if bool((values <= 0).all()):
                hint += "; the values look like logarithms: name the column logprob"
        elif bool(((values >= 0) & (values <= 1)).all()):
            hint += "; the values look like probabilities: name the column propensity"
        raise UserError(
            f"{name}: the {column} {float(values[row]):g} of {_place(log, row)} is impossible: {hint}."
        )
