"""The agreement of a policy with a log: the share of decisions in which it would show the same."""

from __future__ import annotations

from recsys_rl.errors import amount
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.transitions import observations
from recsys_rl.protocols import Policy
from recsys_rl.types import Catalogue


def agreement(policy: Policy, log: DecisionLog, catalogue: Catalogue) -> float:
    """Share of the decisions in which the policy's likeliest items are the logged ones, at every place."""
    same = 0
    for rows, obs in observations(log, catalogue):
        same += int((policy.act(obs, greedy=True).items == log.items[rows]).all(1).sum())
    return same / log.num_rows


def agreement_line(name: str, policy: Policy, log: DecisionLog, catalogue: Catalogue) -> str:
    """The agreement in words, in per cent."""
    share = agreement(policy, log, catalogue)
    return (
        f"{name}-greedy shows what the log shows in {100 * share:.1f} % of {amount(log.num_rows, 'decision')}"
    )
