"""A log in parts of whole sessions: the totals that all parts share, and the joined evidence.

Memory holds the sample and one part with their observations, and of the whole log a few numbers a session.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.data.tables.findings import wrong
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.ope.estimators import Evidence, Slates
from recsys_rl.logs.ope.reward_model import folds_by_user
from recsys_rl.types import UserError


@dataclass(frozen=True)
class Totals:
    """Sizes of a whole log, which all its parts share."""

    rows: int  # E
    sessions: int  # N
    steps: int  # T, the most of a session
    bounds: tuple[float, float]  # the smallest and the largest reward of a step
    users: Tensor  # (U,) int64: their ids, ascending
    folds: Tensor  # (U,) int64
    logger_rows: Tensor  # (P,) int64: rows of each logger
    logger_sessions: Tensor  # (P,) int64
    copies: int = 0  # sessions that repeat an earlier one in every row; 0 if the log has no times
    rarest: float = 0.0  # the smallest probability of a row; 0 if it is unknown, as where several logged

    def folds_of(self, users: Tensor) -> Tensor:
        """(E,) int64: the fold of each row, from its user's id (E,)."""
        return self.folds[torch.searchsorted(self.users, users.contiguous())]


def survey(parts: Iterable[tuple[DecisionLog, Tensor]], generator: torch.Generator) -> Totals:
    """Check the parts, each with its rewards (E,). Raises UserError if no policy can be judged on them.

    ``generator`` draws the folds of the users.
    """
    rows = sessions = steps = 0
    least, best, rarest = float("inf"), -float("inf"), 1.0
    users, items = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    loggers = torch.zeros(2, 1, dtype=torch.int64)  # rows and sessions of each
    contents: list[Tensor] = []
    for log, rewards in parts:
        check_part(log, rewards, rows)
        begun = log.steps == 0
        number = len(log.header.loggers)
        counts = [numbers.bincount(minlength=number) for numbers in (log.loggers, log.loggers[begun])]
        loggers = loggers + torch.stack(counts)  # (2, P)
        users = torch.cat([users, log.users]).unique()
        items = torch.cat([items, log.items.flatten()]).unique()
        least, best = min(least, float(rewards.min())), max(best, float(rewards.max()))
        rarest = min(rarest, 0.0 if log.logger_logprobs is not None else math.exp(float(log.logprobs.min())))
        rows, sessions = rows + log.num_rows, sessions + int(begun.sum())
        contents.append(_contents(log))
        steps = max(steps, int(log.steps.max()) + 1)
    if len(items) < 2:
        raise UserError(
            "The log has one item in every row, so that it shows nothing about other choices: give a log of "
            "a policy that chose among several."
        )
    if len(users) < 2:
        raise UserError("The log has one user: an interval over users needs at least two, so add users.")
    folds = folds_by_user(users, generator)
    of_all = torch.cat(contents)
    copies = len(of_all) - len(of_all.unique())
    return Totals(rows, sessions, steps, (least, best), users, folds, loggers[0], loggers[1], copies, rarest)


def _contents(log: DecisionLog) -> Tensor:
    """(N,) int64: a hash of user, times, items and signals of each session; none if the log has no times.

    Equal clicks of one user without a time are not copies of each other.
    """
    if bool((log.times == log.steps).all()):
        return log.times[:0]
    signals = log.signals.flatten(1).contiguous().view(torch.int32).long()
    columns = torch.cat([log.steps[:, None], log.times[:, None], log.items, signals], 1)
    row = log.users.clone()
    for column in columns.unbind(1):  # int64 wraps around
        row = (row ^ (row >> 31)) * 0x2545F4914F6CDD1D + column
    row = (row ^ (row >> 29)) * 0x2545F4914F6CDD1D
    number = log.session
    return row.new_zeros(int(number[-1]) + 1).index_add_(0, number, row ^ (row >> 32))


def check_part(log: DecisionLog, rewards: Tensor, before: int = 0) -> None:
    """Raise UserError for rows with the ``rewards`` (E,) on which no policy can be judged.

    ``before``: rows of the parts before.
    """
    if bool((log.items < 0).any()):
        row = int((log.items < 0).any(1).nonzero()[0])
        sentence = "{row} of the log has an empty place, whose probability no policy knows: drop its session"
        raise wrong("", sentence, row=before + row + 1)
    if not log.has_propensities:
        raise UserError(
            "The log has no propensities, which the weights of the estimators need: log the probability of "
            "each decision, or enter what is known by design in a column propensity."
        )
    if not bool(rewards.isfinite().all()):
        row = int((~rewards.isfinite()).nonzero()[0])
        raise wrong("", "the reward of {row} is missing or infinite: drop its session", row=before + row + 1)
    number = log.session
    begun = log.loggers[log.steps == 0]  # (N,)
    if log.logger_logprobs is not None and bool((log.loggers != begun[number]).any()):
        row = int((log.loggers != begun[number]).nonzero()[0])
        sentence = (
            "{session} has decisions of two loggers, but its weight is that of a session by one: give each "
            "logger its own sessions"
        )
        raise wrong("", sentence, session=int(log.sessions[row]))


def join(parts: Sequence[Evidence]) -> Evidence:
    """The evidence of all sessions. What one part lacks, the whole lacks."""
    if len(parts) == 1:
        return parts[0]
    steps = max(part.rewards.shape[1] for part in parts)
    slates = [part.slates for part in parts if part.slates is not None]
    joined = None
    if len(slates) == len(parts):
        names = [field.name for field in dataclasses.fields(Slates)]
        joined = Slates(*(_joined([getattr(slate, name) for slate in slates], steps) for name in names))
    return Evidence(
        weights=_last_kept([part.weights for part in parts], steps),
        rewards=_padded([part.rewards for part in parts], steps),
        alive=_padded([part.alive for part in parts], steps),
        gamma=parts[0].gamma,
        q=_joined([part.q for part in parts], steps),
        v=_joined([part.v for part in parts], steps),
        clusters=_joined([part.clusters for part in parts]),
        slates=joined,
        world=_joined([part.world for part in parts]),
    )


def _joined(parts: Sequence[Tensor | None], steps: int | None = None) -> Tensor | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return torch.cat(known) if steps is None else _padded(known, steps)


def _padded(parts: Sequence[Tensor], steps: int) -> Tensor:
    """(N, T, ...): parts (N', T', ...) with zeros after their last step."""
    wide = [
        torch.cat([values, values.new_zeros(len(values), steps - values.shape[1], *values.shape[2:])], 1)
        for values in parts
    ]
    return torch.cat(wide)


def _last_kept(parts: Sequence[Tensor], steps: int) -> Tensor:
    """(N, T): parts (N', T') with their last column repeated."""
    return torch.cat(
        [torch.cat([values, values[:, -1:].expand(-1, steps - values.shape[1])], 1) for values in parts]
    )
