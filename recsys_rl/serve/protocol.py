"""Recommendations that can't be made in time are refused before they are parsed.

Through parser and application a refusal takes a third of the CPU time of a decision: under four times the
load that the server can bear, it would do little else. Here it takes 23 microseconds, most of them to read or
write. So bytes that are one whole request for a recommendation, on a connection without another one under
way, are answered as they come. All others go the usual way.
"""

from __future__ import annotations

from functools import cache

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from recsys_rl.serve.admission import Admission
from recsys_rl.serve.problems import busy

START = b"POST /v1/recommend HTTP/1.1\r\n"
LENGTH = b"\r\ncontent-length:"
UNUSUAL = (b"\r\ntransfer-encoding:", b"\r\nconnection:", b"\r\nexpect:", b"\r\nupgrade:")
"""Headers that change what follows."""


def protocol_of(admission: Admission) -> type[HttpToolsProtocol]:
    """uvicorn's protocol with quick refusals."""

    class Protocol(HttpToolsProtocol):
        between = True  # two requests: no byte of the next one has come

        def data_received(self, data: bytes) -> None:
            if not data.startswith(START):
                super().data_received(data)
                return
            number = admission.under_way + admission.coming
            if admission.too_many(number) and self._waits() and is_whole(data):
                self._refuse(number)
                return
            admission.coming += 1
            super().data_received(data)
            self.loop.call_soon(admission.came)  # after the task that enters it

        def _waits(self) -> bool:
            """True if nothing of a request has come, or of an answer is to go.

            A client that reads no answers must not fill the memory with them: the usual way waits for it.
            """
            answered = self.cycle is None or self.cycle.response_complete
            return self.between and answered and not self.flow.write_paused

        def _refuse(self, number: int) -> None:
            admission.refused += 1
            self._unset_keepalive_if_required()
            self.transport.write(refusal(int(number * admission.seconds)))
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

        def on_message_begin(self) -> None:
            self.between = False
            super().on_message_begin()

        def on_message_complete(self) -> None:
            self.between = True
            super().on_message_complete()

    return Protocol


def is_whole(data: bytes) -> bool:
    """True if these bytes are one request with its whole body, and nothing else."""
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return False
    head = head.lower()
    _, found, rest = head.partition(LENGTH)
    length = rest.partition(b"\r\n")[0].strip()
    if length != b"%d" % len(body) or LENGTH in rest:
        return False
    return not any(name in head for name in UNUSUAL)


@cache
def refusal(seconds: int) -> bytes:
    """The bytes of the answer; ``seconds`` is how long the queue takes."""
    problem = busy(seconds)
    body = problem.body()
    head = [b"HTTP/1.1 503 Service Unavailable", b"content-type: application/problem+json"]
    head += [name + b": " + value for name, value in problem.headers]
    return b"\r\n".join([*head, b"content-length: %d" % len(body), b"", body])
