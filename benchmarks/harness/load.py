"""Requests on many connections at once, in a closed loop or at a rate.

The load takes CPU from the server that it measures, so a connection is a protocol of the event loop, and of
uvloop's where it is installed: 25 microseconds for a request, where a stream takes over 100.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar, cast

T = TypeVar("T")
SHORTEST = 1e-3  # seconds that a connection waits for the turn of its next request


def request_of(path: str, body: object) -> bytes:
    """The bytes of a request."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


async def loop(
    port: int,
    requests: Iterator[bytes],
    connections: int,
    seen: Callable[[bytes], None] = lambda body: None,
    rate: float = math.inf,
) -> int:
    """Send all requests on so many connections, at most ``rate`` in a second. Returns how many succeeded.

    Raises ConnectionError if the server closes a connection before.
    """
    load = _Load(requests, rate, seen)
    loop_ = asyncio.get_running_loop()
    made = [
        await loop_.create_connection(lambda: _Connection(load), "127.0.0.1", port)
        for _ in range(connections)
    ]
    load.start = time.perf_counter()
    for _, connection in made:
        connection.send_next()
    await asyncio.gather(*(connection.ended for _, connection in made))
    return load.succeeded


class _Load:
    """What all connections share."""

    def __init__(self, requests: Iterator[bytes], rate: float, seen: Callable[[bytes], None]) -> None:
        self.requests, self.rate, self.seen = requests, rate, seen
        self.start, self.sent, self.succeeded = 0.0, 0, 0


class _Connection(asyncio.Protocol):
    """Sends the next request of the load when the answer to the last one has come."""

    transport: asyncio.Transport

    def __init__(self, load: _Load) -> None:
        self.load, self.answer, self.done = load, b"", False
        self.loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self.loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is of no class of asyncio

    def send_next(self) -> None:
        request = next(self.load.requests, None)
        if request is None:
            self.done = True
            self.transport.close()
            return
        due = self.load.start + self.load.sent / self.load.rate
        self.load.sent += 1
        wait = due - time.perf_counter()
        if wait < SHORTEST:
            self.transport.write(request)
        else:
            self.loop.call_later(wait, self.transport.write, request)

    def data_received(self, data: bytes) -> None:
        self.answer += data
        head, separator, body = self.answer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self.load.succeeded += head.startswith(b"HTTP/1.1 200")
        self.load.seen(body)
        self.answer = b""
        self.send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.done:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(exc or ConnectionError("the server closed the connection"))
