"""Errors of a request as problems (RFC 9457): a status, a code, and one sentence."""

from __future__ import annotations

import msgspec


class Problem(Exception):
    """An answer that is an error."""

    def __init__(
        self, status: int, code: str, detail: str, retry_after: int | None = None, allow: str = ""
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.retry_after = status, code, detail, retry_after
        self.allow = allow  # the methods of the address, after another one

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Further headers of the answer."""
        if self.status == 401:
            return ((b"www-authenticate", b"Bearer"),)
        if self.allow:
            return ((b"allow", self.allow.encode()),)
        return () if self.retry_after is None else ((b"retry-after", str(self.retry_after).encode()),)

    def body(self) -> bytes:
        """The JSON of the problem."""
        return msgspec.json.encode(
            {"type": f"urn:recsys-rl:{self.code}", "status": self.status, "title": self.code}
            | {"detail": self.detail}
        )


def busy(seconds: float) -> Problem:
    """The server can't answer in time; ``seconds`` is how long the queue takes."""
    return Problem(
        503, "busy", "Too many requests are waiting: try again later.", max(1, round(seconds + 0.5))
    )


def damaged() -> Problem:
    return Problem(
        503,
        "record-damaged",
        "Rows of this session are damaged in the record: run recsys-rl log check.",
        60,
    )


def no_room(why: str) -> Problem:
    return Problem(503, "record-full", f"The record can't be written ({why}): try again later.", 10)
