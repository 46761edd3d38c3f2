"""CPU time of a decision while a challenger answers a share of the sessions, beside a server without one.

    python -m benchmarks.serving_arms

Three servers of one policy with 1,000 items are asked in turns, in the closed loop of `benchmarks.serving`:
without a release, with a challenger at a share of 10 %, and at 50 %. Each decision gets an event, and
sessions mature after a second, so that the canary reads and compares them. What else the machine does falls
on all of them, so the median of the ratios counts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.harness.load import loop, request_of, run
from benchmarks.harness.served import Connection, Server, running
from benchmarks.serving import CONNECTIONS, Load, checkpoint_of, posts_of, recommendations

ITEMS = 1_000
TURNS = 10
STEPS = 20  # of a session
SHARES = {"without a release": 0.0, "a challenger at 10 %": 0.1, "a challenger at 50 %": 0.5}


def start(folder: Path, db: Path, share: float) -> Server:
    """A server of champion.pt in the folder; with a share above 0 the other file is its challenger."""
    with running(folder / "champion.pt", db):  # from then on the record names its version
        pass
    server = Server(folder, db, "--feedback-window", "1")
    run(loop(server.port, iter(recommendations(2_000)), CONNECTIONS))  # the first ones take longer
    if share:
        sha256 = hashlib.sha256((folder / "challenger.pt").read_bytes()).hexdigest()
        status, answer = Connection(server.port).post("/v1/release/start", {"sha256": sha256, "share": share})
        assert status == 200, answer
    return server


def visits(turn: int, people: int) -> list[bytes]:
    """The requests of a whole session of each of some people, in turn."""
    return [
        request_of("/v1/recommend", {"user_id": f"{turn}-{person}"})
        for _ in range(STEPS)
        for person in range(people)
    ]


def measure(server: Server, turn: int, people: int, rng: random.Random) -> tuple[float, float]:
    """Microseconds of CPU of a decision alone, and of a decision with its event and its canary."""
    answers = list[bytes]()
    before = server.seconds()
    run(loop(server.port, iter(visits(turn, people)), CONNECTIONS, answers.append))
    between = server.seconds()
    events = [
        {"decision_id": json.loads(answer)["decision_id"], "signal": "engagement", "value": rng.random()}
        for answer in answers
    ]
    Load.of(server, posts_of(events), [], CONNECTIONS, math.inf)
    time.sleep(2.5)  # the sessions mature, and the canary looks at them
    return 1e6 * (between - before) / len(answers), 1e6 * (server.seconds() - before) / len(answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=200, help="of a turn")
    people, folder = parser.parse_args().people, Path(tempfile.mkdtemp(prefix="serving-arms-"))
    servers: dict[str, Server] = {}
    rng = random.Random(0)
    try:
        policies = folder / "policies"
        policies.mkdir()
        shutil.copy(checkpoint_of(folder / "a", ITEMS), policies / "champion.pt")
        shutil.copy(checkpoint_of(folder / "b", ITEMS, "--lr", "0.001"), policies / "challenger.pt")
        for at, (name, share) in enumerate(SHARES.items()):
            servers[name] = start(policies, folder / f"{at}.sqlite", share)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
        for turn in range(TURNS):
            for name, server in servers.items():
                times[name].append(measure(server, turn, people, rng))
        base = times["without a release"]
        for name, each in times.items():
            for kind, at in (("a decision", 0), ("a decision with an event", 1)):
                ratios = [mine[at] / theirs[at] for mine, theirs in zip(each, base, strict=True)]
                own = [mine[at] for mine in each]
                print(
                    f"{name}, {kind}: {min(own):.0f} to {max(own):.0f} microseconds of CPU, "
                    f"{statistics.median(ratios):.3f} times ({min(ratios):.2f} to {max(ratios):.2f})",
                    flush=True,
                )
        for name, server in servers.items():
            found = json.loads(Connection(server.port).get("/v1/release")[1])
            print(f"{name}: {found['counts']} {found['canary']}")
    finally:
        for server in servers.values():
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
