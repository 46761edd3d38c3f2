"""The doors of the server, as an ASGI application: bytes in, structs to the worker, bytes out."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from time import perf_counter

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from recsys_rl.errors import UserError, one_line
from recsys_rl.serve import wire
from recsys_rl.serve.bodies import decoded, read_body
from recsys_rl.serve.hosts import is_local, wrong_host
from recsys_rl.serve.jobs import Feedback, Latest, Look, Recommend, Rows, Swap
from recsys_rl.serve.library import Library
from recsys_rl.serve.metrics import Metrics
from recsys_rl.serve.problems import Problem
from recsys_rl.serve.replay import report
from recsys_rl.serve.schema import openapi
from recsys_rl.serve.tokens import Tokens
from recsys_rl.serve.worker import Worker

_recommend = msgspec.json.Decoder(wire.RecommendRequest).decode
_feedback = msgspec.json.Decoder(wire.FeedbackRequest).decode
_alias = msgspec.json.Decoder(wire.AliasRequest).decode
_encode = msgspec.json.Encoder().encode

Post = Callable[[bytes], Awaitable[bytes]]
"""The body of a request -> the JSON of its answer. Raises Problem."""
Get = Callable[[Request], Awaitable[Response]]
Headers = tuple[tuple[bytes, bytes], ...]


class App:
    """The application. It closes the worker when it ends.

    Requests with a body go around Starlette's routing, which takes as long as all of our own work on them.
    """

    def __init__(self, worker: Worker, library: Library, tokens: Tokens | None = None) -> None:
        self.worker, self.library, self.tokens = worker, library, tokens
        self.metrics = Metrics(worker)
        self.posts: Mapping[str, tuple[Post, str]] = {
            "/v1/recommend": (self._recommend, "decide"),
            "/v1/feedback": (self._feedback, "feedback"),
            "/v1/policies/alias": (self._swap, "admin"),
        }
        routes = [
            self._get("/v1/decisions/{id}", self._decision, "read"),
            self._get("/v1/decisions", self._decisions, "read"),
            self._get("/v1/policies", self._policies, "read"),
            self._get("/v1/platform", self._platform, "read"),
            self._get("/v1/items", self._items, "read"),
            self._get("/metrics", self._measured, "read"),
            self._get("/healthz", self._alive, None),
            self._get("/readyz", self._ready, None),
            self._get("/openapi.json", self._schema, None),
            *(self._get(path, _static(name, kind), None) for path, (name, kind) in PAGES.items()),
        ]
        self.gets = Starlette(
            routes=routes,
            exception_handlers={404: _no_door, 405: _wrong_method, Exception: _fault},
            lifespan=self._lifespan,
        )
        # A redirect to the same path without its "/" would name the caller's Host, and ask for no token.
        self.gets.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.gets(scope, receive, send)
            return
        headers = {name: value for name, value in scope["headers"] if name in NEEDED}
        host = _wrong_host(scope, headers.get(b"host", b""), self.tokens is None)
        door = self.posts.get(scope["path"])
        if door is None:
            await (self.gets if host is None else _problem(host))(scope, receive, send)
            return
        start = perf_counter()
        status, kind, more = 200, b"application/json", Headers()
        try:
            if host is not None:
                raise host
            if scope["method"] != "POST":
                raise _other_method("POST")
            self._check(headers.get(b"authorization"), door[1])
            body = await door[0](await read_body(headers, receive))
        except Exception as error:  # whatever it is, no traceback leaves
            problem = _as_problem(error)
            status, kind, more = problem.status, b"application/problem+json", problem.headers
            body = problem.body()
        length = str(len(body)).encode()
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-type", kind), (b"content-length", length), *more],
            }
        )
        await send({"type": "http.response.body", "body": body})
        self.metrics.observe(scope["path"], perf_counter() - start)

    def _check(self, authorization: bytes | None, scope: str | None) -> None:
        if self.tokens is not None and scope is not None:
            self.tokens.check((authorization or b"").decode("latin-1"), scope)

    async def _recommend(self, body: bytes) -> bytes:
        admission = self.worker.admission
        entered = admission.enter()  # before the body is decoded: a refusal must cost little
        try:
            asked = decoded(_recommend, body)
            answer: bytes = await self.worker.submit(Recommend(asked, _digest(asked)))
            admission.measure(entered)
            return answer
        finally:
            admission.leave()

    async def _feedback(self, body: bytes) -> bytes:
        return _encode(await self.worker.submit(Feedback(decoded(_feedback, body).events)))

    async def _swap(self, body: bytes) -> bytes:
        asked = decoded(_alias, body)
        stored = await self.worker.submit(Latest())
        version = await asyncio.to_thread(self.library.verified, asked.sha256, stored)
        await self.worker.submit(Swap(version))
        return _encode(await asyncio.to_thread(self.library.listed, self.worker))

    async def _decision(self, request: Request) -> Response:
        id_ = request.path_params["id"]
        if not (id_.isascii() and id_.isdecimal() and len(id_) < 19):
            raise Problem(404, "unknown-decision", "There is no decision with this id.")
        whole, row = await self.worker.submit(Look(int(id_)))
        version = await asyncio.to_thread(self.library.number, row.policy, self.worker)
        return _json(_encode(await asyncio.to_thread(report, version, whole, row)))

    async def _decisions(self, request: Request) -> Response:
        rows, unreadable = await self.worker.submit(Rows(ROWS))
        names, title = self.worker.champion.names, self.worker.champion.checkpoint.catalogue.title
        found = [
            wire.DecisionRow(
                decision_id=str(row.number),
                user_id=person,
                session=str(row.session),
                step=row.step,
                time=row.time,
                items=[names[item] for item in row.items],
                titles=[title(item) for item in row.items],
                propensity=math.exp(sum(row.logprobs)),
                degraded=row.degraded or None,
                events=events,
            )
            for row, person, events in rows
        ]
        return _json(_encode(wire.DecisionRows(found, [*map(str, unreadable)])))

    async def _platform(self, request: Request) -> Response:
        return _json(_encode(self.worker.champion.platform))

    async def _items(self, request: Request) -> Response:
        text = request.query_params.get("q", "")[:200]
        return _json(_encode(wire.ItemsFound(await asyncio.to_thread(self.worker.champion.find, text))))

    async def _policies(self, request: Request) -> Response:
        return _json(_encode(await asyncio.to_thread(self.library.listed, self.worker)))

    async def _alive(self, request: Request) -> Response:
        return Response("ok\n", media_type="text/plain")

    async def _ready(self, request: Request) -> Response:
        why = self.worker.failed
        if self.worker.champions.broken:
            why = "the policy failed three times in a row, and popularity answers"
        return Response(f"{why or 'ready'}\n", 503 if why else 200, media_type="text/plain")

    async def _measured(self, request: Request) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def _schema(self, request: Request) -> Response:
        return _json(_encode(openapi()))

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(self.worker.close)

    def _get(self, path: str, handler: Get, scope: str | None) -> Route:
        async def enter(request: Request) -> Response:
            start = perf_counter()
            try:
                given = request.headers.get("authorization")
                self._check(None if given is None else given.encode("latin-1"), scope)
                return await handler(request)
            except Exception as error:
                return _problem(_as_problem(error))
            finally:
                self.metrics.observe(path, perf_counter() - start)

        return Route(path, enter, methods=METHODS)


ROWS = 20  # of the playground
METHODS = ["GET", "HEAD"]  # of a door without a body
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
PAGES = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
NEEDED = (b"authorization", b"content-type", b"host", b"origin")


def _digest(asked: wire.RecommendRequest) -> str:
    """With it a request that comes again is compared with the first one of its id; "" without an id."""
    if asked.request_id is None:
        return ""
    return hashlib.blake2b(_encode(asked), digest_size=12).hexdigest()


def _wrong_host(scope: Scope, host: bytes, only_local: bool) -> Problem | None:
    """What is wrong with the Host of a request, if anything is."""
    if [name for name, _ in scope["headers"]].count(b"host") > 1:  # RFC 9112, section 3.2
        return Problem(400, "two-hosts", "The request has more than one Host header: send one.")
    return wrong_host() if only_local and not is_local(host) else None


def _as_problem(error: Exception) -> Problem:
    """The problem of an answer; an error that nobody foresaw is in the server's log."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, UserError):
        return Problem(409, "not-possible", one_line(error))
    traceback.print_exception(error, file=sys.stderr)
    return Problem(503, "fault", "The server failed at this request: see its log.", 1)


def _static(name: str, kind: str) -> Get:
    """The door of a file of the playground."""
    content = (Path(__file__).parent / "page" / name).read_bytes()
    headers = {"content-security-policy": POLICY, "x-content-type-options": "nosniff"}

    async def answer(request: Request) -> Response:
        return Response(content, headers=headers, media_type=kind)

    return answer


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _problem(problem: Problem) -> Response:
    headers = {name.decode(): value.decode() for name, value in problem.headers}
    return Response(problem.body(), problem.status, headers, "application/problem+json")


def _other_method(allow: str) -> Problem:
    return Problem(405, "wrong-method", "This address takes another method: see /openapi.json.", allow=allow)


def _no_door(request: Request, error: Exception) -> Response:
    return _problem(Problem(404, "not-found", "There is nothing at this address: see /openapi.json."))


def _wrong_method(request: Request, error: Exception) -> Response:
    return _problem(_other_method(", ".join(sorted(METHODS))))


def _fault(request: Request, error: Exception) -> Response:
    return _problem(_as_problem(error))
