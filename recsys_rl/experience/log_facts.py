"""Facts about a whole log for its learner, found in one pass before the first update."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.tables.decision_log import DecisionLog
from recsys_rl.types import UserError


@dataclass(frozen=True)
class LogFacts:
    """Facts about the decisions of a log that are learned from."""

    span: tuple[float, float]  # smallest and largest reward
    returns: Tensor  # (G,) float64: sum of the rewards of each session
    longest: int  # decisions of the longest session; 0 without a decision
    varies: bool  # two decisions show different items
    propensities: bool  # every decision has its probability

    def least_of_best(self, share: float) -> float:
        """The smallest return of the ``share`` of sessions with the highest returns, at least one."""
        count = max(1, math.ceil(share * len(self.returns)))
        return float(self.returns.topk(count).values[-1])


def facts_of(parts: Iterable[tuple[DecisionLog, Tensor]]) -> LogFacts:
    """The facts of a log from its parts of whole sessions, with the rewards (E,) of each."""
    low, high, longest, varies, propensities = math.inf, -math.inf, 0, False, True
    returns: list[Tensor] = []
    first: Tensor | None = None  # (1, K): items of the first decision
    for log, rewards in parts:
        low, high = min(low, float(rewards.min())), max(high, float(rewards.max()))
        sums, lengths = _of_sessions(log, rewards)
        returns.append(sums)
        longest = max(longest, int(lengths.max()))
        first = log.items[:1] if first is None else first
        varies = varies or bool((log.items != first).any())
        propensities = propensities and log.has_propensities
    none = torch.zeros(0, dtype=torch.float64)
    return LogFacts((low, high), torch.cat(returns or [none]), longest, varies, propensities)


def check_facts(name: str, algo: str, facts: LogFacts, needs: Sequence[str]) -> None:
    """Raise UserError if ``algo``, with what its record and settings need, can't learn from this log."""
    if not facts.longest:
        return  # Logged has the error of a log without decisions
    if not facts.varies:
        raise UserError(
            f"{name} shows the same items in every decision of its training users, so there is nothing to "
            f"choose and {algo} can learn nothing: give a log of a policy that shows different items."
        )
    if "propensities" in needs and not facts.propensities:
        raise UserError(
            f"{name} has no propensities, and {algo} weighs each decision by them: give a log with a column "
            "logprob or propensity, or choose --algo bc (without --weighted), cql, bcq or iql."
        )
    if "steps" in needs and facts.longest < 2:
        raise UserError(
            f"{name} has sessions of one decision alone, so there is no return to go that {algo} could ask "
            "for: choose --algo bc, cql, bcq, iql or reinforce."
        )
    if "gains" in needs and facts.span[0] < 0:
        raise UserError(
            f"{name} has rewards below 0, the lowest is {facts.span[0]:g}, and a likelihood with negative "
            "weights has no maximum: leave --weighted out, or choose --algo reinforce, cql, bcq or iql."
        )


def best_sessions(log: DecisionLog, rewards: Tensor, least: float) -> Tensor:
    """(E,) bool: decisions of sessions whose rewards add up to at least ``least``."""
    sums, lengths = _of_sessions(log, rewards)
    return (sums >= least).repeat_interleave(lengths)


def _of_sessions(log: DecisionLog, rewards: Tensor) -> tuple[Tensor, Tensor]:
    """The sum (G,) float64 of the rewards of each session, in order, and its number of decisions (G,)."""
    _, session, lengths = log.sessions.unique_consecutive(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(lengths), dtype=torch.float64).index_add_(0, session, rewards.double())
    return sums, lengths
