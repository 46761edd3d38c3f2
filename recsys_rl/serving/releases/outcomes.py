"""Outcomes of sessions that have matured: the return by the champion's objective, and what guardrails watch.

They are read from a snapshot of the record, in another thread than the requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from recsys_rl.make import make_user_model
from recsys_rl.objective.weighted import weighted_known, weights_of
from recsys_rl.protocols import UserModel
from recsys_rl.serving.draw.session_state import SessionState, Step, events_left
from recsys_rl.serving.draw.versions import Version
from recsys_rl.serving.record.record_schema import Arm, Session, SessionRows
from recsys_rl.types import Events, Feedback, Interface

EARLY = 0.25
"""Share of the platform's steps; a user who left by then left early."""


@dataclass(frozen=True)
class Outcome:
    """One session."""

    number: int
    person: int
    arm: Arm
    probability: float  # of its arm
    reward: float  # the sum over its steps
    degraded: float  # share of the decisions that popularity made
    early: float  # 1: the user left early
    shown: tuple[int, ...]  # rows of the items, in all places


class Outcomes:
    """Makes outcomes from the rows of a record."""

    def __init__(self, versions: Sequence[Version], longest: float) -> None:
        """``versions``: those that serve, first the champion. Returns are by the weights of its training.

        Their sessions may have other lengths: the longest one counts.

        ``longest``: seconds in which a visitor is active at most (``end``).
        """
        self.version, self.longest = versions[0], longest
        interfaces = [version.checkpoint.interface for version in versions]
        longest = max(interface.session_length for interface in interfaces)
        self.interface: Interface = replace(interfaces[0], session_length=longest)

    def end(self, session: Session) -> float:
        """When the session counts at the latest, with the rows that are earlier than that."""
        return session.began + session.timeout + session.window + self.longest

    def matured(self, state: SessionState, now: float) -> bool:
        """True if no row can change the outcome any more."""
        return state.matured(now) or now >= self.end(state.row)

    def states(self, sessions: Mapping[int, SessionRows]) -> dict[int, SessionState]:
        """Sessions with decisions, until their ends."""
        return {
            number: SessionState.of(rows, self.interface, self._first_late(rows))
            for number, rows in sessions.items()
            if rows.decisions
        }

    def _first_late(self, rows: SessionRows) -> int | None:
        """The number of the first row that is later than the session's end."""
        end = self.end(rows.session)
        times = [(row.number, row.time) for row in rows.decisions]
        times += [(row.number, row.received) for row in rows.events]
        return min((number for number, time in times if time >= end), default=None)

    def of(self, sessions: Sequence[SessionState]) -> list[Outcome]:
        """The outcomes of sessions that have matured."""
        rewards = self.step_rewards([step for session in sessions for step in session.steps])
        of_session = torch.tensor(
            [at for at, session in enumerate(sessions) for _ in session.steps], dtype=torch.int64
        )
        sums = torch.zeros(len(sessions)).double().index_add(0, of_session, rewards)
        return [_outcome(session, reward) for session, reward in zip(sessions, sums.tolist(), strict=True)]

    def step_rewards(self, steps: Sequence[Step]) -> Tensor:
        """(E,) float64: the reward of each step."""
        if not steps:
            return torch.zeros(0).double()
        signals = torch.tensor([step.signals for step in steps]).view(
            len(steps), self.interface.slate_size, len(self.interface.signals)
        )
        shown = torch.ones(signals.shape[:2], dtype=torch.bool)
        feedback = Feedback(self._all_signals(signals), shown, self._left(steps))
        streams = self._users.rewards(feedback)  # (E, M)
        by = weights_of(self.version.checkpoint.config.train_config, self._users.streams)
        return weighted_known(streams, by).double()

    @cached_property
    def _users(self) -> UserModel:
        return make_user_model(self.version.checkpoint.config, self.version.checkpoint.world)

    def _all_signals(self, visible: Tensor) -> Tensor:
        """Signals (E, ?, S) of the user model, NaN where they are hidden, from the visible ones."""
        every = [signal.name for signal in self._users.signals]
        at = torch.tensor([every.index(name) for name in self.interface.signals], dtype=torch.int64)
        return visible.new_full((*visible.shape[:-1], len(every)), torch.nan).index_copy(-1, at, visible)

    def _left(self, steps: Sequence[Step]) -> Events | None:
        if not self.interface.events:
            return None
        items, signals = events_left(steps, self.interface)
        return Events(items, self._all_signals(signals))


def _outcome(session: SessionState, reward: float) -> Outcome:
    decisions = session.decisions
    first = next((decision for decision in decisions if decision.arm), decisions[0])
    drawn = [decision for decision in decisions if not decision.application]
    early = session.left_after >= 0 and len(session.steps) <= EARLY * session.interface.session_length
    return Outcome(
        number=session.row.number,
        person=session.row.person,
        arm=first.arm,
        probability=first.arm_probability,
        reward=reward,
        degraded=sum(decision.degraded != "" for decision in drawn) / max(1, len(drawn)),
        early=float(early),
        shown=tuple(item for step in session.steps for item in step.items),
    )
