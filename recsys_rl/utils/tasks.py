"""A function over many items: in this process by ``map``, or by one of the engines in distributed/.

The function and the items are sent to other processes, so the function holds what it needs, and what it
returns depends on its item alone: then each engine gives the same results, to the last digit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from recsys_rl.utils.progress import announce

T = TypeVar("T")
R = TypeVar("R")


class MapTasks(Protocol):
    """The results of ``function`` for each item, in the order of the items, as ``map`` gives them.

    Items are taken while results are still computed, a few at a time. An error of one item ends the others.
    """

    def __call__(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]: ...


def in_this_process(function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
    """``map``: one item after another."""
    return map(function, items)


def note_one_task(map_tasks: MapTasks, task: str) -> None:
    """Print that ``task`` is the only one, where an engine for several was given."""
    if map_tasks is not in_this_process:
        announce(f"{task}: one process does this, so --jobs and --on change nothing here")
