"""Requests of commands to a running server over HTTP, with the standard library."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from recsys_rl.errors import UserError, error_text, one_line

PATIENCE = 30.0  # seconds to wait for an answer
STARTING = 15.0  # seconds to wait for a server that has just been started
TRIES = 20  # of a request that the server is too busy to answer


class Refused(UserError):
    """The server has read the request and refuses it; ``code`` is that of its answer."""

    def __init__(self, sentence: str, code: str) -> None:
        super().__init__(sentence, code)  # both: a copy in another process is made from them
        self.sentence, self.code = sentence, code

    def __str__(self) -> str:
        return self.sentence


class Client:
    """Requests to a server, on one connection of each thread."""

    def __init__(self, url: str, token: str | None) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or 80
        except ValueError:  # the port, or brackets
            host = None
        if host is None or parts.scheme != "http":
            raise UserError(f"--url {one_line(url)} is not the address of a server: give http://HOST:PORT.")
        self.url, self.host, self.port = url, host, port
        self.headers = {"content-type": "application/json"}
        if token is not None:
            self.headers["authorization"] = f"Bearer {token}"
        self.own = threading.local()

    def wait(self) -> None:
        """Wait until the server listens, for STARTING seconds at most; then a request says what is wrong."""
        end, waiting = time.monotonic() + STARTING, False
        while time.monotonic() < end:
            try:
                socket.create_connection((self.host, self.port), timeout=1).close()
                return
            except OSError:
                if not waiting:
                    seconds = f"up to {STARTING:g} seconds"
                    print(f"no server at {self.url} yet: waiting {seconds}", file=sys.stderr, flush=True)
                    waiting = True
                time.sleep(0.2)

    def recommend(self, body: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """The answer, and the seconds that it took."""
        start = time.perf_counter()
        answer = self.post("/v1/recommend", body)
        return answer, time.perf_counter() - start

    def feedback(self, events: Sequence[dict[str, Any]]) -> tuple[int, int]:
        """The number of events that were accepted, or known already, and of those that were refused."""
        statuses = [result["status"] for result in self.post("/v1/feedback", {"events": events})["results"]]
        fine = sum(status in ("accepted", "duplicate") for status in statuses)
        return fine, len(statuses) - fine

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer. A server that is busy is asked again. Raises UserError."""
        answer = self._ask("POST", path, json.dumps(body).encode())
        if not isinstance(answer, dict):
            raise self._stranger()
        return answer

    def get(self, path: str) -> Any:
        """The same without a body; the answer may be a list."""
        return self._ask("GET", path, None)

    def _stranger(self) -> UserError:
        return UserError(f"What answers at {self.url} is not recsys-rl serve: give another --url.")

    def _ask(self, method: str, path: str, content: bytes | None) -> Any:
        for _ in range(TRIES):
            try:
                status, answer, after = self._once(method, path, content)
            except (OSError, http.client.HTTPException) as error:
                self.own.connection = None
                raise UserError(
                    f"The server at {self.url} gives no answer ({error_text(error)}): start it with "
                    "recsys-rl serve, or give another --url."
                ) from error
            except (ValueError, RecursionError):
                raise self._stranger() from None
            if status != 503:
                break
            time.sleep(min(after, 1.0))
        if status != 200:
            problem = answer if isinstance(answer, dict) else {}
            detail = one_line(problem.get("detail", status))
            raise Refused(f"{self.url}{path} refuses the request: {detail}", str(problem.get("title", "")))
        return answer

    def _once(self, method: str, path: str, content: bytes | None) -> tuple[int, Any, float]:
        connection = getattr(self.own, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
            self.own.connection = connection
        connection.request(method, path, content, self.headers)
        try:
            reply = connection.getresponse()
            text = reply.read()
        except TimeoutError:
            self.own.connection = None
            raise UserError(
                f"The server at {self.url} has not answered for {PATIENCE:g} seconds. What was asked may "
                "still be done: look before you ask again, for a release with recsys-rl release status."
            ) from None
        answer: Any = json.loads(text)
        if not isinstance(answer, dict | list):
            raise ValueError(answer)
        return reply.status, answer, float(reply.headers.get("retry-after", 1))
