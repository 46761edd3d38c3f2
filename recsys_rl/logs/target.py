"""The probabilities of anyone's policy for the rows of a DecisionLog, from a CSV or Parquet file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from recsys_rl.data.tables.cells import Cells, tensor_of
from recsys_rl.data.tables.findings import in_words, words_of, wrong
from recsys_rl.data.tables.read import TableFile, open_table, parsing
from recsys_rl.data.tables.schema import COLUMNS, common_names, named, plain_name
from recsys_rl.errors import listed, one_line
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.types import UserError


@dataclass(frozen=True)
class Target:
    """Anyone's policy on the E rows of a log."""

    logprobs: Tensor  # (E,) float64: of the logged actions
    every: Tensor | None = None  # (E, I) float64: the probability of every item
    places: Tensor | None = None  # (E, K) float64: the terms of logprobs, each place given those above


@dataclass(frozen=True)
class Ids:
    """The ids of people's own log (logs/decision_table.py), which a file of probabilities refers to."""

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
    with in_words(words_of(table)):
        return _read(table, log, ids)


def _read(table: TableFile, log: DecisionLog, ids: Ids | None) -> Target:
    name = one_line(table.path)
    frame = table.collect(table.texts(table.names))
    cells = Cells(name, frame)
    column = "propensity" if "propensity" in cells else "logprob"
    if column in cells:
        # The policy did not decide: the action may be impossible under it.
        rule = COLUMNS["propensity." if column == "propensity" else "logger_logprobs"]
        values = cells.values(column, rule).double()  # (R,), of the rows of the file
    rows = _keyed(name, _keys(cells, texts=ids is not None and ids.sessions is not None), log, ids)
    missing = [name for name in ("session", "step") if name not in rows.columns]
    missing += [] if column in cells else [column]
    if missing:
        raise UserError(
            f"{name} has no column {missing[0]}: it needs session, step and propensity (or logprob)."
        )
    keys = pl.DataFrame({"session": log.sessions.numpy(), "step": log.steps.numpy()})
    joined = keys.join(rows, on=["session", "step"], how="left", maintain_order="left")
    if len(joined) != log.num_rows:
        raise UserError(f"{name} has a decision twice: give one row for each session and step.")
    at = tensor_of(joined["at"].cast(pl.Int64).fill_null(-1))  # (E,): the row of the file
    decision = torch.stack([log.steps, log.sessions], 1)  # (E, 2)
    sentence = "it has no {column} for {decision}: give one row for each decision of the log"
    cells.refuse(at < 0, sentence, column=column, decision=decision)
    values, every = values[at], _every(cells, log, ids)
    logprobs = values if column == "logprob" else values.log()
    if every is not None:
        every = every[at]
        chosen = every.gather(1, log.items).squeeze(1)
        sentence = (
            "the logged item of {decision} has the {column} {value:g}, but {other:g} in the column "
            "probabilities: correct one of them"
        )
        known = {"column": column, "decision": decision, "value": values, "other": chosen}
        cells.refuse((chosen - logprobs.exp()).abs() > 1e-4, sentence, **known)
    places = cells.optional("place_logprobs", log.items.shape[1])
    return Target(logprobs, every, None if places is None else _factors(cells, places[at], logprobs, log))


def _keys(cells: Cells, texts: bool) -> pl.DataFrame:
    """The rows of the file by session and step, if it has these; ``texts``: its sessions may be texts."""
    rules = {"step": COLUMNS["step"]} if texts else {name: COLUMNS[name] for name in ("session", "step")}
    keys = [
        pl.Series(name, cells.values(name, rule).numpy()) for name, rule in rules.items() if name in cells
    ]
    columns = [name for name in cells.frame.columns if not name.startswith("probabilit")]
    return cells.frame.select(columns).with_columns(keys).with_row_index("at")


def _keyed(name: str, frame: pl.DataFrame, log: DecisionLog, ids: Ids | None) -> pl.DataFrame:
    """The frame with the numbers of sessions and steps, beside people's own log."""
    if ids is None:
        return frame
    if ids.sessions is not None and "session" not in frame.columns:
        common = common_names("session")
        fits = [name for name in frame.columns if name == ids.session_column]
        fits = fits or [name for name in frame.columns if plain_name(name) in common]
        if len(fits) > 1:
            raise UserError(f"{name}: {listed(fits)} may all hold the session: name one of them session.")
        frame = frame.rename(dict.fromkeys(fits, "session"))
    if "session" not in frame.columns:
        return _in_order(name, frame, log, ids.rows)
    if ids.sessions is not None:
        numbers = {text: number for number, text in enumerate(ids.sessions)}
        texts = frame["session"].cast(pl.String).str.strip_chars()
        frame = frame.with_columns(texts.replace_strict(numbers, default=None, return_dtype=pl.Int64))
    if "step" not in frame.columns and not bool(log.steps.any()):
        frame = frame.with_columns(step=pl.lit(0))
    return frame


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


def _every(cells: Cells, log: DecisionLog, ids: Ids | None) -> Tensor | None:
    """(R, I) of the list ``probabilities`` or of the columns ``probability.ID``; None without either."""
    columns = named(cells.frame.columns, "probability.")
    if not columns and "probabilities" not in cells:
        return None
    if log.items.shape[1] > 1:
        raise UserError(
            f"{cells.name}: the column probabilities is for logs of single items, and this log has slates of "
            f"{log.items.shape[1]}: leave the column out."
        )
    items = [str(k) for k in range(log.header.num_items)] if ids is None else ids.items
    unknown = columns.keys() - set(items)
    if unknown and "probabilities" not in cells and columns.keys() >= set(items):
        hint = "" if ids is None else (
            " The log neither shows nor offers this item: if it could be shown, name it in the log's column "
            "candidates, or give the log a column probability.ID for every item."
        )  # fmt: skip
        raise UserError(
            f"{cells.name} has the column {one_line(columns[min(unknown)])}: give one column for each of the "
            f"{len(items):,} items of the log.{hint}"
        )
    return cells.probabilities(items)


def _factors(cells: Cells, places: Tensor, logprobs: Tensor, log: DecisionLog) -> Tensor:
    """(E, K) float64 of the list ``place_logprobs``, if they add up to ``logprobs`` (E,)."""
    total = places.double().sum(1)
    sums = torch.where(logprobs.isfinite(), ~((total - logprobs).abs() <= 1e-4), total != logprobs)
    sentence = "place_logprobs of {decision} do not sum to its log-probability"
    cells.refuse(sums, sentence, decision=torch.stack([log.steps, log.sessions], 1))
    return places.double()


def check_support(every: Tensor, allowed: Tensor, rows: Tensor, log: DecisionLog) -> None:
    """Raise UserError if a policy gives an item above 0 that could not be shown.

    Args:
        every: (B, I) probabilities.
        allowed: (B, I) bool.
        rows: (B,) of the log.
    """
    impossible = (every > 0) & ~allowed  # (B, I)
    if bool(impossible.any()):
        row, item = impossible.nonzero()[0].tolist()
        sentence = (
            "the column probabilities gives {item} {value:g} at {decision}, where it could not be shown"
        )
        decision, value = _decision(log, int(rows[row])), float(every[row, item])
        raise wrong("", sentence + ": give it 0", item=item, value=value, decision=decision)


def _decision(log: DecisionLog, row: int) -> tuple[int, int]:
    """Its step and its session."""
    return int(log.steps[row]), int(log.sessions[row])
