"""Decisions of the caller's own application: each is checked, and written down in the person's session.

Nothing is drawn. The session goes on as if we had shown the items.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

from recsys_rl.data.tables.values import NO_VALUE
from recsys_rl.serving.draw.context import context_of
from recsys_rl.serving.draw.session_state import SessionState
from recsys_rl.serving.draw.versions import Version
from recsys_rl.serving.messages import ObserveRequest, Problem
from recsys_rl.serving.record.record_schema import Decision
from recsys_rl.serving.work.jobs import Job
from recsys_rl.serving.work.recommendations import Recommendations, answered
from recsys_rl.settings.fields import shown


def observe(recommendations: Recommendations, job: Job) -> None:
    """Write the decision down, or let it wait for a draw of its person. Raises Problem, Damaged."""
    visitor = recommendations.visitor_of(job)
    if visitor is None:
        return
    shared, request, now = recommendations.shared, job.task.request, recommendations.shared.clock()
    if request.policy.strip().lower() in NO_VALUE:  # a table would take it for a gap
        raise Problem(422, "wrong-policy", f"policy: {shown(request.policy)} is not a name: give another.")
    session, version, _ = recommendations.answering(visitor, request.session_id, now)
    context = context_of(request.context, version, now)
    rows, fresh = _rows_of(request, version, session), session is None
    if session is None:
        session = recommendations.new_session(visitor, rows.likes, now)
    row = Decision(
        number=shared.transaction.number(),
        session=session.row.number,
        step=len(session.steps),
        time=now,
        policy=recommendations.served(version).number if version.decides else 0,
        request=request.request_id or "",
        request_digest=job.task.digest,
        hour=context.hour,
        items=rows.items,
        logprobs=rows.logprobs,
        uniforms=(),
        explore=0.0,
        candidates=rows.candidates,
        exclude=(),
        degraded="",
        answer=b"",
        application=request.policy,
        context=context.pieces,
    )
    row = answered(row, version, (row.application, 0, ""), rows.unknown)
    recommendations.write(visitor, session, fresh, row)
    shared.counts["observed"] += 1
    shared.transaction.answer(job, row.answer)


class _Rows(NamedTuple):
    """A request as rows of the catalogue."""

    items: tuple[int, ...]
    logprobs: tuple[float, ...]
    candidates: tuple[int, ...] | None
    likes: tuple[int, ...]
    unknown: tuple[str, ...]  # candidates that the catalogue lacks


def _rows_of(request: ObserveRequest, version: Version, session: SessionState | None) -> _Rows:
    """The rows of a request in this session, None for a new one. Raises Problem for what can't have been."""
    interface = version.checkpoint.interface
    items = version.rows_of_items(request.items, "items")
    number, slate = len(request.items), interface.slate_size
    if len(items) < number:
        raise Problem(422, "item-twice", "items: an item stands twice: give each once.")
    version.check_places(number, 0 if session is None else len(session.steps), f"items: there are {number}")
    available = version.checkpoint.catalogue.available
    _refuse(
        request, items, [item for item in items if not available[item]], "can't be shown: it is not available"
    )
    if session is not None and not interface.repeats:
        before = {item for step in session.steps for item in step.items}
        _refuse(request, items, before, "was shown before in this session, where no item is shown again")
    candidates, unknown = version.rows_of_candidates(request.candidates)
    if candidates is not None:
        _refuse(request, items, {*items} - {*candidates}, "is not among the candidates")
    likes = version.rows_of_likes(request.likes)
    return _Rows(items, _logprobs_of(request, slate), candidates, likes, unknown)


def _refuse(request: ObserveRequest, items: tuple[int, ...], wrong: Collection[int], why: str) -> None:
    """Raise Problem for the first of the ``items`` that is among the ``wrong`` ones."""
    for id_, item in zip(request.items, items, strict=True):
        if item in wrong:
            raise Problem(422, "not-showable", f"items: {shown(id_)} {why}.")


def _logprobs_of(request: ObserveRequest, slate: int) -> tuple[float, ...]:
    """The logarithms of the propensity, as in ``Decision.logprobs``. Raises Problem."""
    given, number = request.propensity, len(request.items)
    if given is None:
        return ()
    if isinstance(given, list) and len(given) != number:
        raise Problem(422, "wrong-propensity", f"propensity: it has {len(given)} numbers for {number} items.")
    if not isinstance(given, list) and number > 1 and slate == 1:
        raise Problem(
            422, "wrong-propensity", f"propensity: give a list of {number}, the probability of each place."
        )
    return tuple(math.log(chance) for chance in (given if isinstance(given, list) else [given]))
