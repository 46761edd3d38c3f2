"""The release over HTTP: its state, its history, and its actions, each one entry of ``ACTIONS``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct, field
from starlette.requests import Request
from starlette.responses import Response

from recsys_rl.logs.ope.answer import Answer
from recsys_rl.serving.draw.versions import Version
from recsys_rl.serving.http.services import Route, Services, as_json, decoded, encode, get, post
from recsys_rl.serving.messages import Problem, Sha256
from recsys_rl.serving.record.record_schema import Release, ReleaseKind, Unit
from recsys_rl.serving.releases.active_version import latest_requests
from recsys_rl.serving.releases.canary import Count, Guard
from recsys_rl.serving.work import release_changes as changes
from recsys_rl.serving.work.jobs import Call
from recsys_rl.serving.work.watch import verdict_of

AT = "/v1/release"
Part = Annotated[float, Meta(ge=0.001, lt=1)]  # of a smaller one the bounds never tell anything
Reason = Annotated[str, Meta(max_length=1_000)]


class Action(NamedTuple):
    """An action: `POST /v1/release/NAME`, its message and its part of the description."""

    name: str
    summary: str
    request: type[Struct]
    ready: Callable[[Services, Any], Awaitable[changes.Change]]
    """Checks files, and gives the change for the worker's thread. Raises Problem."""


class AliasRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /v1/release/alias`."""

    sha256: Sha256
    """The version that answers everybody from now on: a checkpoint in the folder of --checkpoint."""
    reason: Reason = ""


async def _alias(services: Services, asked: AliasRequest) -> changes.Change:
    return partial(changes.alias, version=await _tried(services, asked.sha256), reason=asked.reason)


class StartRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /v1/release/start`."""

    sha256: Sha256
    """The challenger: a checkpoint in the folder of --checkpoint."""
    share: Part
    """The share of the units that it answers."""
    unit: Unit = "session"
    """What gets an arm: each session, or each user with all sessions."""
    reason: Reason = ""
    verdict: dict[str, Any] | None = None
    """That of `recsys-rl gate`: the content of SHA256.gate.json."""


async def _start(services: Services, asked: StartRequest) -> changes.Change:
    version, fields = await _tried(services, asked.sha256), msgspec.structs.asdict(asked)
    del fields["sha256"]
    return partial(changes.start, version=version, **fields)


class ShareRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /v1/release/share`."""

    share: Part
    """Larger than the present one, so that nobody moves back."""


async def _share(services: Services, asked: ShareRequest) -> changes.Change:
    await _check_challenger(services)
    return partial(changes.share, share=asked.share)


class PromoteRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /v1/release/promote`."""

    challenger: Sha256
    """The challenger that is meant: another one, of a later release, is not promoted."""
    without_gate: bool = False
    """Promote it although the canary's answer is not *better*; the record keeps that."""
    reason: Reason = ""


async def _promote(services: Services, asked: PromoteRequest) -> changes.Change:
    number = await services.watch.now()  # it may stop the release in the same moment
    _, look = services.watch.of(number)
    await _check_challenger(services)
    fields = msgspec.structs.asdict(asked)
    return partial(changes.promote, number=number, canary=verdict_of(look), **fields)


class ReasonRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /v1/release/freeze`."""

    reason: Reason = ""


async def _freeze(services: Services, asked: ReasonRequest) -> changes.Change:
    return partial(changes.freeze, reason=asked.reason)


class BackRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /v1/release/back`."""

    reason: Reason = ""
    challenger: Sha256 | None = None
    """End the release of this challenger."""
    promotion: Sha256 | None = None
    """Or, where no release is under way: take the promotion of this champion back."""


async def _back(services: Services, asked: BackRequest) -> changes.Change:
    if (asked.challenger is None) == (asked.promotion is None):
        raise Problem(
            422,
            "wrong-field",
            "challenger, promotion: give one, the challenger whose release ends or the champion whose "
            "promotion is taken back.",
        )
    if asked.challenger is not None:
        return partial(changes.end, challenger=asked.challenger, reason=asked.reason)
    active, version = services.worker.shared.active, None
    wanted = changes.champion_before(active)
    if wanted is not None:  # it is open, unless the server was started since
        served = active.served.get(wanted)
        file = "" if served is None else served.file
        await asyncio.to_thread(services.policies.check_there, wanted, file)
        version = await asyncio.to_thread(services.policies.version, wanted, file)
    return partial(changes.take_back, promotion=asked.promotion, reason=asked.reason, version=version)


ACTIONS = (
    Action("alias", "Let another version answer everybody", AliasRequest, _alias),
    Action("start", "Let a challenger answer a share", StartRequest, _start),
    Action("share", "Raise the challenger's share", ShareRequest, _share),
    Action("promote", "Make the challenger the champion", PromoteRequest, _promote),
    Action("freeze", "Give the challenger no new sessions", ReasonRequest, _freeze),
    Action("back", "Let the champion before serve again", BackRequest, _back),
)


async def _tried(services: Services, sha256: str) -> Version:
    """A version of the folder that answers stored requests. Raises UserError, Problem."""
    stored = await services.worker.submit(Call(lambda shared: latest_requests(shared.store)))
    version = await asyncio.to_thread(services.policies.tried, sha256, stored)
    await asyncio.to_thread(services.policies.check_there, sha256)
    return version


async def _check_challenger(services: Services) -> None:
    """Raise Problem if the challenger's file is gone; UserError."""
    active = services.worker.shared.active
    if active.history.under_way is not None:
        file = "" if active.challenger is None else active.challenger.row.file
        sha256 = active.history.under_way.challenger
        await asyncio.to_thread(services.policies.check_there, sha256, file)


class CanaryAnswer(Struct, frozen=True):
    """The difference of the arms since the start: challenger minus champion, in units of the return of a
    session."""

    difference: float | None
    """null: there are too few sessions for any bound."""
    low: float | None
    high: float | None
    sessions: int
    """Of both arms, that are counted in it."""
    answer: Answer
    doubt: str
    """Why the answer is not *better* now, though that was found; "" if it was not."""


class ReleaseAnswer(Struct, frozen=True):
    """The answer of `GET /v1/release`, and of each action."""

    champion: str
    """SHA-256 of the version that serves; "" where none does."""
    challenger: str | None
    """null: no release is under way."""
    share: float
    unit: Unit
    since: float | None
    """Seconds since 1970."""
    frozen: bool
    """New sessions have no arm."""
    why_frozen: str
    """The reason that the freeze was given; "" without one."""
    counts: dict[str, Count]
    """The sessions of each arm that have matured, and a mean of their returns: the two means differ by the
    canary's difference, as both are of the sessions that are counted in it."""
    canary: CanaryAnswer | None
    guardrails: dict[str, Guard]
    band: list[tuple[int, float, float]] = field(default_factory=list)
    """The bounds of the difference after some numbers of sessions."""
    one_file: str = ""
    """The name of the file of --checkpoint: no other version can serve; "" with a folder."""


class ReleaseRow(Struct, frozen=True):
    """One action."""

    number: int
    time: float
    kind: ReleaseKind
    champion: str
    """The version that serves from then on."""
    challenger: str
    """The version that the action is about."""
    share: float
    unit: Unit
    reason: str
    verdict: Any
    """What the action was based on; null: nothing."""


def release_routes() -> tuple[Route, ...]:
    """The routes, in the order of the description."""
    return (
        get(AT, "read", status, "The release under way, and what its canary says", ReleaseAnswer),
        get(f"{AT}/history", "read", history, "All actions of releases", list[ReleaseRow]),
        *(
            post(f"{AT}/{of.name}", "admin", partial(act, of), of.summary, of.request, ReleaseAnswer)
            for of in ACTIONS
        ),
    )


async def act(action: Action, services: Services, body: bytes) -> bytes:
    """The state after the action. Raises Problem."""
    asked = decoded(msgspec.json.Decoder(action.request), body)
    await services.worker.submit(Call(await action.ready(services, asked)))
    return encode(_state(services))


async def status(services: Services, request: Request) -> Response:
    await services.watch.now()
    return as_json(_state(services))


async def history(services: Services, request: Request) -> Response:
    rows: list[Release] = await services.worker.submit(Call(lambda shared: shared.store.releases()))
    return as_json([_row(row) for row in rows])


def _state(services: Services) -> ReleaseAnswer:
    active, watch = services.worker.shared.active, services.watch
    release, champion = active.history.under_way, active.version.row.sha256
    one_file = services.policies.one_file
    if release is None:
        return ReleaseAnswer(champion, None, 0.0, "session", None, False, "", {}, None, {}, [], one_file)
    canary, look = watch.of(release.start.number)
    return ReleaseAnswer(
        champion=champion,
        challenger=release.challenger,
        share=release.share,
        unit=release.start.unit,
        since=release.start.time,
        frozen=release.frozen is not None,
        why_frozen="" if release.frozen is None else release.frozen.reason,
        counts=canary.counts,
        canary=CanaryAnswer(look.difference, look.low, look.high, look.sessions, look.answer, look.doubt),
        guardrails=look.guardrails,
        band=look.band,
        one_file=one_file,
    )


def _row(row: Release) -> ReleaseRow:
    fields = msgspec.structs.asdict(row)
    return ReleaseRow(**{**fields, "verdict": msgspec.json.decode(row.verdict) if row.verdict else None})
