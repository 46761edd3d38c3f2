"""Progress on standard error where a person waits: a line for each stage, or a counter."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from recsys_rl.utils.logger import SECONDS_BETWEEN_LINES, progress_bar


def announce(line: str) -> None:
    """Print the line at once."""
    with contextlib.suppress(OSError):  # a terminal that was closed
        print(line, file=sys.stderr, flush=True)


@contextmanager
def counted(title: str, total: int, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """A function that shows how many of ``total`` are done: on a bar, or in lines every few seconds.

    ``title`` is as in "recording sessions".
    """
    bar, printed = progress_bar(quiet), time.monotonic()

    def show_line(done: int) -> None:
        nonlocal printed
        if not quiet and time.monotonic() - printed > SECONDS_BETWEEN_LINES:
            printed = time.monotonic()
            announce(f"{title}: {done:,} of {total:,}")

    if bar.disable:
        yield show_line
        return
    with bar:
        task = bar.add_task(title, total=total, news="")
        yield lambda done: bar.update(task, completed=done)
