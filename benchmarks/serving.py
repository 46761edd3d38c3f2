"""CPU time of a server for a decision and for an event, its rate, its memory, and the time until it is ready.

    python -m benchmarks.serving --items 1000
    python -m benchmarks.serving --items 1000000 --decisions 4000

Wall time depends on what else the machine does, so the CPU time of the server's process is the measure. Many
connections ask in a closed loop, first for decisions, then with feedback in batches of ten. Then the server
gets four times the load that it can bear, in turns with a closed loop. Over 20,000 items the policy has two
stages: a search proposes 128 candidates.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.load import loop, request_of, run
from benchmarks.harness.served import Server, running
from recsys_rl.cli.train import train_options
from recsys_rl.training.train import train

CONNECTIONS = 64
OPEN = 400  # connections of the open loop
OVERLOAD = 4  # seconds
ROUNDS = 3  # of closed and open loop
BATCH = 10  # events of a request
USERS = 2000
CANDIDATES = 100  # of a request
LARGE = 20_000  # items of a policy with one stage, at most


def checkpoint_of(folder: Path, items: int, *more: str) -> Path:
    """A policy over so many made-up items, with 2,048 steps of training; ``more``: further options."""
    options = ["--env", "satiation", "--num-items", str(items), "--num-users", "1000"]
    options += ["--max-episode-steps", "20", "--total-timesteps", "2048"]
    if items > LARGE:
        options += ["--data", "clustered", "--cache-dir", str(folder), "--head", "two-tower"]
        options += ["--candidates", "128"]
    else:
        options += ["--data", "synthetic"]
    options += more
    return train(train_options(options).config, folder=folder / "run", quiet=True)


def recommendations(number: int, items: int = 0) -> list[bytes]:
    """Requests of USERS users in turn; ``items``: among CANDIDATES of so many items, drawn anew each time."""
    rng = random.Random(0)
    bodies: list[dict[str, object]] = [{"user_id": str(at % USERS)} for at in range(number)]
    if items:
        for body in bodies:
            body["candidates"] = [*map(str, rng.sample(range(items), CANDIDATES))]
    return [request_of("/v1/recommend", body) for body in bodies]


def feedback(decisions: Sequence[str]) -> list[bytes]:
    """An event about each of the decisions."""
    return posts_of(
        [{"decision_id": decision, "signal": "engagement", "value": 0.5} for decision in decisions]
    )


def posts_of(events: Sequence[object]) -> list[bytes]:
    """Requests with BATCH events each."""
    return [
        request_of("/v1/feedback", {"events": events[at : at + BATCH]}) for at in range(0, len(events), BATCH)
    ]


def measure(server: Server, name: str, requests: list[bytes], each: int = 1) -> list[bytes]:
    """Print the line of these requests, ``each`` of which has so many parts. Returns the answers."""
    answers: list[bytes] = []
    cpu, start = server.seconds(), time.perf_counter()
    done = run(loop(server.port, iter(requests), CONNECTIONS, answers.append))
    seconds, cpu = time.perf_counter() - start, server.seconds() - cpu
    parts = done * each
    print(
        f"{name}: {1e6 * cpu / parts:.0f} microseconds of CPU, {parts / seconds:,.0f} in a second "
        f"({cpu / seconds:.0%} of a core), {len(requests) - done} failed",
        flush=True,
    )
    return answers


def overload(checkpoint: Path, db: Path) -> None:
    """Print the lines of a closed loop and of four times its rate in an open one, with feedback beside it.

    Goodput is the rate of the answers of the open loop over that of the closed one before it.
    """
    goodput, share = list[float](), list[float]()
    with running(checkpoint, db, "--deadline-ms", "100") as server:
        run(loop(server.port, iter(recommendations(2000)), CONNECTIONS))
        for turn in range(ROUNDS):
            closed = Load.of(server, recommendations(4000), [], CONNECTIONS, math.inf)
            asks = recommendations(int(4 * closed.rate * OVERLOAD))
            first = run(_one(server.port))
            event = {"decision_id": first, "signal": "engagement"}
            posts = posts_of([{**event, "event_id": f"{turn}/{number}"} for number in range(2000)])
            opened = Load.of(server, asks, posts, OPEN, 4 * closed.rate)
            start = time.perf_counter()
            run(_one(server.port))
            goodput.append(opened.rate / closed.rate)
            share.append(closed.cpu / closed.answered * opened.answered / opened.cpu)
            print(
                f"closed loop: {closed.rate:,.0f} answers in a second; of {len(asks) / opened.seconds:,.0f} "
                f"requests {opened.rate:,.0f}, {len(posts) - opened.accepted} of {len(posts)} posts of "
                f"feedback refused, {time.perf_counter() - start:.2f} s until the next answer",
                flush=True,
            )
    print(
        f"goodput: median {statistics.median(goodput):.0%} of capacity; of the server's CPU time "
        f"{statistics.median(share):.0%} is that of as many decisions in the closed loop"
    )


@dataclass
class Load:
    """What came of requests."""

    answered: int
    accepted: int  # posts of feedback
    seconds: float  # until all requests had an answer
    cpu: float  # seconds of the server

    @property
    def rate(self) -> float:
        """Answers in a second."""
        return self.answered / self.seconds

    @classmethod
    def of(cls, server: Server, asks: list[bytes], posts: list[bytes], connections: int, rate: float) -> Load:
        """Send the requests, and the posts beside them on two connections."""

        async def main() -> tuple[int, float]:
            start = time.perf_counter()
            answered = await loop(server.port, iter(asks), connections, rate=rate)
            return answered, time.perf_counter() - start

        async def both() -> tuple[tuple[int, float], int]:
            return await asyncio.gather(main(), loop(server.port, iter(posts), 2))

        cpu = server.seconds()
        (answered, seconds), accepted = run(both())
        return cls(answered, accepted, seconds, server.seconds() - cpu)


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
        print(
            f"ready after {time.perf_counter() - start:.1f} s ({server.seconds():.1f} s of CPU), with "
            f"{server.megabytes():.0f} MB; {os.cpu_count()} cores"
        )
        asks = recommendations(options.decisions)
        measure(server, "warm-up", asks[:2000])
        answers = measure(server, f"a decision at {options.items:,} items", asks)
        measure(
            server,
            f"a decision among {CANDIDATES} candidates of the request",
            recommendations(options.decisions // 2, options.items),
        )
        posts = feedback([json.loads(answer)["decision_id"] for answer in answers])
        measure(server, "an event, in batches of ten with fsync", posts, BATCH)
        measure(server, "a decision after feedback", asks[: options.decisions // 2])
        print(f"memory: {server.megabytes():.0f} MB; the record: {db.stat().st_size / 1e6:.0f} MB")
        server.stop()
        overload(checkpoint, folder / "overload.sqlite")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
