"""A decision made again from the record: the same observation, the same numbers, the same items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec
from torch import Tensor

from recsys_rl.models.policy import NetworkPolicy
from recsys_rl.serving.draw.context import named, row_of
from recsys_rl.serving.draw.draw_request import DrawRequest, DrawResult, draw, request_in
from recsys_rl.serving.draw.session_state import SessionState
from recsys_rl.serving.draw.versions import Version
from recsys_rl.serving.messages import Alternative, DecisionReport, KnownEvent, Recommendation, Seen
from recsys_rl.serving.record.record_schema import LEAVE, Decision, Event, SessionRows

TOP = 10  # alternatives of a report
OBSERVED = "observed"
"""Why nothing is drawn: an application chose, or the policy is not read."""
CLOSE = 1e-4
"""Largest difference of the log-probabilities of a draw and of its replay, on any processor.

But for policies that draw by the order of their logits: near ties may change places on another one.
"""


class Replayed(NamedTuple):
    """A decision that was made again."""

    at: int  # the place of its session among those that are replayed
    decision: Decision
    request: DrawRequest
    result: DrawResult


def request_of(version: Version, rows: SessionRows, decision: Decision) -> DrawRequest:
    """The draw of a decision, from the rows before it."""
    session = SessionState.of(rows, version.checkpoint.interface, before=decision.number)
    return _request_at(version, session, decision)


def _request_at(version: Version, session: SessionState, decision: Decision) -> DrawRequest:
    """The draw of a decision, where ``session`` is as it was then.

    That of an application, and of a policy that is not read, draws nothing: it gives what the policy would
    have seen, without asking it.
    """
    if decision.application or not version.decides:
        return request_in(
            session,
            version,
            decision.hour,
            number=decision.number,
            uniforms=(0.5,) * len(decision.items),
            candidates=decision.candidates,
            exclude=decision.exclude,
            context=row_of(decision.context, version),
            degraded=OBSERVED,
            items=decision.items,
        )
    return request_in(
        session,
        version,
        decision.hour,
        number=decision.number,
        uniforms=decision.uniforms,
        candidates=decision.candidates,
        exclude=decision.exclude,
        explore=decision.explore,
        new_items=decision.new_items,
        context=row_of(decision.context, version),
        degraded=decision.degraded,
    )


def replay(
    sessions: Sequence[SessionRows],
    version_of: Callable[[Decision], Version],
    report: bool = False,
    given: bool = False,
) -> Iterator[list[Replayed]]:
    """Make all decisions of some sessions again, one of each session at a time.

    ``given``: nothing is drawn. The log-probabilities of the decided items are those under ``version_of``,
    also where popularity had answered for another version.
    """
    started = [
        SessionState(
            rows.session,
            version_of(rows.decisions[0]).checkpoint.interface,
            latest=rows.session.began,
        )
        for rows in sessions
    ]
    events = [iter(rows.events) for rows in sessions]
    next_events = [next(each, None) for each in events]
    for depth in range(max((len(rows.decisions) for rows in sessions), default=0)):
        places = [at for at, rows in enumerate(sessions) if len(rows.decisions) > depth]
        decisions, requests = [sessions[at].decisions[depth] for at in places], []
        for at, decision in zip(places, decisions, strict=True):
            while (event := next_events[at]) is not None and event.number < decision.number:
                started[at].add_event(event)
                next_events[at] = next(events[at], None)
            request = _request_at(version_of(decision), started[at], decision)
            if given:
                unasked = OBSERVED if decision.application else ""
                request = replace(request, items=decision.items, degraded=unasked)
            requests.append(request)
        results = draw(requests, report)
        for at, decision, result in zip(places, decisions, results, strict=True):
            started[at].packed, started[at].packed_steps = result.packed, len(started[at].steps)
            started[at].add_decision(decision)
        yield [Replayed(*entry) for entry in zip(places, decisions, requests, results, strict=True)]


def is_same(decision: Decision, again: DrawResult) -> bool:
    """True if the replay gave the same items with the same log-probabilities."""
    if again.error or tuple(again.items) != decision.items:
        return False
    return all(abs(x - y) <= CLOSE for x, y in zip(again.logprobs, decision.logprobs, strict=True))


def report(version: Version, rows: SessionRows, decision: Decision) -> DecisionReport:
    """The answer of `GET /v1/decisions/{id}`: the decision, its observation, its alternatives, its events."""
    session = SessionState.of(rows, version.checkpoint.interface, before=decision.number)
    if version.decides:
        seen, alternatives, replayed = _again(version, session, decision)
    else:
        seen, alternatives, replayed = _without_a_policy(version, session, decision), [], None
    return DecisionReport(
        decision=msgspec.json.decode(decision.answer, type=Recommendation),
        time=decision.time,
        context=named(decision.context, version),
        seen=seen,
        alternatives=alternatives,
        replayed=replayed,
        events=[_known_event(version, event) for event in rows.events if event.decision == decision.number],
    )


def _again(
    version: Version, session: SessionState, decision: Decision
) -> tuple[Seen, list[Alternative], bool | None]:
    """What the policy saw, the likeliest items, and whether the draw, if there was one, gives the same."""
    request = _request_at(version, session, decision)
    if decision.application:  # the alternatives are the policy's
        request = replace(request, degraded="")
    [again] = draw([request], report=True)
    shown = again if not again.error else draw([replace(request, candidates=None)], report=True)[0]
    replayed = None if decision.application else is_same(decision, again)
    return _seen(version, shown), _likeliest(version, shown), replayed


def _without_a_policy(version: Version, session: SessionState, decision: Decision) -> Seen:
    """What a policy would have seen."""
    given = version.contexts.tensors([row_of(decision.context, version)]) if version.contexts else {}
    shown = [
        (item, dict(zip(version.signals, values, strict=True)))
        for step in session.steps
        for item, values in zip(step.items, step.signals, strict=True)
    ]
    return Seen(
        {name: rows[0].tolist() for name, rows in given.items()},
        [version.item_ids[item] for item, _ in shown],
        [version.checkpoint.catalogue.title(item) for item, _ in shown],
        [signals for _, signals in shown],
        0,
    )


def _seen(version: Version, result: DrawResult) -> Seen:
    interface = version.checkpoint.interface
    if not result.rounds:
        return Seen({}, [], [], [], 0)
    obs = result.rounds[0].obs
    context = {name: obs.context[0, interface.place_of(name)].tolist() for name, _ in interface.context}
    history: list[str] = []
    titles: list[str] = []
    signals: list[dict[str, float]] = []
    if obs.history is not None and obs.signals is not None:
        for item, values in zip(obs.history[0].tolist(), obs.signals[0].tolist(), strict=True):
            if item >= 0:
                history.append(version.item_ids[item])
                titles.append(version.checkpoint.catalogue.title(item))
                signals.append(dict(zip(interface.signals, values, strict=True)))
    excluded = 0 if obs.exclude is None else int((obs.exclude[0].unique() >= 0).sum())
    return Seen(context, history, titles, signals, excluded)


def _likeliest(version: Version, result: DrawResult) -> list[Alternative]:
    if not result.rounds:
        return []
    obs, choice = result.rounds[0].obs, result.rounds[0].choice
    chances = choice.scores.double().softmax(0)
    top = chances.topk(min(TOP, len(chances)))
    items = top.indices if choice.candidates is None else choice.candidates[top.indices]
    rewards: Tensor | None = None
    if isinstance(version.agent, NetworkPolicy) and not choice.fault:
        rewards = version.agent.expected_rewards(obs.among(items.unsqueeze(0)))  # (1, TOP)
    expected = [None] * len(items) if rewards is None else rewards[0].tolist()
    return [
        Alternative(version.item_ids[item], version.checkpoint.catalogue.title(item), chance, reward)
        for item, chance, reward in zip(items.tolist(), top.values.tolist(), expected, strict=True)
        if item >= 0 and chance > 0
    ]


def _known_event(version: Version, event: Event) -> KnownEvent:
    signals = version.checkpoint.interface.signals
    return KnownEvent(
        event_id=event.id.removeprefix("="),
        position=event.place,
        left=None if event.left < 0 else version.item_ids[event.left],
        signal="leave" if event.signal == LEAVE else signals[event.signal],
        value=event.value,
        time=event.time,
        received=event.received,
    )
