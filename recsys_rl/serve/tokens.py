"""Who may do what: scopes and the SHA-256 of tokens, from a file. The tokens themselves are kept nowhere."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

from recsys_rl.errors import UserError
from recsys_rl.serve.problems import Problem
from recsys_rl.utils.files import read_text

SCOPES = ("decide", "feedback", "read", "admin")


class Tokens:
    """The tokens of a file."""

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
        found: frozenset[str] | None = None
        for digest, scopes in self.known:
            if hmac.compare_digest(digest, given):
                found = scopes if found is None else found | scopes
        if kind.lower() != "bearer" or found is None:
            raise Problem(401, "no-token", "Send a token that the server knows: Authorization: Bearer TOKEN.")
        if scope not in found:
            raise Problem(403, "wrong-scope", f"This token has not the scope {scope}.")
