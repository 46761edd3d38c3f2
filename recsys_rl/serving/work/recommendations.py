"""Recommendations under way: from the request to its draw, from the result to the decision and its answer."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import NamedTuple

import msgspec
import torch

from recsys_rl.data.tables.values import NO_VALUE
from recsys_rl.serving import messages
from recsys_rl.serving.draw.context import context_of
from recsys_rl.serving.draw.draw_request import TOO_FEW, DrawRequest, DrawResult, request_in
from recsys_rl.serving.draw.rule import LATE, RAISED
from recsys_rl.serving.draw.session_state import SessionState
from recsys_rl.serving.draw.versions import POPULARITY, Version
from recsys_rl.serving.messages import Problem, RecommendRequest
from recsys_rl.serving.record.record_schema import Decision, Person, Pieces, ServedPolicy, Session
from recsys_rl.serving.releases.arms import Assigned
from recsys_rl.serving.work.jobs import Job, Shared, Visitor
from recsys_rl.serving.work.release_changes import fall_back
from recsys_rl.settings.fields import shown

MOST_WAITING = 16  # requests of one person at once: they are drawn one after another, and more come too late
MOST_LIKES = 1_000  # of a stranger, the latest
UNIFORMS = 1_024  # numbers in [0, 1) that are drawn at once

_encode = msgspec.json.Encoder().encode


@dataclass
class Pending:
    """A draw under way."""

    jobs: list[Job]  # several with one request id
    visitor: Visitor
    session: SessionState
    fresh: bool  # the session begins with this decision
    draw: DrawRequest
    context: Pieces  # as the request gave them
    events: int  # of the session, when the draw began
    assigned: Assigned
    unknown: tuple[str, ...]  # ids of the request that the catalogue lacks


class Recommendations:
    """The recommendations to all people. A request ends with its answer in ``Shared.transaction``."""

    def __init__(self, shared: Shared, generator: torch.Generator) -> None:
        self.shared, self.generator = shared, generator
        self.pending: dict[int, Pending] = {}  # by the number of the decision
        self.by_request_id: dict[str, Pending] = {}
        self.to_draw: list[DrawRequest] = []  # for the inference thread, after this round of jobs
        self.uniforms: list[float] = []

    def begin(self, job: Job) -> None:
        """Answer again, wait, or begin a draw. Raises Problem, Damaged."""
        if not self.shared.active.version.decides:
            raise messages.no_policy()
        visitor = self.visitor_of(job)
        if visitor is not None:
            self._begin_draw(job, visitor)

    def visitor_of(self, job: Job) -> Visitor | None:
        """The person of a request that is to be done now; None if it is answered again, or waits.

        Raises Problem, Damaged.
        """
        shared, request = self.shared, job.task.request
        if request.request_id is not None and self._is_repeated(job):
            return None
        version = shared.active.version
        if version.contexts is not None and request.user_id.strip().lower() in NO_VALUE:
            raise Problem(422, "wrong-user", f"user_id: a table takes {shown(request.user_id)} for a gap.")
        population_row = version.row_of_user.get(request.user_id, -1)
        visitor = shared.memory.visitor(request.user_id, population_row)
        if visitor.busy:
            if len(visitor.waiting) >= MOST_WAITING:
                raise messages.busy(shared.settings.deadline)
            visitor.waiting.append(job)
            return None
        if visitor.population_row < 0 and not shared.settings.strangers:
            raise Problem(
                404, "unknown-user", "This user is not among those of the checkpoint: strangers are refused."
            )
        return visitor

    def _is_repeated(self, job: Job) -> bool:
        """True if a request of this id was answered before, or will be with this one."""
        shared, request_id = self.shared, job.task.request.request_id
        under_way = self.by_request_id.get(request_id)
        if under_way is not None:
            _check_same(under_way.jobs[0].task.digest, job)
            under_way.jobs.append(job)
            return True
        before = shared.transaction.decisions.get(request_id) or shared.store.answered(request_id)
        if before is not None:
            _check_same(before.request_digest, job)
            shared.transaction.answer(job, before.answer)
        return before is not None

    def _begin_draw(self, job: Job, visitor: Visitor) -> None:
        """Begin a draw in the open session of the person, or in a new one. Raises Problem."""
        shared, request, now = self.shared, job.task.request, self.shared.clock()
        session, version, assigned = self.answering(visitor, request.session_id, now)
        fresh = False
        context = context_of(request.context, version, now)
        rows = _rows_of(request, version, 0 if session is None else len(session.steps))
        if session is None:
            session, fresh = self.new_session(visitor, rows.likes, now), True
        draw = request_in(
            session,
            version,
            context.hour,
            number=shared.transaction.number(),
            uniforms=self._next_uniforms(rows.places),
            candidates=rows.candidates,
            exclude=rows.exclude,
            explore=shared.settings.explore,
            new_items=shared.settings.new_items,
            context=context.row,
            degraded=RAISED if shared.active.broken and version is shared.active.version else "",
            deadline=job.deadline,
        )
        draw.steps = [step.copy() for step in draw.steps]  # another thread reads them
        events = len(session.events)
        pending = Pending(
            [job], visitor, session, fresh, draw, context.pieces, events, assigned, rows.unknown
        )
        visitor.busy = session.drawing = True
        self.pending[draw.number] = pending
        if request.request_id is not None:
            self.by_request_id[request.request_id] = pending
        self.to_draw.append(draw)

    def answering(
        self, visitor: Visitor, session_id: str | None, now: float
    ) -> tuple[SessionState | None, Version, Assigned]:
        """The open session of a person, None for a new one; the version that answers in it, and its arm.

        Raises Problem if it is not that of ``session_id``.
        """
        active, before, name = self.shared.active, visitor.session, visitor.row.name
        visit = 0 if before is None else before.row.visit + 1
        if before is not None:
            assigned, version = active.arm_of(name, before.row.visit, before.row.number)
            session = open_session(visitor, session_id, version, now)
            if session is not None:
                return session, version, assigned
        else:
            open_session(visitor, session_id, active.version, now)
        assigned, version = active.arm_of(name, visit)
        return None, version, assigned

    def _next_uniforms(self, number: int) -> tuple[float, ...]:
        """Numbers in [0, 1), drawn some at a time."""
        if len(self.uniforms) < number:
            self.uniforms += torch.rand(UNIFORMS, generator=self.generator).tolist()
        return tuple(self.uniforms.pop() for _ in range(number))

    def new_session(self, visitor: Visitor, likes: tuple[int, ...], now: float) -> SessionState:
        """A new session, which is written with its first decision."""
        shared, before = self.shared, visitor.session
        if not visitor.saved:
            visitor.row = Person(visitor.row.number or shared.transaction.number(), visitor.row.name)
        if before is not None and visitor.population_row < 0 and shared.active.version.takes_likes:
            version = shared.active.version
            consumed = before.consumed(version.full_signals, version.taken)
            likes = tuple(dict.fromkeys((*before.row.likes, *consumed, *likes)))[-MOST_LIKES:]
        row = Session(
            number=shared.transaction.number(),
            person=visitor.row.number,
            visit=0 if before is None else before.row.visit + 1,
            began=now,
            population_row=visitor.population_row,
            likes=() if visitor.population_row >= 0 else likes,
            timeout=shared.settings.session_timeout,
            window=shared.settings.feedback_window,
        )
        return SessionState(row, shared.memory.interface, latest=now)

    def draw_by_popularity(self, late: DrawRequest) -> None:
        """Draw again by popularity: the policy hangs."""
        self.to_draw.append(replace(late, degraded=LATE, deadline=math.inf))

    def finish(self, draw: DrawRequest, result: DrawResult) -> Visitor | None:
        """Write a decision down, and answer it. Returns the person, whose next request may begin."""
        shared, pending = self.shared, self.pending.pop(draw.number, None)
        if pending is None:  # given up, or the record was full in the meantime
            return None
        pending.visitor.busy = pending.session.drawing = False
        self.by_request_id.pop(pending.jobs[0].task.request.request_id or "", None)
        if result.error:
            for job in pending.jobs:
                shared.transaction.answer(job, self._refusal(result.error))
            shared.counts[result.error] += 1
        else:
            if shared.active.count(draw.version, result.degraded):
                fall_back(shared, draw.version)
            row = self._add_decision(pending, result)
            for job in pending.jobs:
                shared.transaction.answer(job, row.answer)
        return pending.visitor

    def refuse_late(self, job: Job) -> None:
        """Refuse a request that waited too long: in the queue of the draws it would delay those behind it."""
        self.shared.counts[LATE] += 1
        self.shared.transaction.answer(job, self._refusal(LATE))

    def _refusal(self, error: str) -> Problem:
        """The problem of a draw that has no result."""
        if error == TOO_FEW:
            return Problem(422, TOO_FEW, "Fewer items may be shown now than n: exclude fewer, or lower n.")
        if error == LATE:
            return messages.busy(self.shared.admission.wait)
        return Problem(503, "no-observation", "The observation can't be made: try again later.", 1)

    def _add_decision(self, pending: Pending, result: DrawResult) -> Decision:
        """Add the row of a decision, with its answer, to the transaction."""
        shared, session = self.shared, pending.session
        policy = self.served(pending.draw.version)
        row = _decision_of(pending, result, policy, shared.clock())
        if len(session.events) == pending.events:
            session.packed, session.packed_steps = result.packed, row.step
        else:  # an event came while it was drawn
            session.forget_packed()
        self.write(pending.visitor, session, pending.fresh, row)
        shared.counts["decisions"] += 1
        if result.degraded:
            shared.counts["degraded"] += 1
        return row

    def write(self, visitor: Visitor, session: SessionState, fresh: bool, row: Decision) -> None:
        """Add the row of a decision to its session and to the transaction.

        With it come those of its person and of a ``fresh`` session.
        """
        shared, transaction = self.shared, self.shared.transaction
        if not visitor.saved:
            transaction.rows.append(visitor.row)
            visitor.saved = True
        if fresh:
            transaction.rows.append(session.row)
            shared.memory.begin(visitor, session)
        shared.memory.add_decision(session, row)
        if row.request:
            transaction.decisions[row.request] = row
        transaction.rows.append(row)
        transaction.durable |= shared.settings.decisions_fsync

    def served(self, version: Version) -> ServedPolicy:
        """The row of a policy, which is new with its first decision."""
        served, transaction = self.shared.active.served, self.shared.transaction
        row = served.get(version.row.sha256)
        if row is None:
            row = msgspec.structs.replace(version.row, number=transaction.number())
            served[row.sha256] = row
            transaction.rows.append(row)
        return row

    def clear(self) -> list[Job]:
        """The transaction is lost: forget all that is under way. Returns its jobs."""
        jobs = [job for pending in self.pending.values() for job in pending.jobs]
        self.pending.clear()
        self.by_request_id.clear()
        return jobs


class RequestRows(NamedTuple):
    """A request as rows of the catalogue."""

    places: int
    candidates: tuple[int, ...] | None
    exclude: tuple[int, ...]
    likes: tuple[int, ...]
    unknown: tuple[str, ...]  # ids among them that the catalogue lacks


def open_session(
    visitor: Visitor, session_id: str | None, version: Version, now: float
) -> SessionState | None:
    """The open session of a person; None without one, or if it has as many steps as those of the version.

    Raises Problem if it is not that of ``session_id``.
    """
    session, longest = visitor.session, version.checkpoint.interface.session_length
    if session is not None and (session.ended(now) is not None or len(session.steps) >= longest):
        session = None
    if session_id is not None and (session is None or str(session.row.number) != session_id):
        raise Problem(
            409,
            "session-over",
            "This is not the user's open session: leave session_id out for a new one.",
        )
    return session


def _rows_of(request: RecommendRequest, version: Version, steps: int) -> RequestRows:
    """The rows of a request in a session of ``steps`` steps so far, checked. Raises Problem."""
    slate = version.checkpoint.interface.slate_size
    places = slate if request.n is None else request.n
    if version.two_stages and places > slate:
        raise Problem(422, "wrong-n", "n must be 1: the policy searches candidates for one place at a time.")
    version.check_places(places, steps, f"n is {places}")
    candidates, strange = version.rows_of_candidates(request.candidates)
    exclude, others = version.rows_of_known(request.exclude)
    unknown = tuple(dict.fromkeys((*strange, *others)))
    return RequestRows(places, candidates, exclude, version.rows_of_likes(request.likes), unknown)


def _check_same(digest: str, job: Job) -> None:
    if digest != job.task.digest:
        raise Problem(409, "other-request", "This request_id belongs to another request: give each its own.")


def _decision_of(pending: Pending, result: DrawResult, policy: ServedPolicy, now: float) -> Decision:
    """The row of a decision, with its answer."""
    draw, first = pending.draw, pending.jobs[0].task
    row = Decision(
        number=draw.number,
        session=pending.session.row.number,
        step=len(pending.session.steps),
        time=now,
        policy=policy.number,
        request=first.request.request_id or "",
        request_digest=first.digest,
        hour=draw.hour,
        items=tuple(result.items),
        logprobs=tuple(result.logprobs),
        uniforms=draw.uniforms,
        explore=draw.explore,
        candidates=result.candidates if draw.candidates is None else draw.candidates,
        exclude=draw.exclude,
        degraded=result.degraded,
        answer=b"",
        context=pending.context,
        arm=pending.assigned.arm,
        arm_probability=pending.assigned.probability,
        new_items=draw.new_items,
    )
    chooser = POPULARITY if row.degraded else policy
    return answered(row, draw.version, (chooser.name, chooser.number, chooser.sha256), pending.unknown)


def answered(
    row: Decision, version: Version, policy: tuple[str, int, str], unknown: tuple[str, ...]
) -> Decision:
    """The row with its answer.

    Args:
        policy: name, number and SHA-256 of the one that chose.
        unknown: ids of the request that the catalogue lacks.
    """
    title, of_places = version.checkpoint.catalogue.title, len(row.logprobs) == len(row.items)
    chances = [math.exp(logprob) for logprob in row.logprobs] if of_places else []
    answer = messages.Recommendation(
        decision_id=str(row.number),
        items=[
            messages.Place(version.item_ids[item], title(item), chance)
            for item, chance in zip_longest(row.items, chances)
        ],
        propensity=row.propensity,
        policy=messages.Policy(*policy),
        session=messages.SessionStep(str(row.session), row.step),
        degraded=row.degraded or None,
        unknown=list(unknown),
    )
    return msgspec.structs.replace(row, answer=_encode(answer))
