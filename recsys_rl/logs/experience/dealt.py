"""The sessions of a log dealt to the processes of a run, so that all hold equally many decisions.

Each process draws an equal share of every minibatch from the decisions that it holds. So a decision weighs as
much as any other only if all processes hold as many, however long the files and the sessions of the log are.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from recsys_rl.errors import UserError, amount
from recsys_rl.logs.decision_log import DecisionLog

Decisions = tuple[DecisionLog, Tensor]
"""Rows of a log and their rewards (E,)."""


def dealt(parts: Iterable[Decisions], rank: int, size: int) -> Iterator[Decisions]:
    """The sessions of one of ``size`` processes, of each part of the log.

    A session goes to the process that holds the fewest decisions so far. Then no two processes differ by more
    decisions than the longest session has. Decisions with an empty place in the slate, which nobody draws,
    count as none.
    """
    held = [(0, process) for process in range(size)]  # decisions, a heap
    for log, rewards in parts:
        _, session, lengths = log.sessions.unique_consecutive(return_inverse=True, return_counts=True)
        drawn = (log.items >= 0).all(1).long()  # (E,)
        counts = torch.zeros_like(lengths).index_add_(0, session, drawn)  # (G,)
        owners = []
        for count in counts.tolist():
            decisions, process = held[0]
            heapq.heapreplace(held, (decisions + count, process))
            owners.append(process)
        mine = (torch.tensor(owners) == rank)[session]  # (E,) bool
        if mine.any():
            yield log.rows(mine), rewards[mine]


def check_processes(name: str, sessions: int, processes: int) -> None:
    """Raise UserError about the log ``name`` if it has fewer sessions to learn from than processes."""
    if 0 < sessions < processes:
        raise UserError(
            f"{name} has {amount(sessions, 'session')} to learn from, and --num-processes is {processes}: "
            f"give at most {sessions}."
        )
