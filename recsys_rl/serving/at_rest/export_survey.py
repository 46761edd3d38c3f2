"""A first reading of a record for an export: which sessions it has, and what their log must hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from recsys_rl.errors import UserError
from recsys_rl.serving.at_rest.export_arms import by_an_arm
from recsys_rl.serving.at_rest.opened_record import Record
from recsys_rl.serving.at_rest.record_interval import Interval
from recsys_rl.serving.draw.session_state import SessionState
from recsys_rl.serving.draw.versions import Version
from recsys_rl.serving.record.record_schema import Decision, ServedPolicy, SessionRows

Logger = tuple[int | str, float]
"""The number of a policy in the record, 0 for popularity, or the name of an application; and the probability
of a uniform choice."""


POPULARITY_DRAWN = "popularity-drawn"
"""The policy of decisions that popularity made in place of another."""


@dataclass
class Survey:
    """The properties of all sessions of a log, and the number of those that are left out."""

    interval: Interval
    loggers: dict[Logger, Version] = field(default_factory=dict)  # without their networks
    sessions: list[int] = field(default_factory=list)  # the numbers of those for the log
    without_candidates: int = 0  # sessions that are left out, as ``_lacks_candidates`` says
    late_feedback: int = 0  # decisions, as of ``late_decisions``
    # "exclude", "candidates", "list_place", and "forbidden" where the platform forbids some items.
    limits: set[str] = field(default_factory=set)
    most_left: int = 1  # most items that were left after a step
    unknown: int = 0  # decisions without a probability
    factors: bool = True  # the probability of each place is known
    arms: bool = False  # some decisions are of the arms of a release (export_arms.py)

    @property
    def each_known(self) -> bool:
        """True if the log has the log-probability of each row under every logger."""
        return len(self.loggers) > 1 and not self.applications and not self.arms

    @property
    def applications(self) -> list[Logger]:
        """The loggers that are applications: only they know the probability of a choice."""
        return [logger for logger in self.loggers if isinstance(logger[0], str)]


def survey_of(record: Record, interval: Interval) -> Survey:
    """Read the sessions of the interval. Raises UserError."""
    survey = Survey(interval)
    for rows in record.sessions(interval.sessions):
        session = record.state_of(rows)
        if _lacks_candidates(record, rows):
            survey.without_candidates += 1
            continue
        survey.sessions.append(session.row.number)
        survey.most_left = max(survey.most_left, *(len(step.left) for step in session.steps))
        survey.late_feedback += late_decisions(session)
        for decision in session.decisions:
            survey.loggers.setdefault(logger_of(decision), record.place(decision))
            survey.arms |= by_an_arm(decision)
            survey.unknown += not decision.logprobs
            survey.factors &= len(decision.logprobs) == len(decision.items)
            if len(decision.items) > session.interface.slate_size:
                survey.limits.add("list_place")
            if _forbids(record.place(decision)):
                survey.limits |= {"exclude", "forbidden"}
            if decision.exclude:
                survey.limits.add("exclude")
            if decision.candidates is not None:
                survey.limits.add("candidates")
    return survey


def late_decisions(session: SessionState) -> int:
    """The decisions with feedback that came after the next one, whose policy had not seen it."""
    after = dict(pairwise(decision.number for decision in session.decisions))
    late = (x for x in session.events.values() if x.number > after.get(x.decision, x.number))
    return len({event.decision for event in late})


def _lacks_candidates(record: Record, rows: SessionRows) -> bool:
    """True if popularity answered for a policy with a first stage, whose candidates were not proposed."""
    return any(decision.degraded and record.place(decision).two_stages for decision in rows.decisions)


def check_stages(record: Record, survey: Survey) -> None:
    """Raise UserError for a first stage in a log of several policies, as its ``logger_logprobs`` are unknown.

    The record holds what the first stage of the policy that decided proposed, and that of no other. With
    another share of exploration it proposes the same.
    """
    if not survey.each_known:
        return  # the log has no ``logger_logprobs``
    numbers = {number for number, _ in survey.loggers}
    staged = [
        version.row.name for (number, _), version in survey.loggers.items() if number and version.two_stages
    ]
    if staged and len(numbers) > 1:
        raise UserError(
            f"{record.name} has decisions of {len(numbers)} policies, and {staged[0]} chooses among "
            "candidates of its first stage, so it can't share a log: serve it with a record of its own."
        )


def _forbids(version: Version) -> bool:
    """True if the platform forbids some available items at some steps."""
    pieces = version.checkpoint.config.platform.visit_pieces
    return pieces is not None and pieces.permits is not None


def logger_names(loggers: Mapping[Logger, ServedPolicy | None]) -> dict[Logger, str]:
    """A name of each logger, no two alike: its policy, with the share of uniform choices if there are any.

    The first policy of a name has it alone, as `ope` knows it, and applications come after all policies.
    ``loggers``: the policy that decided, or in whose place popularity did; None for an application's.
    """
    names: dict[Logger, str] = {}
    for logger in sorted(loggers, key=lambda one: isinstance(one[0], str)):  # stable
        (own, explore), policy = logger, loggers[logger]
        if isinstance(own, str):
            name, other = own, "application"
        else:
            assert policy is not None
            name, other = policy.name if own else POPULARITY_DRAWN, policy.sha256[:8]
            name = f"{1 - explore:g} {name} + {explore:g} random" if explore else name
        names[logger] = f"{name} ({other})" if name in names.values() else name
    return {logger: names[logger] for logger in loggers}


def times_of(session: SessionState) -> dict[int, int]:
    """Milliseconds since 1970 of each decision, by its number.

    They do not fall within the session, even if the clock was set back.
    """
    times = accumulate((int(1000 * decision.time) for decision in session.decisions), max)
    return {decision.number: time for decision, time in zip(session.decisions, times, strict=True)}


def logger_of(decision: Decision) -> Logger:
    """The policy that chose, and its exploration."""
    if decision.application:
        return decision.application, 0.0
    return (0 if decision.degraded else decision.policy), decision.explore
