"""Check a DecisionLog: each mistake is one UserError that names the first row with it.

Rows are counted from 1, in the order of the file. schema.py has the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl
import torch
from torch import Tensor

from recsys_rl.tables.decision_log import DecisionHeader, DecisionLog, catalogue_hash
from recsys_rl.tables.schema import MEND, OF_FACTORS, OF_LISTS, OF_SESSIONS, Rule, broken
from recsys_rl.types import Catalogue, UserError

BLOCK = 65_536  # rows whose lists are compared together


def check_rows(name: str, log: DecisionLog, rows: Tensor) -> None:
    """Raise UserError for the first mistake in a log whose rows are ordered by session and step.

    ``rows`` (E,) are the numbers of the rows in the file, from 1.
    """
    columns = {
        "row": rows,
        "session": log.sessions,
        "step": log.steps,
        "user": log.users,
        "time": log.times,
        "terminated": log.terminated,
        "truncated": log.truncated,
    }
    _refuse(name, pl.DataFrame({column: values.numpy() for column, values in columns.items()}), OF_SESSIONS)
    for start in range(0, log.num_rows, BLOCK):
        at = torch.arange(start, min(start + BLOCK, log.num_rows))
        _refuse(name, _lists(log.rows(at), rows[at]), (*OF_LISTS, *OF_FACTORS))
    if not log.header.interface.repeats:
        _refuse_repeats(name, log, rows)
    if log.has_propensities:
        if len(log.header.loggers) > 1 and log.logger_logprobs is None:
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
    for rule, wrong in broken(frame, rules):
        sentences = frame.select("row", sentence=rule.sentence).filter(wrong)
        raise UserError(f"{name}: {sentences.sort('row')['sentence'][0]}.")


def _lists(log: DecisionLog, rows: Tensor) -> pl.DataFrame:
    """The frame of ``OF_LISTS`` and ``OF_FACTORS``."""
    columns = {"row": pl.Series(rows.numpy()), "items": _column(log.items, lambda x: x >= 0)}
    for name, values in (("candidates", log.candidates), ("exclude", log.exclude)):
        if values is not None:
            columns[name] = _column(values, lambda x: x >= 0)
    if log.header.interface.repeats and log.items.shape[1] > 1:
        columns["slate"] = columns["row"]
    if log.has_propensities:
        columns["logprob"] = pl.Series(log.logprobs.numpy())
        columns["logger"] = pl.Series(log.loggers.numpy())
        for name, values in (
            ("place_logprobs", log.place_logprobs),
            ("logger_logprobs", log.logger_logprobs),
        ):
            if values is not None:
                columns[name] = _column(values)
    return pl.DataFrame(columns)


def _column(values: Tensor, keep: Callable[[pl.Expr], pl.Expr] | None = None) -> pl.Series:
    """A column of lists of the values (E, n) that fulfil ``keep``."""
    if not values.shape[1]:
        return pl.Series([[]] * len(values), dtype=pl.List(pl.Int64))
    lists = pl.Series(values.numpy()).arr.to_list()
    return lists if keep is None else lists.list.eval(pl.element().filter(keep(pl.element())))


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
    wrong = frame.lazy().filter(again).sort("row").head(1).collect()
    if wrong.height:
        row, _, item = wrong.row(0)
        raise UserError(f"{name}: item {item} of row {row} was shown before in the same session{MEND}.")
