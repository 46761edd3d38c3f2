"""The probability of a decision under the arms of its release together, for an export.

A release gives each session one of two policies, the challenger with the probability ``share``. So a session
has the probability sum_a share_a prod_t pi_a(a_t | h_t), the balance heuristic (Veach and Guibas 1995).
Weights by it have lighter tails than weights by the arm that happened to answer. In a log it stands decision
by decision, each given those before it::

    sum_a w_a pi_a(a_t | h_t),    w_a proportional to share_a prod_{s<t} pi_a(a_s | h_s)

so that the product over the session is the sum above. pi of the arm that answered is in the record; that of
the other one is computed from its checkpoint. Where the policy of an arm fails, popularity answers in its
place, and pi of that arm is popularity's. Where both arms do the same, w_a stays: after the end of a
release, where an answer was late and popularity gave it, and where an application chose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from recsys_rl.errors import UserError
from recsys_rl.serving.at_rest.opened_record import Record
from recsys_rl.serving.draw.decide_again import replay
from recsys_rl.serving.draw.rule import FAULTS
from recsys_rl.serving.draw.versions import Version
from recsys_rl.serving.record.record_schema import Decision, Release, SessionRows


@dataclass(frozen=True)
class Arms:
    """The versions of the release to which a decision's session belongs."""

    own: Version  # that answered
    other: Version


def by_an_arm(decision: Decision) -> bool:
    """True if the decision is of one of two policies, or of popularity in place of one that failed."""
    return bool(decision.arm) and decision.degraded in ("", *FAULTS) and not decision.application


def arms_of(record: Record, releases: Sequence[Release], decision: Decision) -> Arms:
    """The arms of a decision that one of them made.

    Raises UserError if a version is missing, or has a first stage.
    """
    starts = [row for row in releases if row.kind == "start" and row.number < decision.session]
    if not starts:
        raise UserError(
            f"{record.name} lacks the release of decision {decision.number}: copy it from a backup."
        )
    sha256 = starts[-1].champion if decision.arm == "challenger" else starts[-1].challenger
    arms = Arms(record.version(decision), record.version_of(sha256))
    staged = next((version.row.name for version in (arms.own, arms.other) if version.two_stages), None)
    if staged is not None:
        raise UserError(
            f"{record.name} has a release with {staged}, which chooses among candidates of its first stage, "
            "so that no log can hold the probabilities of both arms: serve it with a record of its own."
        )
    return arms


def with_arms(record: Record, group: Sequence[SessionRows]) -> list[SessionRows]:
    """The sessions, each decision with its log-probabilities under both arms together. Raises UserError."""
    split = [rows for rows in group if any(map(by_an_arm, rows.decisions))]
    if not split:
        return [*group]
    with record.whole():
        releases = record.store.releases()
    others: dict[int, list[float]] = {}  # log-probabilities of the places under the other arm, by decision

    def other(decision: Decision) -> Version:
        return arms_of(record, releases, decision).other if by_an_arm(decision) else record.version(decision)

    for step in replay(split, other, given=True):
        for again in step:
            nothing = [-math.inf] * len(again.decision.items)
            others[again.decision.number] = nothing if again.result.error else again.result.logprobs
    return [_mixed(rows, others) for rows in group]


def _mixed(rows: SessionRows, others: dict[int, list[float]]) -> SessionRows:
    """The session with the log-probabilities of the mixture, from those of each arm."""
    decisions, weights = list[Decision](), None  # log w of the own arm and of the other one
    for decision in rows.decisions:
        if by_an_arm(decision):
            share = decision.arm_probability
            weights = weights or (math.log(share), math.log1p(-share))
            logprobs = list[float]()
            for own, other in zip(decision.logprobs, others[decision.number], strict=True):
                both = weights[0] + own, weights[1] + other
                logprobs.append(_sum(both) - _sum(weights))
                weights = both
            decision = msgspec.structs.replace(decision, logprobs=tuple(logprobs))
        decisions.append(decision)
    return rows._replace(decisions=decisions)


def _sum(logs: tuple[float, float]) -> float:
    """The logarithm of the sum of two numbers, whose logarithms are given."""
    most = max(logs)
    return most + math.log(sum(math.exp(value - most) for value in logs))
