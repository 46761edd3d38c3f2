"""The routes of a release: its state, its actions, its history."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from recsys_rl.serving.jobs import Change, Read
from recsys_rl.serving.messages import Problem
from recsys_rl.serving.record.record_schema import Release
from recsys_rl.serving.releases.active_version import latest_requests
from recsys_rl.serving.releases.release_messages import (
    BackRequest,
    CanaryAnswer,
    PromoteRequest,
    ReasonRequest,
    ReleaseAnswer,
    ReleaseRow,
    ShareRequest,
    StartRequest,
)
from recsys_rl.serving.releases.releases import Back, Freeze, Promote, Share, Start, TakeBack, champion_before
from recsys_rl.serving.releases.watch import verdict_of
from recsys_rl.serving.services import Route, Services, as_json, decoded, encode, get, post

_decode_start = msgspec.json.Decoder(StartRequest).decode
_decode_share = msgspec.json.Decoder(ShareRequest).decode
_decode_promote = msgspec.json.Decoder(PromoteRequest).decode
_decode_reason = msgspec.json.Decoder(ReasonRequest).decode
_decode_back = msgspec.json.Decoder(BackRequest).decode


def release_routes() -> tuple[Route, ...]:
    """The routes, in the order of the description."""
    at, done = "/v1/release", ReleaseAnswer
    return (
        get(at, "read", status, "The release under way, and what its canary says", done),
        get(f"{at}/history", "read", history, "All actions of releases", list[ReleaseRow]),
        post(f"{at}/start", "admin", start, "Let a challenger answer a share", StartRequest, done),
        post(f"{at}/share", "admin", share, "Raise the challenger's share", ShareRequest, done),
        post(f"{at}/promote", "admin", promote, "Make the challenger the champion", PromoteRequest, done),
        post(f"{at}/freeze", "admin", freeze, "Give the challenger no new sessions", ReasonRequest, done),
        post(f"{at}/back", "admin", back, "Let the champion before serve again", BackRequest, done),
    )


async def status(services: Services, request: Request) -> Response:
    await services.watch.now()
    return as_json(_state(services))


async def history(services: Services, request: Request) -> Response:
    rows: list[Release] = await services.worker.submit(Read(lambda store: store.releases()))
    return as_json([_row(row) for row in rows])


async def start(services: Services, body: bytes) -> bytes:
    asked: StartRequest = decoded(_decode_start, body)
    stored = await services.worker.submit(Read(latest_requests))
    version = await asyncio.to_thread(services.policies.tried, asked.sha256, stored)
    await asyncio.to_thread(services.policies.check_there, asked.sha256)
    action = Start(version, asked.share, asked.unit, asked.reason, asked.verdict)
    return await _done(services, action)


async def share(services: Services, body: bytes) -> bytes:
    asked: ShareRequest = decoded(_decode_share, body)
    await _check_challenger(services)
    return await _done(services, Share(asked.share))


async def promote(services: Services, body: bytes) -> bytes:
    asked: PromoteRequest = decoded(_decode_promote, body)
    release = await services.watch.now()  # it may stop the release in the same moment
    _, look = services.watch.of(release)
    await _check_challenger(services)
    action = Promote(asked.challenger, release, verdict_of(look), asked.without_gate, asked.reason)
    return await _done(services, action)


async def freeze(services: Services, body: bytes) -> bytes:
    return await _done(services, Freeze(decoded(_decode_reason, body).reason))


async def back(services: Services, body: bytes) -> bytes:
    asked: BackRequest = decoded(_decode_back, body)
    if (asked.challenger is None) == (asked.promotion is None):
        raise Problem(
            422,
            "wrong-field",
            "challenger, promotion: give one, the challenger whose release ends or the champion whose "
            "promotion is taken back.",
        )
    if asked.challenger is not None:
        return await _done(services, Back(asked.reason, asked.challenger))
    assert asked.promotion is not None
    active, version = services.worker.shared.active, None
    wanted = champion_before(active)
    if wanted is not None:  # it is open, unless the server was started since
        served = active.served.get(wanted)
        file = "" if served is None else served.file
        await asyncio.to_thread(services.policies.check_there, wanted, file)
        version = await asyncio.to_thread(services.policies.version, wanted, file)
    return await _done(services, TakeBack(asked.reason, asked.promotion, version))


async def _check_challenger(services: Services) -> None:
    """Raise Problem if the challenger's file is gone; UserError."""
    active = services.worker.shared.active
    if active.history.under_way is not None:
        file = "" if active.challenger is None else active.challenger.row.file
        sha256 = active.history.under_way.challenger
        await asyncio.to_thread(services.policies.check_there, sha256, file)


async def _done(services: Services, action: Any) -> bytes:
    """The state after the action. Raises Problem."""
    await services.worker.submit(Change(action))
    return encode(_state(services))


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
    verdict = msgspec.json.decode(row.verdict) if row.verdict else None
    fields = (row.number, row.time, row.kind, row.champion, row.challenger, row.share, row.unit, row.reason)
    return ReleaseRow(*fields, verdict)
