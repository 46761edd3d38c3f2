"""The sessions of a log dealt to the processes of a run, so that all hold equally many decisions.

Each process draws an equal share of every minibatch from the decisions that it holds. So a decision weighs as
much as any other only if all processes hold as many, however long the files and the sessions of the log are.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.errors import UserError, amount
from recsys_rl.logs.decision_log import DecisionLog, concatenate


@dataclass(frozen=True)
class Decisions:
    """E rows of a log with their rewards."""

    log: DecisionLog
    rewards: Tensor  # (E,)
    places: Tensor | None = None  # (E, K): of each place of a slate; None if only the sum is known

    def rows(self, index: Tensor) -> Decisions:
        """Those at ``index`` (B,) int64, or where ``index`` (E,) bool is True."""
        places = None if self.places is None else self.places[index]
        return Decisions(self.log.rows(index), self.rewards[index], places)

    @classmethod
    def joined(cls, parts: Sequence[Decisions]) -> Decisions:
        """The rows of all ``parts``. If one lacks the rewards of places, none are known."""
        places = [part.places for part in parts if part.places is not None]
        every = torch.cat(places) if len(places) == len(parts) else None
        return cls(
            concatenate([part.log for part in parts]), torch.cat([part.rewards for part in parts]), every
        )


def dealt(parts: Iterable[Decisions], rank: int, size: int) -> Iterator[Decisions]:
    """The sessions of one of ``size`` processes, of each part of the log.

    A session goes to the process that holds the fewest decisions so far. Then no two processes differ by more
    decisions than the longest session has. Decisions with an empty place in the slate, which nobody draws,
    count as none.
    """
    held = [(0, process) for process in range(size)]  # decisions, a heap
    for part in parts:
        log = part.log
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
            yield part.rows(mine)


def check_processes(name: str, sessions: int, processes: int) -> None:
    """Raise UserError about the log ``name`` if it has fewer sessions to learn from than processes."""
    if 0 < sessions < processes:
        raise UserError(
            f"{name} has {amount(sessions, 'session')} to learn from, and {processes} processes learn: start "
            f"at most {sessions}."
        )
