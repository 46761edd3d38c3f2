"""The options --jobs and --on: how many processes share the tasks of a command, and where."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from recsys_rl.settings.fields import Range, check_fields, check_used
from recsys_rl.utils.stopping import STOP_SIGNALS
from recsys_rl.utils.tasks import MapTasks, in_this_process


@dataclass(frozen=True)
class TaskOptions:
    """Options of a command whose work falls into tasks."""

    jobs: Annotated[int, Range(1, 1024)] = field(default=1, kw_only=True)
    """Processes of this machine that share the work, with one thread each unless --threads gives more. The
    answer is the same."""
    on: Literal["ray"] | None = field(default=None, kw_only=True)
    """ray: share the work among the nodes of a Ray cluster, at the address in RAY_ADDRESS; without an address
    among the cores of this machine."""


def tasks_in(options: TaskOptions) -> TaskOptions:
    """The checked options of tasks among those of a command. Raises UserError."""
    tasks = TaskOptions(jobs=options.jobs, on=options.on)
    check_fields(tasks)
    check_used(("jobs", tasks.on is not None and tasks.jobs > 1, "--on ray shares the tasks of a cluster"))
    return tasks


@contextlib.contextmanager
def shared_by(options: TaskOptions, threads: int = 1) -> Iterator[MapTasks]:
    """The engine of these options. Raises UserError where it is not there.

    ``threads``: of torch in each process; 0: torch's choice.
    SIGTERM and SIGHUP end its tasks as Ctrl-C does.
    """
    tasks = tasks_in(options)
    if tasks == TaskOptions():
        yield in_this_process
        return
    with _interrupted_by_signals():
        if tasks.on is None:
            from recsys_rl.distributed.in_processes import InProcesses

            yield InProcesses(tasks.jobs, threads)
        else:
            from recsys_rl.distributed.on_ray import OnRay

            with contextlib.closing(OnRay(threads)) as on_ray:
                yield on_ray


@contextlib.contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield
        return
    heeded = [number for number in STOP_SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    old = {number: signal.signal(number, interrupt) for number in heeded}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
