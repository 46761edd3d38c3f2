"""The doors of the server, as an ASGI application: bytes in, structs to the desk, bytes out."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from recsys_rl.errors import UserError, one_line
from recsys_rl.serve import wire
from recsys_rl.serve.desk import Desk, Feedback, Latest, Look, Recommend, Swap
from recsys_rl.serve.library import Library
from recsys_rl.serve.metrics import Metrics
from recsys_rl.serve.problems import Problem
from recsys_rl.serve.replay import report
from recsys_rl.serve.schema import openapi
from recsys_rl.serve.tokens import Tokens

_recommend = msgspec.json.Decoder(wire.RecommendRequest).decode
_feedback = msgspec.json.Decoder(wire.FeedbackRequest).decode
_alias = msgspec.json.Decoder(wire.AliasRequest).decode
_encode = msgspec.json.Encoder().encode
Handler = Callable[[Request], Awaitable[Response]]


def make_app(desk: Desk, library: Library, tokens: Tokens | None = None) -> Starlette:
    """The application. It closes the desk when it ends."""
    metrics = Metrics(desk)

    async def recommend(request: Request) -> Response:
        body = await _body(request)
        asked = _decoded(_recommend, body)
        digest = hashlib.blake2b(_encode(asked), digest_size=12).hexdigest()
        answer: bytes = await desk.submit(Recommend(asked, digest))
        return _json(answer)

    async def feedback(request: Request) -> Response:
        asked = _decoded(_feedback, await _body(request))
        return _json(_encode(await desk.submit(Feedback(asked.events))))

    async def decision(request: Request) -> Response:
        id_ = request.path_params["id"]
        if not (id_.isascii() and id_.isdecimal() and len(id_) < 19):
            raise Problem(404, "unknown-decision", "There is no decision with this id.")
        whole, row = await desk.submit(Look(int(id_)))
        version = await asyncio.to_thread(library.number, row.policy, desk)
        return _json(_encode(await asyncio.to_thread(report, version, whole, row)))

    async def policies(request: Request) -> Response:
        return _json(_encode(library.listed(desk)))

    async def alias(request: Request) -> Response:
        asked = _decoded(_alias, await _body(request))
        stored = await desk.submit(Latest())
        version = await asyncio.to_thread(library.verified, asked.sha256, stored)
        await desk.submit(Swap(version))
        return _json(_encode(library.listed(desk)))

    async def alive(request: Request) -> Response:
        return Response("ok\n", media_type="text/plain")

    async def ready(request: Request) -> Response:
        why = desk.failed or ("the policy failed, and popularity answers" if desk.broken else "")
        return Response(f"{why or 'ready'}\n", 503 if why else 200, media_type="text/plain")

    async def measured(request: Request) -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    async def schema(request: Request) -> Response:
        return _json(_encode(openapi()))

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(desk.close)

    def door(path: str, handler: Handler, scope: str | None, method: str = "GET") -> Route:
        async def enter(request: Request) -> Response:
            try:
                if tokens is not None and scope is not None:
                    tokens.check(request.headers.get("authorization"), scope)
                with metrics.time(path):
                    return await handler(request)
            except Problem as problem:
                return _problem(problem)
            except UserError as error:
                return _problem(Problem(409, "not-possible", one_line(error)))

        return Route(path, enter, methods=[method])

    app = Starlette(
        routes=[
            door("/v1/recommend", recommend, "decide", "POST"),
            door("/v1/feedback", feedback, "feedback", "POST"),
            door("/v1/decisions/{id}", decision, "read"),
            door("/v1/policies", policies, "read"),
            door("/v1/policies/alias", alias, "admin", "POST"),
            door("/metrics", measured, "read"),
            door("/healthz", alive, None),
            door("/readyz", ready, None),
            door("/openapi.json", schema, None),
        ],
        exception_handlers={404: _no_door, 405: _wrong_method, Exception: _fault},
        lifespan=lifespan,
    )
    app.state.desk = desk
    return app


async def _body(request: Request) -> bytes:
    """The body. Raises Problem if it is too large, or not JSON by its header."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "not-json", "The body must be JSON, with content-type application/json.")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > wire.LARGEST_BODY:
            raise Problem(413, "too-large", f"The body has more than {wire.LARGEST_BODY:,} bytes: send less.")
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _decoded(decode: Callable[[bytes], Any], body: bytes) -> Any:
    """The struct of a body. Raises Problem."""
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise Problem(422, "wrong-field", one_line(error)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Problem(400, "not-json", f"The body is not JSON: {one_line(error)}") from None


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _problem(problem: Problem) -> Response:
    headers = {} if problem.retry_after is None else {"retry-after": str(problem.retry_after)}
    if problem.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(problem.body(), problem.status, headers, "application/problem+json")


def _no_door(request: Request, error: Exception) -> Response:
    return _problem(Problem(404, "not-found", "There is nothing at this address: see /openapi.json."))


def _wrong_method(request: Request, error: Exception) -> Response:
    return _problem(Problem(405, "wrong-method", "This address takes another method: see /openapi.json."))


def _fault(request: Request, error: Exception) -> Response:
    return _problem(Problem(503, "fault", "The server failed at this request: it is in its log.", 1))
