"""Limits before a request is read: its head's size and time, and the number of recommendations that wait.

Without the first two a stranger could fill the memory with headers, or keep everybody out with connections
that say nothing, before any token is read.
"""

from __future__ import annotations

import asyncio
import http
import time
from collections.abc import Callable
from typing import Any

import httptools

from recsys_rl.serving.messages import Problem, busy

LARGEST_HEAD = 1 << 16
"""Bytes of a request's head, and of the headers after a body in chunks."""
PART = 1 << 12
"""Bytes that are read at once. A head that begins within them may be larger by as many."""
HEAD = 10.0
"""Seconds until a head is whole: from the start of a connection, or from the first byte of a next request."""
REST = 30.0
"""Seconds from there until the request is whole. The application waits less long for a body that it reads."""
DONE = None  # between two requests there is no limit of ours: uvicorn closes a connection after a while
LEAST = 128
"""Number of requests that may always wait: a batch that is drawn, and the next one."""
BUSY = 32
"""The server's speed is measured while so many wait: a batch of fewer takes as long as one of 32."""
FIRST = 4e-4  # seconds between two answers, until they are measured
SMOOTHING = 0.02  # of the seconds, by one answer
SHARE = 0.5
"""Share of the deadline for those that wait before. The rest has room for the draw itself and for pauses."""


def limited(kind: type[asyncio.Protocol]) -> type[asyncio.Protocol]:
    """The protocol ``kind`` of an HTTP server with these limits."""

    class Limited(kind):  # type: ignore[valid-type, misc]
        def connection_made(self, transport: asyncio.Transport) -> None:
            self._guard = Guard(transport, self._answers)
            super().connection_made(transport)

        def data_received(self, data: bytes) -> None:
            if self._guard.admits(data):
                super().data_received(data)

        def _answers(self) -> bool:
            """True if a request waits for the end of its answer; the names are those of uvicorn."""
            cycle = getattr(self, "cycle", None)
            return cycle is not None and not cycle.response_complete

        def connection_lost(self, exc: Exception | None) -> None:
            self._guard.end()
            super().connection_lost(exc)

    return Limited


class Guard:
    """Closes a connection whose head is too large, or whose request takes too long to arrive.

    ``answers`` tells whether an answer to an earlier request is under way.
    """

    def __init__(self, transport: asyncio.Transport, answers: Callable[[], bool]) -> None:
        self.transport, self.reader, self.answers = transport, Reader(), answers
        self.timer: asyncio.TimerHandle | None = None
        self.seen: tuple[Any, ...] = ()
        self._wait()

    def admits(self, data: bytes) -> bool:
        """Read ``data``; False if nobody else shall."""
        if self.transport.is_closing():
            return False
        complete = self.reader.complete
        try:
            self.reader.feed(data)
        except Problem as problem:
            if not self.answers() and self.reader.complete == complete:  # else it seems an earlier answer
                self.transport.write(_bytes(problem))
            self.transport.close()
            return False
        self._wait()
        return True

    def _wait(self) -> None:
        """Set the timer of this phase of the request; one that runs for it goes on."""
        now = self.reader.complete, self.reader.phase
        if now != self.seen:
            self.end()
            seconds, self.seen = self.reader.phase, now
        elif self.timer is None and not self.answers():
            seconds = HEAD  # an empty line between two requests: uvicorn's own timer has ended with it
        else:
            return
        if seconds is not None:
            self.timer = asyncio.get_running_loop().call_later(seconds, self.transport.abort)

    def end(self) -> None:
        """Stop the timer."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Reader:
    """The place in a request of the bytes of a connection. Nothing of them is kept."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn reads
        self.complete = 0  # requests so far
        self.phase: float | None = HEAD
        self.headers = True  # what comes belongs to headers, or to the line before them
        self.size = 0  # bytes of these headers so far
        self.passed = False  # these headers began within the bytes that are read
        self.lost = False  # what comes is not HTTP: it counts as a head

    def feed(self, data: bytes) -> None:
        """Go on by ``data``. Raises Problem where a head is too large."""
        while data:
            # Also of a body: a head may begin in the same bytes, and is counted from the next part on.
            chunk = data[: min(PART, LARGEST_HEAD - self.size)]
            data, self.passed = data[len(chunk) :], False
            if not self.lost:
                try:
                    self.parser.feed_data(chunk)
                except httptools.HttpParserUpgrade:
                    data = b""  # the rest is of another protocol, which the server does not read
                except httptools.HttpParserError:
                    self.lost = self.headers = True
                    self.phase = HEAD
            self.size = 0 if self.passed or not self.headers else self.size + len(chunk)
            if self.size >= LARGEST_HEAD:
                raise Problem(
                    431,
                    "head-too-large",
                    f"The head of a request must have less than {LARGEST_HEAD:,} bytes: send less.",
                )

    def on_message_begin(self) -> None:
        self.phase = HEAD

    def on_headers_complete(self) -> None:
        self.phase, self.headers, self.passed = REST, False, True

    def on_chunk_header(self) -> None:
        self.headers, self.passed = True, True  # after the last chunk, which is empty, headers follow

    def on_body(self, body: bytes) -> None:
        self.headers = False

    def on_message_complete(self) -> None:
        self.complete += 1
        self.phase, self.headers, self.passed = DONE, True, True


def _bytes(problem: Problem) -> bytes:
    """The answer as it stands on the wire; the connection ends with it."""
    body, status = problem.body(), http.HTTPStatus(problem.status)
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/problem+json\r\n"
    return f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body


class Admission:
    """The recommendations under way, and the seconds between two answers while many wait.

    One more than can be answered within the deadline is refused. All of it happens in the thread of the event
    loop, so that it also counts requests that no other thread has taken yet.
    """

    def __init__(self, deadline: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self.deadline, self.clock = deadline, clock
        self.under_way, self.seconds, self.refused = 0, FIRST, 0

    def too_many(self, number: int) -> bool:
        """True if one more would wait too long behind so many."""
        return number >= LEAST and number * self.seconds > SHARE * self.deadline

    @property
    def wait(self) -> float:
        """Seconds until all that wait are answered."""
        return self.under_way * self.seconds

    def enter(self) -> tuple[int, float]:
        """Count a recommendation. Returns its place and the time. Raises Problem if it comes too late."""
        if self.too_many(self.under_way):
            self.refused += 1
            raise busy(self.wait)
        self.under_way += 1
        return self.under_way, self.clock()

    def measure(self, entered: tuple[int, float]) -> None:
        """An answer has come: it took as long as those before it."""
        position, since = entered
        if position >= BUSY:
            self.seconds += SMOOTHING * ((self.clock() - since) / position - self.seconds)

    def leave(self) -> None:
        """A recommendation is answered or refused."""
        self.under_way -= 1
