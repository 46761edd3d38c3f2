"""The Host of a request to a server without tokens.

A page of another site can let its own name point at 127.0.0.1 (DNS rebinding). Its requests are then of one
origin for the browser, which lets it read the answers. But they carry that name in Host.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address

from recsys_rl.serve.problems import Problem

PORT = re.compile(":[0-9]*$")


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
    return Problem(
        421,
        "wrong-host",
        "A server without --tokens answers only at localhost, 127.0.0.1 or [::1]: send one of these as Host.",
    )
