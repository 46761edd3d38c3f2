"""Split a DecisionLog in two: by time, or by user."""

from __future__ import annotations

import torch

from recsys_rl.decisions.log import DecisionLog
from recsys_rl.types import UserError


def split_by_time(log: DecisionLog, share: float) -> tuple[DecisionLog, DecisionLog]:
    """The sessions that began first, a ``share`` (0 to 1) of all, and those that began later.

    No session is on both sides. Sessions that began at the same time are on the same side. Raises UserError
    if a side would be empty.
    """
    first = (log.steps == 0).nonzero().squeeze(1)  # (G,)
    began = log.times[first]
    ordered = began.sort().values
    cut = ordered[min(int(share * len(ordered)), len(ordered) - 1)]
    return _sides(log, (began < cut).repeat_interleave(_lengths(log)), "session", len(first))


def split_by_user(
    log: DecisionLog, share: float, generator: torch.Generator
) -> tuple[DecisionLog, DecisionLog]:
    """The decisions of a ``share`` (0 to 1) of the users, drawn by ``generator``, and those of the others.

    Raises UserError if a side would be empty.
    """
    users, place = log.users.unique(return_inverse=True)  # (U,), (E,)
    chosen = torch.zeros(len(users), dtype=torch.bool)
    chosen[torch.randperm(len(users), generator=generator)[: round(share * len(users))]] = True
    return _sides(log, chosen[place], "user", len(users))


def _lengths(log: DecisionLog) -> torch.Tensor:
    """(G,): decisions of each session."""
    first = (log.steps == 0).nonzero().squeeze(1)
    return torch.diff(first, append=torch.tensor([log.num_rows]))


def _sides(log: DecisionLog, chosen: torch.Tensor, noun: str, count: int) -> tuple[DecisionLog, DecisionLog]:
    """The rows where ``chosen`` (E,) is True, and the others."""
    if bool(chosen.all()) or not bool(chosen.any()):
        raise UserError(
            f"A split would leave one side of the log empty ({count} {noun}{'s' if count > 1 else ''}): use "
            f"another share, or a log with more {noun}s."
        )
    return log.rows(chosen), log.rows(~chosen)
