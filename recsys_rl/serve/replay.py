"""A decision made again from the record: the same observation, the same numbers, the same items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import msgspec

from recsys_rl.serve.inference import Ask, Drawn, ask_of, draw
from recsys_rl.serve.rows import Decision, Event, Whole
from recsys_rl.serve.versions import Version
from recsys_rl.serve.visits import ServedVisit
from recsys_rl.serve.wire import DecisionReport, KnownEvent, Place, Recommendation, Seen
from recsys_rl.types import Interface

TOP = 10  # alternatives of a report
CLOSE = 1e-4
"""Largest difference of the log-probabilities of a draw and of its replay, on any processor."""


def ask_again(version: Version, whole: Whole, decision: Decision) -> Ask:
    """What the decision depended on: the rows before it."""
    visit = ServedVisit.of(whole, version.checkpoint.interface, before=decision.number)
    return ask_at(version, visit, decision)


def ask_at(version: Version, visit: ServedVisit, decision: Decision) -> Ask:
    """What the decision depended on, where ``visit`` is its session until then."""
    return ask_of(
        visit,
        version,
        decision.hour,
        number=decision.number,
        uniforms=decision.uniforms,
        candidates=decision.candidates,
        exclude=decision.exclude,
        explore=decision.explore,
        degraded=decision.degraded,
    )


def walk(
    wholes: Sequence[Whole], version_of: Callable[[Decision], Version], report: bool = False
) -> Iterator[list[tuple[int, Decision, Ask, Drawn]]]:
    """All decisions of some sessions made again, one of each session at a time.

    Yields the place of the session, the decision, what it depended on, and the draw.
    """
    visits = [ServedVisit(whole[0], _interface(version_of, whole), latest=whole[0].began) for whole in wholes]
    events = [iter(whole[2]) for whole in wholes]
    next_ones = [next(each, None) for each in events]
    for depth in range(max((len(whole[1]) for whole in wholes), default=0)):
        going = [at for at, whole in enumerate(wholes) if len(whole[1]) > depth]
        decisions, asks = [wholes[at][1][depth] for at in going], []
        for at, decision in zip(going, decisions, strict=True):
            while (event := next_ones[at]) is not None and event.number < decision.number:
                visits[at].happen(event)
                next_ones[at] = next(events[at], None)
            asks.append(ask_at(version_of(decision), visits[at], decision))
        found = draw(asks, report)
        for at, decision, drawn in zip(going, decisions, found, strict=True):
            visits[at].visit, visits[at].covered = drawn.visit, len(visits[at].steps)
            visits[at].decide(decision)
        yield list(zip(going, decisions, asks, found, strict=True))


def _interface(version_of: Callable[[Decision], Version], whole: Whole) -> Interface:
    return version_of(whole[1][0]).checkpoint.interface


def same(decision: Decision, again: Drawn) -> bool:
    """True if the replay gave the same items with the same log-probabilities."""
    if again.error or tuple(again.items) != decision.items:
        return False
    return all(abs(x - y) <= CLOSE for x, y in zip(again.logprobs, decision.logprobs, strict=True))


def report(version: Version, whole: Whole, decision: Decision) -> DecisionReport:
    """What was seen and decided, what else was likely, and what came of it."""
    ask = ask_again(version, whole, decision)
    [again] = draw([ask], report=True)
    own = again if not again.error else draw([replace(ask, candidates=None)], report=True)[0]
    return DecisionReport(
        decision=msgspec.json.decode(decision.answer, type=Recommendation),
        time=decision.time,
        seen=_seen(version, own),
        alternatives=_likeliest(version, own),
        replayed=same(decision, again),
        events=[_known(version, x) for x in whole[2] if x.decision == decision.number],
    )


def _seen(version: Version, drawn: Drawn) -> Seen:
    interface = version.checkpoint.interface
    if not drawn.places:
        return Seen({}, [], [], [], 0)
    obs = drawn.places[0].obs
    context = {name: obs.context[0, interface.place_of(name)].tolist() for name, _ in interface.context}
    history: list[str] = []
    titles: list[str] = []
    signals: list[dict[str, float]] = []
    if obs.history is not None and obs.signals is not None:
        for item, values in zip(obs.history[0].tolist(), obs.signals[0].tolist(), strict=True):
            if item >= 0:
                history.append(version.names[item])
                titles.append(version.checkpoint.catalogue.title(item))
                signals.append(dict(zip(interface.signals, values, strict=True)))
    excluded = 0 if obs.exclude is None else int((obs.exclude[0].unique() >= 0).sum())
    return Seen(context, history, titles, signals, excluded)


def _likeliest(version: Version, drawn: Drawn) -> list[Place]:
    if not drawn.places:
        return []
    choice = drawn.places[0].choice
    chances = choice.scores.double().softmax(0)
    top = chances.topk(min(TOP, len(chances)))
    items = top.indices if choice.candidates is None else choice.candidates[top.indices]
    return [
        Place(version.names[item], version.checkpoint.catalogue.title(item), chance)
        for item, chance in zip(items.tolist(), top.values.tolist(), strict=True)
        if item >= 0 and chance > 0
    ]


def _known(version: Version, event: Event) -> KnownEvent:
    signals = version.checkpoint.interface.signals
    return KnownEvent(
        event_id=event.id.removeprefix("="),
        position=event.place,
        left=None if event.left < 0 else version.names[event.left],
        signal="leave" if event.signal < 0 else signals[event.signal],
        value=event.value,
        time=event.time,
        received=event.received,
    )
