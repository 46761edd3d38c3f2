"""The body of a request: its bytes within the limits, and its struct."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from starlette.types import Receive

from recsys_rl.errors import one_line
from recsys_rl.serve import wire
from recsys_rl.serve.problems import Problem

SLOWEST = 10.0  # seconds of a body
B = TypeVar("B", bytes, bytearray)


async def read_body(headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
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
                return _checked(first)
            body = bytearray(first)
            while message.get("more_body", False):
                message = await receive()
                body += message.get("body", b"")
                _checked(body)
    except TimeoutError:
        raise Problem(408, "too-slow", f"The body did not arrive within {SLOWEST:g} seconds.") from None
    return bytes(body)


def _checked(body: B) -> B:
    if len(body) > wire.LARGEST_BODY:
        raise Problem(413, "too-large", f"The body has more than {wire.LARGEST_BODY:,} bytes: send less.")
    return body


def decoded(decode: Callable[[bytes], Any], body: bytes) -> Any:
    """The struct of a body. Raises Problem."""
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise Problem(422, "wrong-field", one_line(error)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Problem(400, "not-json", f"The body is not JSON: {one_line(error)}") from None
