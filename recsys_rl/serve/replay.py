"""A decision made again from the record: the same observation, the same numbers, the same items."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from recsys_rl.serve.inference import TOP, Ask, Drawn, draw
from recsys_rl.serve.rows import Decision, Event, Whole
from recsys_rl.serve.versions import Version
from recsys_rl.serve.visits import ServedVisit
from recsys_rl.serve.wire import DecisionReport, KnownEvent, Place, Recommendation, Seen

CLOSE = 1e-4
"""Largest difference of the log-probabilities of a draw and of its replay, on any processor."""


def ask_again(version: Version, whole: Whole, decision: Decision) -> Ask:
    """What the decision depended on: the rows before it."""
    visit = ServedVisit.of(whole, version.checkpoint.interface, before=decision.number)
    first = visit.decisions[0] if visit.decisions else decision
    return Ask(
        number=decision.number,
        version=version,
        known=visit.row.known,
        likes=visit.row.likes,
        began=first.hour,
        base=None,
        steps=visit.steps,
        hour=decision.hour,
        uniforms=decision.uniforms,
        candidates=decision.candidates,
        exclude=decision.exclude,
        explore=decision.explore,
        degraded=decision.degraded,
    )


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
    interface, obs = version.checkpoint.interface, drawn.obs
    if obs is None:
        return Seen({}, [], [], 0)
    context = {name: obs.context[0, interface.place_of(name)].tolist() for name, _ in interface.context}
    history: list[str] = []
    signals: list[dict[str, float]] = []
    if obs.history is not None and obs.signals is not None:
        for item, values in zip(obs.history[0].tolist(), obs.signals[0].tolist(), strict=True):
            if item >= 0:
                history.append(version.names[item])
                signals.append(dict(zip(interface.signals, values, strict=True)))
    excluded = 0 if obs.exclude is None else int((obs.exclude[0].unique() >= 0).sum())
    return Seen(context, history, signals, excluded)


def _likeliest(version: Version, drawn: Drawn) -> list[Place]:
    if drawn.scores is None or drawn.obs is None:
        return []
    chances = drawn.scores.double().softmax(0)
    top = chances.topk(min(TOP, len(chances)))
    items = top.indices if drawn.obs.candidates is None else drawn.obs.candidates[0][top.indices]
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
