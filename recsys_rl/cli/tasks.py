"""The options --jobs and --on: how many processes share the tasks of a command, and where."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from recsys_rl.errors import UserError
from recsys_rl.settings.fields import Range
from recsys_rl.utils.tasks import MapTasks, in_this_process


@dataclass(frozen=True)
class TaskOptions:
    """Options of a command whose work falls into tasks."""

    jobs: Annotated[int, Range(1, 1024)] = field(default=1, kw_only=True)
    """Processes of this machine that share the work. The answer is the same."""
    on: Literal["ray"] | None = field(default=None, kw_only=True)
    """ray: share the work among the nodes of a Ray cluster, at the address in RAY_ADDRESS; without an address
    among the cores of this machine."""


@contextlib.contextmanager
def shared_by(options: TaskOptions) -> Iterator[MapTasks]:
    """The engine of these options. Raises UserError where it is not there."""
    if options.on is not None and options.jobs > 1:
        raise UserError("--jobs is for this machine and --on ray for a cluster: give one of them.")
    if options.on is not None:
        from recsys_rl.distributed.on_ray import OnRay

        with contextlib.closing(OnRay()) as on_ray:
            yield on_ray
    elif options.jobs > 1:
        from recsys_rl.distributed.in_processes import InProcesses

        yield InProcesses(options.jobs)
    else:
        yield in_this_process
