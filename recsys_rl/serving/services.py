"""What the functions of the routes share: the objects that they use, and JSON in and out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from recsys_rl.errors import one_line
from recsys_rl.serving.messages import Problem
from recsys_rl.serving.metrics import Metrics
from recsys_rl.serving.releases.active_version import PolicyFiles
from recsys_rl.serving.watch import Watch
from recsys_rl.serving.worker import Worker

encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Services:
    """The objects that the functions of the routes use."""

    worker: Worker
    policies: PolicyFiles
    metrics: Metrics
    watch: Watch


Post = Callable[[Services, bytes], Awaitable[bytes]]
Get = Callable[[Services, Request], Awaitable[Response]]


class Route(NamedTuple):
    """An address. A POST takes the body and gives the JSON of its answer; a GET takes a Request."""

    method: str
    path: str
    scope: str | None  # that a token must have; None: the route is open
    function: Callable[[Services, Any], Awaitable[Any]]  # raises Problem
    summary: str = ""  # in the description; "" leaves the route out
    body: type | None = None
    answer: Any = None


def post(path: str, scope: str, function: Post, summary: str, body: type, answer: Any) -> Route:
    """An address that takes a body."""
    return Route("POST", path, scope, function, summary, body, answer)


def get(path: str, scope: str | None, function: Get, summary: str = "", answer: Any = None) -> Route:
    """An address without a body."""
    return Route("GET", path, scope, function, summary, None, answer)


def decoded(decode: Callable[[bytes], Any], body: bytes) -> Any:
    """The struct of a body. Raises Problem."""
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise Problem(422, "wrong-field", one_line(error)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Problem(400, "not-json", f"The body is not JSON: {one_line(error)}") from None


def as_json(answer: Any) -> Response:
    """The response with this content."""
    return Response(encode(answer), media_type="application/json")
