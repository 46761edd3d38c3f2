"""The log of a run: a long CSV, optional TensorBoard events, and a progress line."""

from __future__ import annotations

import contextlib
import csv
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from recsys_rl.errors import error_text
from recsys_rl.types import UserError

COLUMNS = ("step", "seconds", "name", "value")
SECONDS_BETWEEN_LINES = 5.0  # without a terminal, plain lines replace the bar


class Logger:
    """The log of one run. Use it as a context manager: at the end it closes the files and the bar."""

    def __init__(
        self,
        folder: Path,
        title: str,
        total_steps: int,
        start_step: int,
        tensorboard: bool,
        quiet: bool = False,
    ) -> None:
        """Append to ``folder``/log.csv; delete rows of steps after ``start_step`` (of a run that was killed).

        With ``quiet`` there is no bar and no lines. The old log.csv stays until the first row is written.

        Raises OSError if the folder can't be written. Raises UserError if ``tensorboard`` is set and the
        package is missing, or if log.csv is not such a log.
        """
        self.started = self.said = time.monotonic()
        self.total_steps, self.start_step, self.quiet = total_steps, start_step, quiet
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.csv"
        rows = [row for row in read_log(self.path) if row[0] <= start_step]
        self.seconds_before = max((seconds for _, seconds, _, _ in rows), default=0.0)
        # purge_step hides events of a killed run after the step at which this run continues.
        self.events = summary_writer()(str(folder), purge_step=start_step + 1) if tensorboard else None
        self.part = self.path.with_name(self.path.name + ".part")
        self.file = self.part.open("w", newline="", encoding="utf-8")
        self.begun = False
        try:
            self._append([COLUMNS, *((step, f"{s:.3f}", name, repr(value)) for step, s, name, value in rows)])
        except OSError:
            self._close()
            raise
        self.progress = progress_bar(quiet)
        self.task = self.progress.add_task(title, total=total_steps, completed=start_step, news="")

    def __enter__(self) -> Self:
        if not self.progress.disable:
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.progress.disable:
            with contextlib.suppress(OSError):  # a terminal that was closed
                self.progress.stop()
        self._close()
        if self.events is not None:
            self.events.close()

    def _close(self) -> None:
        """Close the file, and delete it if it has not become log.csv."""
        with contextlib.suppress(OSError):  # each row was flushed: write has reported a full disk
            self.file.close()
        if not self.begun:
            with contextlib.suppress(OSError):
                self.part.unlink()

    @property
    def seconds_here(self) -> float:
        """Seconds since this process began to train."""
        return time.monotonic() - self.started

    def steps_per_second(self, step: int) -> float:
        """Steps per second since this process began to train."""
        return (step - self.start_step) / max(self.seconds_here, 1e-9)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one row for each value. Raises UserError if the file can't be written."""
        seconds = f"{self.seconds_before + self.seconds_here:.3f}"
        try:
            if not self.begun:
                self.part.replace(self.path)
                self.begun = True
            self._append([(step, seconds, name, repr(float(value))) for name, value in values.items()])
            if self.events is not None:
                for name, value in values.items():
                    self.events.add_scalar(name, value, step)
        except OSError as error:
            raise UserError(
                f"{self.path} can't be written at step {step:,} ({error_text(error)}): make room and "
                "continue from the last checkpoint with --resume."
            ) from error

    def show(self, step: int, news: str) -> None:
        """Move the bar. Without a terminal, print a line every few seconds and at the end."""
        news = f"{news}  {self.steps_per_second(step):,.0f} steps/s".strip()
        with contextlib.suppress(OSError):  # a terminal that was closed
            if not self.progress.disable:
                self.progress.update(self.task, completed=step, news=news)
            elif time.monotonic() - self.said > SECONDS_BETWEEN_LINES or step >= self.total_steps:
                self.said = time.monotonic()
                self.note(f"step {step:,} of {self.total_steps:,}  {news}")

    def note(self, line: str) -> None:
        """Print a separate line, above the bar if there is one."""
        with contextlib.suppress(OSError):
            if not self.progress.disable:
                self.progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
            elif not self.quiet:
                print(line, file=sys.stderr, flush=True)

    def _append(self, rows: list[tuple[Any, ...]]) -> None:
        csv.writer(self.file).writerows(rows)
        self.file.flush()


def read_log(path: Path) -> list[tuple[int, float, str, float]]:
    """The rows of a log.csv: step, seconds, name, value. An empty list if there is no file.

    An incomplete last row, from a killed run, is removed. Raises UserError if the file is not such a log.
    """
    if not path.exists():
        return []
    try:
        head, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
        if tuple(head.strip().split(",")) != COLUMNS:
            raise ValueError(head)
        rows = csv.reader(line for line in lines if line.endswith("\n"))
        return [(int(step), float(seconds), name, float(value)) for step, seconds, name, value in rows]
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is not the log of a run: move it away.") from error


def progress_bar(quiet: bool = False) -> Progress:
    """A bar on a real terminal; a disabled bar elsewhere, even if FORCE_COLOR or TERM suggest a terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}", style="progress.download"),
        TextColumn("{task.fields[news]}"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=console,
        expand=True,
        disable=quiet or not sys.stderr.isatty() or console.is_dumb_terminal,
    )


def summary_writer() -> Any:
    """TensorBoard's class that writes events. Raises UserError if TensorBoard isn't installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError(
            '--tensorboard needs the package tensorboard: in the checkout, pip install -e ".[tensorboard]".'
        ) from error
    return SummaryWriter
