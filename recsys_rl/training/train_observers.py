"""The observers of a run, as its settings name them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.records import JUDGES, RECORDING
from recsys_rl.training.about_run import Ending
from recsys_rl.training.learning_curve import Evaluator, Played
from recsys_rl.training.observers import LogWriter, Observer, Progress
from recsys_rl.training.run import Run
from recsys_rl.utils.find import find
from recsys_rl.utils.logger import Logger


class Judges(Protocol):
    """The judges of the settings judge_log and world, which logs/judges/judges.py makes."""

    note: str  # a line about them; "" for none

    def observers(self, run: Run, path: Path, logger: Logger) -> list[Observer]:
        """The observers of the run with the checkpoint ``path``."""
        ...


def judges_of(run: Run) -> Judges | None:
    """The judges of the settings judge_log and world. Raises UserError for one that can't judge this run."""
    settings = run.config.train_config
    if settings.judge_log is None and settings.world is None:
        return None
    judges: Judges = find(JUDGES, "--judge-log")(run)
    return judges


def recording_of(run: Run, resumed: Checkpoint | None) -> list[Observer]:
    """The observer for the setting record, if it is given. Raises UserError where no log can hold them."""
    if run.config.train_config.record is None:
        return []
    return [find(RECORDING, "--record")(run, resumed)]


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
    tables = run.config.platform.tables
    if tables is not None:
        return tables.judge
    if getattr(run.config.agent_config, "checkpoint", None) is not None:  # it brought the items alone
        judge: Callable[[Run, Path], None] = find(run.config.algorithm.experience.judge, "--algo")
        return judge
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
