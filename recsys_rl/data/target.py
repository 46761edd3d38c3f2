"""The probabilities of anyone's policy for the rows of a DecisionLog, from a CSV or Parquet file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys_rl.data.decisions import DecisionLog
from recsys_rl.data.read import parsing
from recsys_rl.errors import one_line
from recsys_rl.types import UserError


def read_target(path: str | Path, log: DecisionLog) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities (E,) of the logged actions, and probabilities (E, I) of every item or None.

    The file has one row for each decision, in any order: ``session``, ``step``, and ``propensity`` (or
    ``logprob``) of the logged action under the policy. A Parquet file may have a list column
    ``probabilities``, of all items (``check_support`` checks the masks).

    Raises UserError if a row is missing, double, or has no probability, or if its two columns disagree.
    """
    path = Path(path)
    name = one_line(path)
    if not path.is_file():
        raise UserError(f"{name} is not a file: give a file with the columns session, step and propensity.")
    with parsing(name):
        frame = pl.read_parquet(path, glob=False) if path.suffix == ".parquet" else pl.read_csv(path)
    column = "propensity" if "propensity" in frame.columns else "logprob"
    missing = [x for x in ("session", "step", column) if x not in frame.columns]
    if missing:
        raise UserError(
            f"{name} has no column {missing[0]}: it needs session, step and propensity (or logprob)."
        )
    keys = pl.DataFrame({"session": log.sessions.numpy(), "step": log.steps.numpy()}).with_row_index("row")
    with parsing(name):
        frame = frame.with_columns(pl.col("session", "step").cast(pl.Int64), pl.col(column).cast(pl.Float64))
    joined = keys.join(frame, on=["session", "step"], how="left", maintain_order="left")
    if len(joined) != log.num_rows:
        raise UserError(f"{name} has a decision twice: give one row for each session and step.")
    values = torch.from_numpy(joined[column].fill_null(float("nan")).to_numpy().astype(np.float64))
    _check(name, column, values, log)
    logprobs = values if column == "logprob" else values.log()
    if "probabilities" not in frame.columns:
        return logprobs, None
    every = _distributions(name, joined["probabilities"], log)
    chosen = every.gather(1, log.items).squeeze(1)  # (E,)
    wrong = (chosen - logprobs.exp()).abs() > 1e-4
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise UserError(
            f"{name}: the logged item of {_place(log, row)} has the {column} {float(values[row]):g}, but "
            f"{float(chosen[row]):g} in the column probabilities: correct one of them."
        )
    return logprobs, every


def _distributions(name: str, column: pl.Series, log: DecisionLog) -> Tensor:
    """(E, I) float64 from lists of I probabilities, which sum to 1. Raises UserError."""
    if log.items.shape[1] > 1:
        raise UserError(
            f"{name}: the column probabilities is for logs of single items, and this log has slates of "
            f"{log.items.shape[1]}: leave the column out."
        )
    items = log.header.num_items
    if isinstance(column.dtype, pl.Array):
        column = column.arr.to_list()
    kind = column.dtype
    numbers = isinstance(kind, pl.List) and kind.inner.is_numeric()
    if not numbers or column.is_null().any() or (column.list.len() != items).any():
        raise UserError(
            f"{name}: each row of the column probabilities needs a list of {items} numbers, one of each item."
        )
    every = torch.from_numpy(column.explode().cast(pl.Float64).to_numpy().copy()).reshape(-1, items)
    wrong = ~((every >= 0).all(1) & ((every.sum(1) - 1).abs() <= 1e-4))  # True for NaN
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise UserError(
            f"{name}: the probabilities of {_place(log, row)} are no distribution: give numbers of at "
            "least 0 that sum to 1."
        )
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
        hint = (
            "a probability lies in 0..1"
            if column == "propensity"
            else "a logarithm of a probability is at most 0"
        )
        raise UserError(
            f"{name}: the {column} {float(values[row]):g} of {_place(log, row)} is impossible: {hint}."
        )
