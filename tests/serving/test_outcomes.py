"""Outcomes of sessions from their rows: when they count, whose arm they have, and who left early."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recsys_rl.serving.draw.session_state import SessionState
from recsys_rl.serving.draw.versions import open_version
from recsys_rl.serving.record.record_schema import LEAVE, Decision, Event, Session, SessionRows
from recsys_rl.serving.releases.outcomes import Outcomes

TIMEOUT, WINDOW, LONGEST = 100.0, 10.0, 1_000.0
LENGTH = 20  # steps of a session


@pytest.fixture(scope="module")
def outcomes(checkpoint: Callable[[str], Path]) -> Outcomes:
    found = Outcomes([open_version(checkpoint("satiation"), 0)], LONGEST)
    found.interface = replace(found.interface, session_length=LENGTH)
    return found


def decision(number: int, step: int, time: float = 0.0, **fields: Any) -> Decision:
    by_policy = {"policy": 1, "logprobs": (-1.0,), "uniforms": (0.5,)}
    row = {**by_policy, "request": "", "request_digest": "", "hour": 12.0, "items": (step,), **fields}
    rest = {"explore": 0.0, "candidates": None, "exclude": (), "degraded": "", "answer": b"", **row}
    return Decision(number=number, session=1, step=step, time=time, **rest)


def event(number: int, of: int, signal: int, time: float, value: float = 1.0) -> Event:
    return Event(number, f"={number}", 1, of, 0, -1, signal, value, None, time)


def session(outcomes: Outcomes, decisions: Sequence[Decision], *events: Event) -> SessionState:
    rows = SessionRows(Session(1, 7, 0, 0.0, -1, (), TIMEOUT, WINDOW), [*decisions], [*events])
    return SessionState.of(rows, outcomes.interface)


def test_a_session_that_never_ends_counts_after_its_longest_time(outcomes: Outcomes) -> None:
    """An event each 50 seconds, also the last one: by its timeout of 100 it goes on at any time."""
    end = TIMEOUT + WINDOW + LONGEST
    events = [event(at, 1, 0, 50.0 * at) for at in range(2, 2 + int(end) // 50)]
    goes_on = session(outcomes, [decision(1, 0)], *events)
    assert goes_on.ended(end) is None and not goes_on.matured(end)
    assert outcomes.end(goes_on.row) == end
    assert not outcomes.matured(goes_on, end - 1) and outcomes.matured(goes_on, end)


def test_only_a_user_who_left_has_left_early(outcomes: Outcomes) -> None:
    """Of sessions of 20 steps at most, 5 or fewer are early; one that only ended by time is not."""
    for steps, left, early in ((3, True, 1.0), (5, True, 1.0), (6, True, 0.0), (3, False, 0.0)):
        decisions = [decision(1 + at, at) for at in range(steps)]
        found = session(outcomes, decisions, *([event(50, steps, LEAVE, 5.0)] if left else []))
        assert outcomes.matured(found, TIMEOUT + WINDOW + 5)
        assert outcomes.of([found])[0].early == early


def test_a_session_has_the_arm_of_its_first_decision_with_one(outcomes: Outcomes) -> None:
    """An application's decision has none, and popularity's share is of the others."""
    by_application = decision(1, 0, application="rules", policy=0, logprobs=(), uniforms=())
    arm: dict[str, Any] = {"arm": "challenger", "arm_probability": 0.25}
    rows = [by_application, decision(2, 1, **arm), decision(3, 2, degraded="raised", **arm)]
    [found] = outcomes.of([session(outcomes, rows, event(4, 1, 0, 1.0, 0.5))])
    assert (found.arm, found.probability, found.degraded) == ("challenger", 0.25, 0.5)
    assert found.shown == (0, 1, 2) and found.reward == pytest.approx(0.5)
    [outside] = outcomes.of([session(outcomes, [by_application])])
    assert (outside.arm, outside.probability, outside.degraded) == ("", 1.0, 0.0)
