"""A team's own tables as the log of `recsys-rl ope`, read as the checkpoint's policy read them in training.

The items, the encodings of the context, the signals and the weights are those of the checkpoint. Only
users whom all checkpoints of the command held out are judged on, as a policy has learned from the others; but
sessions that began after the last of their logs ended are those of all users.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.errors import UserError, amount, one_line
from recsys_rl.logs.decision_log import DecisionLog, cut
from recsys_rl.logs.ope.config import OpeConfig
from recsys_rl.logs.ope.part import DATES, PER_SECOND, heldout_of, starts_of
from recsys_rl.logs.own_log import OwnLog

FITTED = 65_536
"""Decisions of a log with propensities on which models are fitted: all, or a sample of sessions. It bounds
the memory of what is judged after a training that still holds its part of the log."""


def open_of_checkpoint(options: OpeConfig, checkpoint: Checkpoint) -> OwnLog:
    """The tables of --log by the settings of the checkpoint; options of columns replace those of the run.

    Raises UserError for a table that can't be read so.
    """
    if options.items is not None:
        raise UserError(
            f"--items is for a log without a checkpoint, and {options.checkpoint} has its items: leave it "
            "out."
        )
    config = checkpoint.config
    data = dataclasses.replace(config.data_config, **options.given)
    assert config.platform.tables is not None
    open_log = config.platform.tables.open_log
    source: OwnLog = open_log(options.log, data, config.env_config, checkpoint.catalogue)
    return source


def end_of_learning(options: OpeConfig, source: OwnLog, checkpoints: Iterable[Checkpoint]) -> int | None:
    """The last time from which one of the policies learned; None if it is unknown, or has no effect."""
    ends = [checkpoint.info.get("log_end") for checkpoint in checkpoints]
    known = [int(end) for end in ends if end is not None]
    unknown = len(known) < len(ends) or not source.has_times
    return None if unknown or options.users == "heldout" else max(known)


def judged_parts(
    source: OwnLog, checkpoints: Sequence[Checkpoint], rows: int, learned_until: int | None = None
) -> Iterator[DecisionLog]:
    """The decisions of users held out by each checkpoint, in parts of about ``rows`` rows, and later ones.

    Later ones are of all users. ``learned_until``: as of ``end_of_learning``. Raises UserError without any
    decision.
    """
    empty = True
    for part in source.parts(rows):
        judged = heldout_of(part, *checkpoints)
        if learned_until is not None:
            judged |= _later(part, learned_until)
        if bool(judged.any()):
            empty = False
            yield from cut(part.rows(judged), rows)
    if empty:
        whose = "" if source.unit == "decision" else f"of {source.unit}s "
        raise UserError(
            f"{source.name} holds no decisions {whose}that were held out from training, so nothing here can "
            f"judge the policy: give a log of more {source.unit}s."
        )


def _later(log: DecisionLog, end: int) -> Tensor:
    """(E,) bool: rows of sessions that began after ``end``; no date is later than a number that is none."""
    starts, dates = starts_of(log), DATES * PER_SECOND
    return (starts > end) & ((starts >= dates) == (end >= dates))


def about_tables(
    source: OwnLog, checkpoints: Sequence[Checkpoint], judged: Iterable[DecisionLog], since: str | None = None
) -> Iterator[str]:
    """Lines about tables of which the decisions ``judged`` are judged on; ``since``: of the options."""
    heldout = later = 0
    for part in judged:
        of_part = int(heldout_of(part, *checkpoints).sum())
        heldout, later = heldout + of_part, later + part.num_rows - of_part
    rest = source.num_rows - heldout - later
    whose = f"{amount(heldout, 'decision')} of held-out {source.unit}s"
    if source.unit == "decision":
        whose = amount(heldout, "held-out decision")
    newer = f" and {later:,} that are later than all that the policy learned from" * bool(later)
    why = "from which such a policy learns"
    if since is not None:
        why = f"of sessions before {one_line(since)} or {why}"
    left = f"; the other {rest:,}, {why}, are left out" * (bool(rest) or not later)
    yield f"judging on {whose}{newer}{left}"
    if later:
        yield (
            f"the later decisions are of all {source.unit}s: the policy may know the tastes of some from "
            "their earlier ones; --users heldout judges on the others alone"
        )
    for name, number in source.others.items():
        yield (
            f"context.{name}: {number:,} of {amount(source.num_rows, 'decision')} have a text without a code "
            "of its own, and count as other"
        )
