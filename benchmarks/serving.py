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
from pathlib import Path

from benchmarks.harness.load import loop, request_of, run
from benchmarks.harness.served import Server, running
from recsys_rl.cli.train import train_options
from recsys_rl.workflows.train import train

CONNECTIONS = 64
OPEN = 400  # connections of the open loop
OVERLOAD = 5  # seconds
BATCH = 10  # events of a request


def checkpoint_of(folder: Path, items: int) -> Path:
    """A policy over so many made-up items, with 2,048 steps of training."""
    options = [
        *("--env", "satiation", "--data", "synthetic", "--num-items", str(items), "--num-users", "1000"),
        *("--max-episode-steps", "20", "--total-timesteps", "2048"),
    ]
    return train(train_options(options).config, folder=folder / "run", quiet=True)


def measure(server: Server, name: str, requests: list[bytes], each: int = 1) -> list[bytes]:
    """Print the line of these requests, ``each`` of which has so many parts. Returns the answers."""
    answers: list[bytes] = []
    cpu, start = server.seconds(), time.perf_counter()
    done = run(loop(server.port, iter(requests), CONNECTIONS, answers.append))
    seconds, cpu = time.perf_counter() - start, server.seconds() - cpu
    parts = done * each
    print(
        f"{name}: {1e6 * cpu / parts:.0f} microseconds of CPU, {parts / seconds:,.0f} in a second, "
        f"{len(requests) - done} failed",
        flush=True,
    )
    return answers


def overload(checkpoint: Path, db: Path, capacity: float, users: int) -> None:
    """Print the line of a load of four times ``capacity``, in an open loop, with feedback beside it."""
    number = int(4 * capacity * OVERLOAD)
    with running(checkpoint, db, "--deadline-ms", "100") as server:
        first = run(_one(server.port))
        events = [{"decision_id": first, "signal": "engagement", "event_id": f"{x}"} for x in range(2000)]
        posts = [
            request_of("/v1/feedback", {"events": events[at : at + BATCH]}) for at in range(0, 2000, BATCH)
        ]
        asks = (request_of("/v1/recommend", {"user_id": str(at % users)}) for at in range(number))

        async def both() -> tuple[int, int, float]:
            start = time.perf_counter()
            answered, accepted = await asyncio.gather(
                loop(server.port, iter(asks), OPEN, rate=4 * capacity), loop(server.port, iter(posts), 2)
            )
            return answered, accepted, time.perf_counter() - start

        answered, accepted, seconds = run(both())
        after = time.perf_counter()
        run(_one(server.port))
        posted = f"{len(posts) - accepted} of {len(posts)} posts of feedback refused"
        print(
            f"{number / seconds:,.0f} requests in a second: {answered / seconds:,.0f} answered "
            f"({answered / seconds / capacity:.0%} of {capacity:,.0f}), {posted}, "
            f"{time.perf_counter() - after:.2f} s until the next answer"
        )


async def _one(port: int) -> str:
    answers: list[bytes] = []
    while not answers or b"decision_id" not in answers[-1]:
        await loop(port, iter([request_of("/v1/recommend", {"user_id": "one"})]), 1, answers.append)
    return str(json.loads(answers[-1])["decision_id"])


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
        start = time.perf_counter()
        answers = measure(server, f"a decision at {options.items:,} items", asks)
        rate = len(answers) / (time.perf_counter() - start)
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
        overload(checkpoint, folder / "overload.sqlite", rate, users)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
