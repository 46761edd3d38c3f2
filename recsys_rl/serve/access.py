"""Who may use the server: the scopes of tokens, and without tokens the Host of a request."""

from __future__ import annotations

import hashlib
import hmac
import re
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path

from recsys_rl.errors import UserError
from recsys_rl.serve.messages import Problem
from recsys_rl.utils.files import read_text

SCOPES = ("decide", "feedback", "read", "admin")
PORT = re.compile(":[0-9]*$")


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
