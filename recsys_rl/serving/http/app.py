"""The ASGI application: host, token and body of a request are checked, and its route is called."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import re
import sys
import traceback
from collections.abc import AsyncIterator, Mapping
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from starlette import routing
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from recsys_rl.errors import UserError, one_line
from recsys_rl.serving.http.routes import routes
from recsys_rl.serving.http.services import Metrics, Route, Services
from recsys_rl.serving.messages import Problem
from recsys_rl.serving.releases.active_version import PolicyFiles
from recsys_rl.serving.work.item_report import ItemCounts
from recsys_rl.serving.work.watch import Watch
from recsys_rl.serving.work.worker import Worker
from recsys_rl.utils.files import read_text

Headers = tuple[tuple[bytes, bytes], ...]
NEEDED = (b"authorization", b"content-type", b"host", b"origin")
GET = ["GET", "HEAD"]  # methods of a route without a body
SLOWEST = 10.0  # seconds of a body
SCOPES = ("decide", "feedback", "read", "items", "admin")
PORT = re.compile(":[0-9]*$")
B = TypeVar("B", bytes, bytearray)


class App:
    """The application. It closes the worker when it ends.

    Requests with a body go around Starlette's routing, which takes as long as all of our own work on them.
    """

    def __init__(self, worker: Worker, policies: PolicyFiles, tokens: Tokens | None = None) -> None:
        watch = Watch(worker)
        self.worker, self.tokens, self.metrics = worker, tokens, Metrics(worker, watch)
        self.services = Services(worker, policies, self.metrics, watch, ItemCounts(worker))
        table = routes()
        self.posts: Mapping[str, Route] = {route.path: route for route in table if route.method == "POST"}
        self.both = {route.path for route in table if route.method == "GET"} & self.posts.keys()
        self.gets = Starlette(
            routes=[self._get(route) for route in table if route.method == "GET"],
            exception_handlers={404: _not_found, 405: _wrong_method, Exception: _fault},
            lifespan=self._lifespan,
        )
        # A redirect to the same path without its "/" would name the caller's Host, and ask for no token.
        self.gets.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.gets(scope, receive, send)
            return
        headers = {name: value for name, value in scope["headers"] if name in NEEDED}
        host = _host_problem(scope, headers.get(b"host", b""), self.tokens is None)
        route = self.posts.get(scope["path"])
        if route is None or (scope["method"] in GET and scope["path"] in self.both):
            await (self.gets if host is None else _response(host))(scope, receive, send)
            return
        start = perf_counter()
        status, kind, more = 200, b"application/json", Headers()
        try:
            if host is not None:
                raise host
            if scope["method"] != "POST":
                raise _other_method("POST")
            self._check(headers.get(b"authorization"), route.scope)
            body = await route.function(self.services, await read_body(headers, receive, route.largest))
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

    def _get(self, route: Route) -> routing.Route:
        async def enter(request: Request) -> Response:
            start = perf_counter()
            try:
                given = request.headers.get("authorization")
                self._check(None if given is None else given.encode("latin-1"), route.scope)
                answer: Response = await route.function(self.services, request)
                return answer
            except Exception as error:
                return _response(_as_problem(error))
            finally:
                self.metrics.observe(route.path, perf_counter() - start)

        # An id may have a /, and is the rest of the path.
        return routing.Route(route.path.replace("{id}", "{id:path}"), enter, methods=GET)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        watch = asyncio.create_task(self.services.watch.run())
        yield
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
        await self.services.items.close()
        await asyncio.to_thread(self.worker.close)


class Tokens:
    """The tokens of a file: the scopes and the SHA-256 of each. The tokens themselves are kept nowhere."""

    def __init__(self, path: Path) -> None:
        """Read the lines `SCOPES SHA-256` of ``path``, scopes with commas between. Raises UserError.

        Empty lines and lines that begin with # are skipped.
        """
        self.known: list[tuple[bytes, frozenset[str]]] = []
        for number, line in enumerate(read_text(path, "--tokens", "a token file").splitlines(), 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            scopes = frozenset(words[0].split(","))
            if len(words) != 2 or not scopes <= {*SCOPES} or not re.fullmatch("[0-9a-f]{64}", words[1]):
                raise UserError(
                    f"--tokens {path}: line {number} is not scopes ({','.join(SCOPES)}) and the SHA-256 of a "
                    "token, in 64 lower-case hex digits."
                )
            self.known.append((bytes.fromhex(words[1]), scopes))
        if not self.known:
            raise UserError(f"--tokens {path} has no token: add a line with scopes and a SHA-256.")

    def check(self, header: str | None, scope: str) -> None:
        """Raise Problem unless the header Authorization has a token of this scope.

        Every token of the file is compared, in constant time.
        """
        kind, _, token = (header or "").partition(" ")
        given = hashlib.sha256(token.strip().encode()).digest()
        granted: frozenset[str] | None = None
        for digest, scopes in self.known:
            if hmac.compare_digest(digest, given):
                granted = scopes if granted is None else granted | scopes
        if kind.lower() != "bearer" or granted is None:
            raise Problem(401, "no-token", "Send a token that the server knows: Authorization: Bearer TOKEN.")
        if scope not in granted:
            raise Problem(403, "wrong-scope", f"This token has not the scope {scope}.")


def is_loopback(name: str) -> bool:
    """True for localhost and for the addresses 127.0.0.0/8 and ::1."""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


@lru_cache(64)
def is_local(host: bytes) -> bool:
    """True if this value of Host is a name or an address of loopback, with or without a port."""
    name = PORT.sub("", host.decode("latin-1").strip().lower())
    if name.startswith("[") and name.endswith("]"):
        return ":" in name and is_loopback(name[1:-1])
    return ":" not in name and is_loopback(name)


def wrong_host() -> Problem:
    """The problem of a request to a server without tokens whose Host is not local.

    A page of another site can let its own name point at 127.0.0.1 (DNS rebinding). Its requests are then of
    one origin for the browser, which lets it read the answers. But they carry that name in Host.
    """
    return Problem(
        421,
        "wrong-host",
        "A server without --tokens answers only at localhost, 127.0.0.1 or [::1]: send one of these as Host.",
    )


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, largest: int) -> bytes:
    """The body. Raises Problem if it is too large, or not JSON by its header."""
    # A browser lets any site post a body without a type, and names the site. For JSON it asks first.
    kind = headers.get(b"content-type", b"" if b"origin" in headers else b"application/json")
    if kind != b"application/json" and kind.partition(b";")[0].strip().lower() != b"application/json":
        raise Problem(415, "not-json", "The body must be JSON, with content-type application/json.")
    try:
        async with asyncio.timeout(SLOWEST):
            message = await receive()
            first: bytes = message.get("body", b"")
            if not message.get("more_body", False):
                return _limited(first, largest)
            body = bytearray(first)
            while message.get("more_body", False):
                message = await receive()
                body += message.get("body", b"")
                _limited(body, largest)
    except TimeoutError:
        raise Problem(408, "too-slow", f"The body did not arrive within {SLOWEST:g} seconds.") from None
    return bytes(body)


def _limited(body: B, largest: int) -> B:
    if len(body) > largest:
        raise Problem(413, "too-large", f"The body has more than {largest:,} bytes: send less.")
    return body


def _host_problem(scope: Scope, host: bytes, only_local: bool) -> Problem | None:
    """The problem of a request with a wrong Host."""
    if [name for name, _ in scope["headers"]].count(b"host") > 1:  # RFC 9112, section 3.2
        return Problem(400, "two-hosts", "The request has more than one Host header: send one.")
    return wrong_host() if only_local and not is_local(host) else None


def _as_problem(error: Exception) -> Problem:
    """The problem of an answer; an unexpected error is in the server's log."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, UserError):
        return Problem(409, "not-possible", one_line(error))
    traceback.print_exception(error, file=sys.stderr)
    return Problem(503, "fault", "The server failed at this request: see its log.", 1)


def _response(problem: Problem) -> Response:
    headers = {name.decode(): value.decode() for name, value in problem.headers}
    return Response(problem.body(), problem.status, headers, "application/problem+json")


def _other_method(allow: str) -> Problem:
    return Problem(405, "wrong-method", "This address takes another method: see /openapi.json.", allow=allow)


def _not_found(request: Request, error: Exception) -> Response:
    return _response(Problem(404, "not-found", "There is nothing at this address: see /openapi.json."))


def _wrong_method(request: Request, error: Exception) -> Response:
    return _response(_other_method(", ".join(sorted(GET))))


def _fault(request: Request, error: Exception) -> Response:
    return _response(_as_problem(error))
