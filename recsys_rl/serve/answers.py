"""The answer to a decision, or the problem in its place."""

from __future__ import annotations

import math
from datetime import datetime

import msgspec

from recsys_rl.recommender.visit import NOON
from recsys_rl.serve import problems, wire
from recsys_rl.serve.inference import TOO_FEW, Ask, Drawn
from recsys_rl.serve.jobs import Pending
from recsys_rl.serve.problems import Problem
from recsys_rl.serve.rows import Decision, Served
from recsys_rl.serve.rule import LATE
from recsys_rl.serve.versions import POPULARITY, Version

_encode = msgspec.json.Encoder().encode


def decided(pending: Pending, ask: Ask, drawn: Drawn, policy: Served, now: float) -> Decision:
    """The row of a decision, with its answer."""
    row = Decision(
        number=ask.number,
        session=pending.visit.row.number,
        step=len(pending.visit.steps),
        time=now,
        policy=policy.number,
        request=pending.jobs[0].what.request.request_id or "",
        asked=pending.asked,
        hour=ask.hour,
        items=tuple(drawn.items),
        logprobs=tuple(drawn.logprobs),
        uniforms=ask.uniforms,
        explore=ask.explore,
        candidates=drawn.candidates if ask.candidates is None else ask.candidates,
        exclude=ask.exclude,
        degraded=drawn.degraded,
        answer=b"",
    )
    return msgspec.structs.replace(row, answer=_encode(answer_of(row, policy, ask.version)))


def answer_of(row: Decision, policy: Served, version: Version) -> wire.Recommendation:
    """The answer to a decision."""
    by = POPULARITY if row.degraded else policy
    title = version.checkpoint.catalogue.title
    places = [
        wire.Place(version.names[item], title(item), math.exp(logprob))
        for item, logprob in zip(row.items, row.logprobs, strict=True)
    ]
    return wire.Recommendation(
        decision_id=str(row.number),
        items=places,
        propensity=math.exp(sum(row.logprobs)),
        policy=wire.Policy(by.name, by.number, by.sha256),
        session=wire.SessionStep(str(row.session), row.step),
        degraded=row.degraded or None,
    )


def refusal(error: str, seconds: float) -> Problem:
    """The problem of a draw that has no result; ``seconds`` is how long the queue takes."""
    if error == TOO_FEW:
        return Problem(422, TOO_FEW, "Fewer items may be shown now than n: exclude fewer, or lower n.")
    if error == LATE:
        return problems.busy(seconds)
    return Problem(503, "no-observation", "The observation can't be made: try again later.", 1)


def hour_of(request: wire.RecommendRequest, version: Version, now: float) -> float:
    """The hour of the week of a request; NOON where the policy does not see it."""
    if request.context.hour is not None:
        return request.context.hour
    if not version.by_hour:
        return NOON
    moment = datetime.fromtimestamp(now)
    return 24 * moment.weekday() + moment.hour + moment.minute / 60
