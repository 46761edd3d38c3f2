"""The observers that judge a run in learned users at each evaluation, and keep its best policy."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from recsys_rl.checkpoint import save
from recsys_rl.logs.judges.judged import LogJudge, WorldJudge
from recsys_rl.training.learning_curve import Evaluator, Measured
from recsys_rl.training.observers import Observer
from recsys_rl.training.ranks import ALONE
from recsys_rl.training.resume import snapshot
from recsys_rl.training.run import Run, Update
from recsys_rl.utils.logger import Logger

BEST = "best.pt"
"""The checkpoint of a run with the highest estimate on judge_log."""
JUDGE_PATIENCE = 5
"""Evaluations in a row without a higher estimate on judge_log, after which the run stops."""


class Judges:
    """The judges of the settings ``judge_log`` and ``world`` of a run."""

    def __init__(self, run: Run) -> None:
        """Raise UserError if one can't judge this run."""
        settings = run.config.train_config
        log, there = settings.judge_log, settings.world
        self.on_log = None if log is None else LogJudge(log, run)
        self.there = None if there is None else WorldJudge(there, run)
        self.note = "" if self.on_log is None else self.on_log.note

    def observers(self, run: Run, path: Path, logger: Logger) -> list[Observer]:
        """The observers of the run with the checkpoint ``path``."""
        observers: list[Observer] = []
        if self.on_log is not None:
            observers.append(Evaluator(logger, "log", partial(_measured, self.on_log)))
        if self.there is not None:
            observers.append(Evaluator(logger, "world", partial(_measured, self.there)))
        if self.on_log is not None:
            observers.append(Best(run, path.with_name(BEST), self.on_log.estimator))
        return observers


def _measured(judge: LogJudge | WorldJudge, run: Run) -> Measured:
    return Measured(*judge.judge(run))


class Best(Observer):
    """Keeps the policy with the highest estimate on the log, and ends a run whose estimate rises no more."""

    def __init__(self, run: Run, path: Path, estimator: str) -> None:
        """``path``: of the best checkpoint. ``run`` may have ended so before it was resumed."""
        self.path, self.estimator = path, estimator
        run.info["judged_by"] = estimator
        self._stop(run)

    def begun(self, run: Run) -> None:
        self._keep(run)

    def updated(self, update: Update) -> None:
        if "log_return_mean" in update.metrics:
            self._keep(update.run)

    def _keep(self, run: Run) -> None:
        if self._since_best(run) == 0:
            save(self.path, snapshot(run, ALONE))
        self._stop(run)

    def _stop(self, run: Run) -> None:
        since = self._since_best(run)
        run.stopped = run.stopped or (since is not None and since >= JUDGE_PATIENCE)

    def _since_best(self, run: Run) -> int | None:
        """Evaluations since the highest estimate, 0 at the latest; None before the first one."""
        values = [mean for _, mean, _, _ in _estimates(run)]
        return len(values) - 1 - values.index(max(values)) if values else None

    def ended(self, run: Run) -> str:
        curve = _estimates(run)
        if not curve:
            return ""
        step, mean, low, high = max(curve, key=lambda row: row[1])
        why = f"stopped, as the estimate on the log has not risen since step {step:,.0f}; "
        why = why if run.stopped else ""
        return (
            f"{why}{self.path} has the policy of step {step:,.0f}, with the highest estimate by "
            f"{self.estimator}, {mean:.2f} ({low:.2f} to {high:.2f}): the highest of {len(curve)} estimates, "
            "so too high on average; the held-out users that chose it are also users of evaluate's table"
        )


def _estimates(run: Run) -> list[list[float]]:
    """The curve of the estimates on the log: rows of step, mean, low, high."""
    points: list[list[float]] = run.info.get("curves", {}).get("log", [])
    return points
