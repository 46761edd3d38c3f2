"""A team's own tables as the log of `recsys-rl ope`, read as the checkpoint's policy read them in training.

The items, the encodings of the context, the signals and the weights are those of the checkpoint, and of its
users only those who are held out by the same hash are judged on: the policy has learned from the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.data.heldout import heldout_parts
from recsys_rl.errors import UserError, amount
from recsys_rl.tables.decision_log import DecisionLog, cut
from recsys_rl.tables.own_log import OwnLog
from recsys_rl.workflows.ope_config import OpeConfig

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


def judged_parts(source: OwnLog, checkpoint: Checkpoint, rows: int) -> Iterator[DecisionLog]:
    """The decisions of held-out users, in parts of about ``rows`` rows. Raises UserError without any."""
    config, empty = checkpoint.config, True
    share, seed = config.data_config.heldout_fraction, config.train_config.seed
    for part in heldout_parts(source.parts(rows), checkpoint.population, share, seed):
        empty = False
        yield from cut(part, rows)
    if empty:
        whose = "" if source.unit == "decision" else f"of {source.unit}s "
        raise UserError(
            f"{source.name} holds no decisions {whose}that were held out from training, so nothing here can "
            f"judge the policy: give a log of more {source.unit}s."
        )


def about_tables(source: OwnLog, heldout: int) -> Iterator[str]:
    """Lines about tables of which ``heldout`` decisions are judged on."""
    rest = source.num_rows - heldout
    judged = f"{amount(heldout, 'decision')} of held-out {source.unit}s"
    if source.unit == "decision":
        judged = amount(heldout, "held-out decision")
    yield f"judging on {judged}; the other {rest:,}, from which such a policy learns, are left out"
    for name, number in source.others.items():
        yield (
            f"context.{name}: {number:,} of {amount(source.num_rows, 'decision')} have a text without a code "
            "of its own, and count as other"
        )
