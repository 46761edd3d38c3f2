"""Observers: objects that see a run between two updates: its log, evaluation, judges and checkpoint.

An observer has one or two of the methods of ``Observer``, which are called in the order of the list
(training/train.py makes it). Rank 0 alone logs, evaluates and judges. An observer may end a run of one
process by ``run.stopped = True``; of several processes it must not, as the others would wait.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from recsys_rl.checkpoint import save
from recsys_rl.training.agreement import check_weights
from recsys_rl.training.ranks import Ranks
from recsys_rl.training.resume import snapshot
from recsys_rl.training.run import Run, Update
from recsys_rl.types import UserError
from recsys_rl.utils.logger import Logger


class Observer:
    """Does nothing."""

    def begun(self, run: Run) -> None:
        """Called before the first update of a new run."""

    def updated(self, update: Update) -> None:
        """Called after an update. The observers that follow see what it adds to ``update.metrics``."""

    def saving(self, run: Run) -> None:
        """Called before the run's checkpoint is written; on every rank that has the observer."""

    def ended(self, run: Run) -> str:
        """Lines for the user of a run that has ended; "" if there are none. Not called in a quiet run."""
        return ""


class Saver(Observer):
    """Writes the checkpoint: of a new run at once, then at the interval of the settings and at the end."""

    def __init__(self, path: Path, ranks: Ranks, saved: int | None) -> None:
        """``saved``: the step of the checkpoint at ``path``; None if there is none."""
        self.path, self.ranks, self.saved = path, ranks, saved
        self.observers: Sequence[Observer] = ()  # of the run: each sees that it is saved

    def begun(self, run: Run) -> None:
        self.save(run)

    def updated(self, update: Update) -> None:
        run = update.run
        if run.due(run.config.train_config.save_interval) or run.over or update.stopping:
            self.save(run)

    def save(self, run: Run) -> None:
        """Write the checkpoint. All ranks must call it.

        Raises UserError on every rank if their weights have drifted apart.
        """
        if self.saved == run.step:
            return
        for observer in self.observers:
            observer.saving(run)
        check_weights(run, self.ranks)
        checkpoint = snapshot(run, self.ranks)
        if self.ranks.rank == 0:
            save(self.path, checkpoint)
        self.saved = run.step


class LossCheck(Observer):
    """Ends a run whose loss is NaN or infinite with a UserError."""

    def __init__(self, saver: Saver) -> None:
        self.saver = saver

    def updated(self, update: Update) -> None:
        losses = ("loss", "policy_loss", "value_loss")
        bad = [name for name in losses if not math.isfinite(update.metrics.get(name, 0.0))]
        if bad:
            state = f"the state of step {self.saver.saved:,}" if self.saver.saved else "the untrained policy"
            raise UserError(
                f"{bad[0]} became {update.metrics[bad[0]]} at step {update.step:,} (update "
                f"{update.run.updates}), so the run stopped and {self.saver.path} keeps {state}: start again "
                "with a lower --lr or --max-grad-norm."
            )


class LogWriter(Observer):
    """Writes the metrics to log.csv, with the sessions that ended since the last row."""

    def __init__(self, logger: Logger) -> None:
        self.logger = logger
        self.waiting: list[Tensor] = []  # sessions since the last row: returns, lengths (2, n)

    def updated(self, update: Update) -> None:
        self.waiting.append(update.ended)
        if not update.run.due(update.run.config.train_config.log_interval):
            return
        returns, lengths = torch.cat(self.waiting, 1)
        self.waiting.clear()
        row = update.metrics
        if len(returns):
            row["return_mean"], row["length_mean"] = returns.mean().item(), lengths.mean().item()
        row["steps_per_second"] = self.logger.steps_per_second(update.step)
        self.logger.write(update.step, row)


class Progress(Observer):
    """Moves the bar, or prints a line now and then, with the latest return, or the loss of a run on a log."""

    def __init__(self, logger: Logger) -> None:
        self.logger, self.news = logger, ""

    def updated(self, update: Update) -> None:
        row, from_log = update.metrics, update.run.env is None
        if "return_mean" in row:
            self.news = f"return {row['return_mean']:.2f}"
        elif from_log and "steps_per_second" in row:  # a row of the log
            self.news = f"loss {row['loss']:.3f}"
            if "value_start" in row:  # far above the log's returns, values run away
                value, returns = row["value_start"], row["return_start"]
                self.news += f"  value at the start {value:.2f} (log: {returns:.2f})"
        self.logger.show(update.step, self.news)
