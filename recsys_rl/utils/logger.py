"""What a run writes down: a long CSV, optional TensorBoard events, and a progress line."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from recsys_rl.types import UserError

COLUMNS = ("step", "seconds", "name", "value")


class Logger:
    """One run's log. Use it as a context manager; the files are closed and the bar ends with it."""

    def __init__(self, folder: Path, total_steps: int, start_step: int, tensorboard: bool) -> None:
        """Append to ``folder``/log.csv; rows of steps after ``start_step`` (of a run that was cut off) go."""
        self.started = time.monotonic()
        self.total_steps = total_steps
        self.start_step = start_step
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.csv"
        kept = [row for row in read_log(self.path) if int(row["step"]) <= start_step] if start_step else []
        self.seconds_before = max((float(row["seconds"]) for row in kept), default=0.0)
        self.file = self.path.open("w", newline="")
        self.rows = csv.writer(self.file)
        self.rows.writerow(COLUMNS)
        self.rows.writerows([row[column] for column in COLUMNS] for row in kept)
        self.events = _tensorboard(folder) if tensorboard else None
        console = Console(stderr=True)
        self.progress = (
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[news]}"),
                TimeRemainingColumn(),
                console=console,
            )
            if console.is_terminal
            else None
        )
        self.task = (
            self.progress.add_task("train", total=total_steps, completed=start_step, news="")
            if self.progress
            else None
        )
        self.said = time.monotonic()

    def __enter__(self) -> Self:
        if self.progress:
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.progress:
            self.progress.stop()
        self.file.close()
        if self.events is not None:
            self.events.close()

    @property
    def seconds_here(self) -> float:
        """Seconds since this process began to train."""
        return time.monotonic() - self.started

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those before a resume included."""
        return self.seconds_before + self.seconds_here

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one row for each value."""
        seconds = f"{self.seconds:.3f}"
        self.rows.writerows([step, seconds, name, repr(float(value))] for name, value in values.items())
        self.file.flush()
        if self.events is not None:
            for name, value in values.items():
                self.events.add_scalar(name, value, step)

    def show(self, step: int, news: str) -> None:
        """Move the bar; without a terminal, say a plain line every few seconds and at the end."""
        if self.progress and self.task is not None:
            self.progress.update(self.task, completed=step, news=news)
        elif time.monotonic() - self.said > 5 or step >= self.total_steps:
            self.said = time.monotonic()
            print(f"step {step:,} of {self.total_steps:,}  {news}", file=sys.stderr, flush=True)


def read_log(path: Path) -> list[dict[str, str]]:
    """The rows of a log.csv; none where there is no file. A half-written last row is dropped."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if all(row.get(column) for column in COLUMNS)]


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError(
            '--tensorboard needs the package tensorboard: pip install "recsys-rl[tensorboard]".'
        ) from error
    return SummaryWriter(str(folder))
