"""`--jobs N`: tasks in N processes of this machine. ``on_ray.py`` has the same for a cluster.

A process that ends, as by the kernel for want of memory, is started again and its task is done again.
Ctrl-C ends all of them, and they end if the command itself is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import TypeVar

from recsys_rl.distributed.sent import AHEAD, TRIES, answer, ended, packed, packed_item, result_of
from recsys_rl.errors import UserError

T = TypeVar("T")
R = TypeVar("R")
ENDS_WITHIN = 10
"""Seconds until a process without a pipe has ended."""
Task = tuple[int, bytes]
"""The number of an item, and the item."""


class InProcesses:
    """Maps functions over items in ``jobs`` processes; a ``MapTasks``."""

    def __init__(self, jobs: int, threads: int = 1) -> None:
        """``threads``: of torch in each process, where the function sets no other number."""
        self.jobs, self.threads = jobs, threads

    def __call__(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        tasks, answers, first = _Tasks(iter(items)), dict[int, bytes](), 0
        sent = packed(function, self.threads)
        begin = [*iter(lambda: tasks.next_below(self.jobs), None)]
        workers = [_Worker(sent) for _ in begin]  # they import torch at the same time
        try:
            for worker, task in zip(workers, begin, strict=True):
                worker.begin(task)
            while True:
                for worker in workers:
                    if worker.task is None:
                        worker.begin(tasks.next_below(first + AHEAD * self.jobs))
                if first in answers:
                    yield result_of(answers.pop(first))
                    first += 1
                    continue
                busy = [worker for worker in workers if worker.task is not None]
                if not busy:
                    return
                ready = wait([worker.pipe for worker in busy])
                for worker in busy:
                    if worker.pipe not in ready:
                        continue
                    done = worker.task
                    assert done is not None
                    try:
                        answers[done[0]] = worker.answer()
                    except (EOFError, OSError):  # it has ended
                        tasks.again(done, worker.exit_code())
                        workers[workers.index(worker)] = _Worker(sent)
        finally:
            for worker in workers:
                worker.end()
            for worker in workers:
                worker.process.join()


class _Tasks:
    """The items by their numbers, 0, 1 ..., as bytes."""

    def __init__(self, items: Iterator[object]) -> None:
        self.items, self.begun = items, 0
        self.waiting, self.tries = deque[Task](), Counter[int]()

    def next_below(self, bound: int) -> Task | None:
        """A task to do again, or the next item if its number is below ``bound``; None if there is none."""
        if self.waiting:
            return self.waiting.popleft()
        if self.begun >= bound:
            return None
        for item in self.items:
            self.begun += 1
            return self.begun - 1, packed_item(item)
        return None

    def again(self, task: Task, code: int | None) -> None:
        """Do a task again whose process ended with this exit code. Raises UserError after TRIES times."""
        self.tries[task[0]] += 1
        if self.tries[task[0]] == TRIES:
            raise _ended(task[0], code)
        self.waiting.append(task)


def _ended(number: int, code: int | None) -> UserError:
    """The error for a task; ``code`` as ``multiprocessing`` has it: -N after signal N."""
    how, mend = f"with exit code {code}", "see the lines above, or run the command without --jobs"
    if code is not None and code < 0:
        how = f"by {signal.Signals(-code).name}"
    if how == "by SIGKILL":
        mend = "mostly memory is short, so give a smaller --jobs, or the machine more memory"
    return ended(f"The process of task {number + 1}", how, mend)


class _Worker:
    """A process, and the task that it does; None: it waits."""

    def __init__(self, function: bytes) -> None:
        context = get_context("spawn")  # a fork would copy locks that other threads of this process hold
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, function), daemon=True)
        self.process.start()
        theirs.close()
        self.task: Task | None = None

    def begin(self, task: Task | None) -> None:
        self.task = task
        if task is not None:
            with contextlib.suppress(OSError):  # it was killed meanwhile, which the wait for its answer shows
                self.pipe.send_bytes(task[1])

    def answer(self) -> bytes:
        """The answer that has come. Raises EOFError or OSError if the process has ended."""
        answered = self.pipe.recv_bytes()
        self.task = None
        return answered

    def exit_code(self) -> int | None:
        """That of a process whose pipe is closed; None if it does not end."""
        self.process.join(ENDS_WITHIN)
        return self.process.exitcode

    def end(self) -> None:
        """End the process: at once if it waits; a training writes its checkpoint first."""
        self.pipe.close()
        assert self.process.pid is not None
        try:
            os.killpg(self.process.pid, signal.SIGTERM)  # what it started itself, too
        except OSError:  # it has only just begun
            self.process.terminate()


def _work(pipe: Connection, function: bytes) -> None:
    """Answer items until the command ends."""
    os.setpgrp()  # Ctrl-C in a terminal reaches the command alone, which ends this process
    threading.Thread(target=_end_with_command, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        while True:
            pipe.send_bytes(answer(function, pipe.recv_bytes()))


def _end_with_command() -> None:
    """End this process, as ``_Worker.end`` does, when the command that started it has been killed."""
    command = parent_process()
    assert command is not None
    wait([command.sentinel])
    if hasattr(os, "killpg"):
        os.killpg(os.getpid(), signal.SIGTERM)
    else:
        os._exit(1)
