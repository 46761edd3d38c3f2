"""Requests on many connections at once, in a closed loop or at a rate."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator


def request_of(path: str, body: object) -> bytes:
    """The bytes of a request."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


async def loop(
    port: int,
    requests: Iterator[bytes],
    connections: int,
    seen: Callable[[bytes], None] = lambda body: None,
    rate: float = math.inf,
) -> int:
    """Send all requests on so many connections, at most ``rate`` in a second. Returns how many succeeded."""
    start, numbers = time.perf_counter(), itertools.count()

    async def use() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        done = 0
        for request in requests:
            wait = start + next(numbers) / rate - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            done += head.startswith(b"HTTP/1.1 200")
            seen(body)
        writer.close()
        return done

    return sum(await asyncio.gather(*(use() for _ in range(connections))))
