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
    ``probabilities``, of all items. Raises UserError if a row is missing, double, or has no probability.
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
    items = log.header.num_items
    if (joined["probabilities"].list.len() != items).any():
        raise UserError(
            f"{name}: a list in the column probabilities needs {items} values, one for each item."
        )
    every = torch.from_numpy(joined["probabilities"].explode().to_numpy().astype(np.float64)).reshape(
        -1, items
    )
    if bool((every < 0).any()) or bool(((every.sum(1) - 1).abs() > 1e-4).any()):
        raise UserError(f"{name}: a list in the column probabilities is no distribution: each must sum to 1.")
    return logprobs, every


def _check(name: str, column: str, values: Tensor, log: DecisionLog) -> None:
    nothing = values.isnan()
    if bool(nothing.any()):
        row = int(nothing.nonzero()[0])
        raise UserError(
            f"{name} has no {column} for step {int(log.steps[row])} of session {int(log.sessions[row])}: "
            "give one row for each decision of the log."
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
            f"{name}: the {column} {float(values[row]):g} of step {int(log.steps[row])} of session "
            f"{int(log.sessions[row])} is impossible: {hint}."
        )
