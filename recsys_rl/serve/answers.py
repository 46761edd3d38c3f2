"""The answer to a decision, or the problem in its place."""

from __future__ import annotations

import math
from datetime import datetime

from recsys_rl.recommender.visit import NOON
from recsys_rl.serve import problems, wire
from recsys_rl.serve.inference import TOO_FEW
from recsys_rl.serve.problems import Problem
from recsys_rl.serve.rows import Decision, Served
from recsys_rl.serve.rule import LATE
from recsys_rl.serve.versions import POPULARITY, Version


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
