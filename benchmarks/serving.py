"""CPU time of a server for a decision and for an event, its rate, its memory, and the time until it is ready.

    python -m benchmarks.serving --items 1000

Wall time depends on what else the machine does, so the CPU time of the server's process is the measure. Many
connections ask in a closed loop, first for decisions, then with feedback in batches of ten.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.harness.served import Server
from recsys_rl.cli.train import train_options
from recsys_rl.workflows.train import train

CONNECTIONS = 64
BATCH = 10  # events of a request


def checkpoint_of(folder: Path, items: int) -> Path:
    """A policy over so many made-up items, with 2,048 steps of training."""
    options = [
        *("--env", "satiation", "--data", "synthetic", "--num-items", str(items), "--num-users", "1000"),
        *("--max-episode-steps", "20", "--total-timesteps", "2048"),
    ]
    return train(train_options(options).config, folder=folder / "run", quiet=True)


def request_of(path: str, body: object) -> bytes:
    """The bytes of a request."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


async def loop(
    port: int, requests: Iterator[bytes], connections: int, seen: Callable[[bytes], None] = lambda body: None
) -> int:
    """Send all requests over so many connections, each after its last answer. Returns how many succeeded."""

    async def use() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        done = 0
        for request in requests:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            done += head.startswith(b"HTTP/1.1 200")
            seen(body)
        writer.close()
        return done

    return sum(await asyncio.gather(*(use() for _ in range(connections))))


def measure(server: Server, name: str, requests: list[bytes], each: int = 1) -> list[bytes]:
    """Print the line of these requests, ``each`` of which has so many parts. Returns the answers."""
    answers: list[bytes] = []
    cpu, start = server.seconds(), time.perf_counter()
    done = asyncio.run(loop(server.port, iter(requests), CONNECTIONS, answers.append))
    seconds, cpu = time.perf_counter() - start, server.seconds() - cpu
    parts = done * each
    print(
        f"{name}: {1e6 * cpu / parts:.0f} microseconds of CPU, {parts / seconds:,.0f} in a second, "
        f"{len(requests) - done} failed",
        flush=True,
    )
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--decisions", type=int, default=20_000)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="serving-"))
    try:
        checkpoint, db = checkpoint_of(folder, options.items), folder / "record.sqlite"
        start = time.perf_counter()
        server = Server(checkpoint, db)
        ready, memory = time.perf_counter() - start, server.megabytes()
        print(f"ready after {ready:.1f} s, with {memory:.0f} MB; {os.cpu_count()} cores")
        users = 2000
        asks = [request_of("/v1/recommend", {"user_id": str(at % users)}) for at in range(options.decisions)]
        measure(server, "warm-up", asks[:2000])
        answers = measure(server, f"a decision at {options.items:,} items", asks)
        decisions = [json.loads(x)["decision_id"] for x in answers]
        events = [{"decision_id": x, "signal": "engagement", "value": 0.5} for x in decisions]
        posts = [
            request_of("/v1/feedback", {"events": events[at : at + BATCH]})
            for at in range(0, len(events), BATCH)
        ]
        measure(server, "an event, in batches of ten with fsync", posts, BATCH)
        measure(server, "a decision after feedback", asks[: options.decisions // 2])
        print(f"memory: {server.megabytes():.0f} MB; the record: {db.stat().st_size / 1e6:.0f} MB")
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
