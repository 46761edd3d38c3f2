"""Requests that never end: no head and no silence of a stranger takes memory or a place for long."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from recsys_rl.serving.messages import Problem
from recsys_rl.serving.work import limits
from recsys_rl.serving.work.limits import LARGEST_HEAD, PART, Guard, Reader, limited

LINE = b"GET / HTTP/1.1\r\nHost: a\r\n"
GET = LINE + b"\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
UPGRADE = LINE + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"


def head_of(size: int) -> bytes:
    """A whole head of so many bytes."""
    return LINE + b"x: " + b"a" * (size - len(LINE) - 7) + b"\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers ok: on /slow after half a second, on /never not at all."""
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/slow":
        await asyncio.sleep(0.5)
    if scope["path"] == "/never":
        assert (await receive())["type"] == "http.disconnect"
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def read(*parts: bytes) -> bool:
    """True if all of it is admitted."""
    reader = Reader()
    try:
        for part in parts:
            reader.feed(part)
    except Problem:
        return False
    return True


def test_a_head_has_64_kb_however_it_comes() -> None:
    whole, more = head_of(LARGEST_HEAD), head_of(LARGEST_HEAD + 1)
    for before in ((), (GET,), (whole, whole)):
        for width in (999, 1 << 17):
            assert read(*before, *cut(whole, width)) and not read(*before, *cut(more, width))
    assert not read(LINE, *[b"a: b\r\n" * 1000] * 11)
    assert not read(b"GET /" + b"a" * 70_000) and not read(GET, *[b"\r\n" * 1000] * 33)


def test_a_head_that_comes_with_the_end_of_another_request_has_4_kb_more() -> None:
    body = POST + b"content-length: 9\r\n\r\n" + b"a" * 8
    for before, last in (((), GET), ((body,), b"a"), ((CHUNKED,), b"0\r\n\r\n")):
        for size in (LARGEST_HEAD + PART, 120_000, 200_000):
            assert not read(*before, last + head_of(size))
        assert read(*before, last + head_of(LARGEST_HEAD))


def cut(data: bytes, width: int) -> list[bytes]:
    return [data[at : at + width] for at in range(0, len(data), width)]


def test_bodies_have_no_limit_here_and_all_other_bytes_have() -> None:
    body = POST + b"content-length: 300000\r\n\r\n" + b"a" * 300_000
    chunks = CHUNKED + b"4\r\nabcd\r\n" * 30_000 + b"0\r\n\r\n"
    assert read(body + chunks + UPGRADE + GET, GET)
    most = head_of(LARGEST_HEAD)[:-1]
    for before in (body, chunks, UPGRADE, GET * 5000, CHUNKED + b"1\r\na\r\n0\r\na: b\r\n\r\n"):
        assert read(before, most) and not read(before, most + b"a")
    assert not read(CHUNKED, b"4\r\nabcd\r\n0\r\n", *[b"a: b\r\n" * 8000] * 2)  # after the last chunk
    assert not read(b"this is no HTTP", *[b"a" * 30_000] * 3)


@pytest.fixture(scope="module", params=[HttpToolsProtocol, H11Protocol])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a server with limits around each of uvicorn's protocols."""
    place = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=limited(request.param), ws="none", lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([place],))
    thread.start()
    yield place.getsockname()[1]
    server.should_exit = True
    thread.join()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def answer(raw: socket.socket) -> tuple[int, dict[str, str], bytes]:
    reply = http.client.HTTPResponse(raw)
    reply.begin()
    return reply.status, dict(reply.getheaders()), reply.read()


def test_a_refusal_says_why_and_ends_the_connection(port: int) -> None:
    with connect(port) as raw:
        raw.sendall(GET)
        assert answer(raw)[0] == 200
        raw.sendall(head_of(LARGEST_HEAD + 1))
        status, headers, body = answer(raw)
        assert (status, headers["connection"], json.loads(body)["title"]) == (431, "close", "head-too-large")
        assert is_closed(raw)


def test_a_refusal_is_no_answer_to_an_earlier_request(port: int) -> None:
    big = head_of(LARGEST_HEAD + PART)
    for parts in ((GET.replace(b"/", b"/never", 1), big), (GET + big,)):
        with connect(port) as raw:
            for part in parts:
                raw.sendall(part)
                time.sleep(0.05)
            assert is_closed(raw)


def is_closed(raw: socket.socket) -> bool:
    try:
        return not raw.recv(1)
    except ConnectionError:
        return True


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits of time in tenths of seconds."""
    monkeypatch.setattr(limits, "HEAD", 0.2)
    monkeypatch.setattr(limits, "REST", 0.3)


@pytest.mark.parametrize("said", [b"", LINE, POST + b"content-length: 9\r\n\r\na", GET + LINE])
def test_connections_that_say_no_more_are_closed(quick: None, port: int, said: bytes) -> None:
    """Of 1,024 of them each other one would be refused."""
    started = time.monotonic()
    with connect(port) as raw:
        raw.sendall(said)
        if said.startswith(GET):
            assert answer(raw)[0] == 200
        assert is_closed(raw) and 0.15 < time.monotonic() - started < 5


def test_a_request_that_drips_is_closed_and_slow_ones_are_answered(quick: None, port: int) -> None:
    with connect(port) as raw:
        for _ in range(2):
            for part in (LINE, b"\r\n"):
                raw.sendall(part)
                time.sleep(0.12)
            assert answer(raw)[0] == 200
        time.sleep(0.4)  # between two requests
        raw.sendall(GET)
        assert answer(raw)[0] == 200
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in LINE * 10:
                raw.sendall(bytes([byte]))
                time.sleep(0.02)
        assert 0.15 < time.monotonic() - started < 3


class Wire(asyncio.Transport):
    closed = False

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def test_the_first_head_has_its_time_from_the_start_of_the_connection() -> None:
    async def play() -> None:
        guard = Guard(Wire(), lambda: False)
        first = guard.timer
        assert first is not None
        for part in (b"\r\n", b"G", LINE[1:]):
            assert guard.admits(part) and guard.timer is first
        assert guard.admits(b"\r\n" + LINE) and guard.timer not in (first, None) and first.cancelled()
        guard.end()

    asyncio.run(play())


def test_an_empty_line_while_an_answer_is_under_way_ends_nothing(quick: None, port: int) -> None:
    with connect(port) as raw:
        raw.sendall(GET.replace(b"/", b"/slow", 1))
        time.sleep(0.05)
        raw.sendall(b"\r\n")
        assert answer(raw)[0] == 200


def test_an_empty_line_between_two_requests_holds_no_place(quick: None) -> None:
    """uvicorn's own timer ends at the first byte."""

    async def play() -> list[bool]:
        wire, found = Wire(), []
        guard = Guard(wire, lambda: False)
        for said, seconds in ((GET, 0.3), (b"\r\n", 0.1), (GET, 0.3), (b"\r\n", 0.3)):
            assert guard.admits(said)
            await asyncio.sleep(seconds)
            found.append(wire.closed)
        guard.end()
        return found

    assert asyncio.run(play()) == [False, False, False, True]
