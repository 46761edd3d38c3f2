"""The observers of a run, as its settings name them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.training.learning_curve import Evaluator, Played
from recsys_rl.training.observers import LogWriter, Observer, Progress
from recsys_rl.training.run import Run
from recsys_rl.utils.logger import Logger
from recsys_rl.workflows.about_run import Ending

if TYPE_CHECKING:
    from recsys_rl.workflows.judges import Judges


def judges_of(run: Run) -> Judges | None:
    """The judges of the settings judge_log and world. Raises UserError for one that can't judge this run."""
    settings = run.config.train_config
    if settings.judge_log is None and settings.world is None:
        return None
    from recsys_rl.workflows.judges import Judges  # polars and the estimators

    return Judges(run)


def recording_of(run: Run, before: Checkpoint | None) -> list[Observer]:
    """The observer for the setting record, if it is given. Raises UserError where no log can hold them."""
    if run.config.train_config.record is None:
        return []
    from recsys_rl.training.recording import Recording  # polars

    return [Recording(run, before)]


class JudgeAtEnd(Observer):
    """Judges the finished policy of a run that no simulator can play."""

    def __init__(self, judge: Callable[[Run, Path], None], path: Path) -> None:
        """``path``: of the run's checkpoint."""
        self.judge, self.path = judge, path

    def ended(self, run: Run) -> str:
        self.judge(run, self.path)
        return ""


def _judge_at_end(run: Run) -> Callable[[Run, Path], None] | None:
    """The function that judges the finished policy on its log; None if a simulator plays it."""
    if not run.config.platform.simulates:
        from recsys_rl.workflows.judge_own_log import judge_on_tables  # polars and the estimators

        return judge_on_tables
    if getattr(run.config.agent_config, "checkpoint", None) is not None:  # it brought the items alone
        from recsys_rl.workflows.judge_run import judge_run

        return judge_run
    return None


def watching(run: Run, path: Path, logger: Logger, judges: Judges | None) -> list[Observer]:
    """Rank 0's observers, in their order; ``path`` is that of the checkpoint."""
    ending = Ending(path, logger.path, run.updates)
    judge = _judge_at_end(run)
    if judge is not None:
        return [LogWriter(logger), Progress(logger), ending, JudgeAtEnd(judge, path)]
    curves: list[Observer] = [Evaluator(logger, "eval", Played(logger))]
    if judges is not None:
        curves += judges.observers(run, path, logger)
    return [LogWriter(logger), ending, *curves, Progress(logger)]
