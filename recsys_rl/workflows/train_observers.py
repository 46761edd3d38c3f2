"""The observers of a run, as its settings name them."""

from __future__ import annotations

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


def watching(run: Run, path: Path, logger: Logger, judges: Judges | None) -> list[Observer]:
    """Rank 0's observers, in their order; ``path`` is that of the checkpoint."""
    ending = Ending(path, logger.path, run.updates)
    items = getattr(run.config.agent_config, "checkpoint", None)
    if not run.config.platform.simulates:
        from recsys_rl.workflows.judge_own_log import JudgeOnTables  # polars and the estimators

        return [LogWriter(logger), Progress(logger), ending, JudgeOnTables(path)]
    if items is not None:
        from recsys_rl.workflows.judge_run import JudgeAtEnd  # polars and the estimators

        return [LogWriter(logger), Progress(logger), ending, JudgeAtEnd(path)]
    curves: list[Observer] = [Evaluator(logger, "eval", Played(logger))]
    if judges is not None:
        curves += judges.observers(run, path, logger)
    return [LogWriter(logger), ending, *curves, Progress(logger)]
