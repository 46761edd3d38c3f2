"""CPU time of a recommendation beside FastAPI and BentoML: one scoring function, one load, in turns.

    python -m benchmarks.serving_peers --python V/bin/python

V is an environment of its own with the peers:

    python -m venv V && V/bin/pip install -e '.[serve]' fastapi bentoml

Ours keeps sessions and writes each decision down; the others score the first item of a visit and forget it
(benchmarks/peers/serving/). CPU time is that of all processes of a server.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness.load import loop, request_of, run
from benchmarks.harness.tables import ROOT
from benchmarks.peers.serving.scoring import CHECKPOINT
from benchmarks.serving import CONNECTIONS, USERS, checkpoint_of

OURS = "recsys-rl serve, with its record"
SECONDS = 120  # until a server answers


@dataclass
class Rival:
    """A server, and what it needed in each turn."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    requests: list[bytes]
    micros: list[float] = field(default_factory=list)  # of CPU for a request
    rates: list[float] = field(default_factory=list)  # in a second

    def turn(self) -> None:
        """Send the requests in a closed loop. Raises RuntimeError if one fails."""
        cpu, start = seconds_of(self.process.pid), time.perf_counter()
        done = run(loop(self.port, iter(self.requests), CONNECTIONS))
        if done != len(self.requests):
            raise RuntimeError(f"{self.name}: {len(self.requests) - done} requests failed")
        self.rates.append(done / (time.perf_counter() - start))
        self.micros.append(1e6 * (seconds_of(self.process.pid) - cpu) / done)


def seconds_of(pid: int) -> float:
    """CPU seconds of a process and of all that descend from it."""
    parents, ticks = dict[int, int](), dict[int, int]()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents[int(stat.parent.name)], ticks[int(stat.parent.name)] = (
            int(fields[1]),
            int(fields[11]) + int(fields[12]),
        )
    family = {pid}
    while more := {process for process, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(ticks.get(process, 0) for process in family) / os.sysconf("SC_CLK_TCK")


def commands(python: str, checkpoint: Path, folder: Path) -> dict[str, list[str]]:
    """The command of each server, without its port."""
    ours = [sys.executable, "-m", "recsys_rl.cli", "serve", "--checkpoint", str(checkpoint)]
    app = "benchmarks.peers.serving.fastapi_app:app"
    service = "benchmarks.peers.serving.bentoml_service:Recommend"
    local = ["--host", "127.0.0.1"]
    return {
        OURS: [*ours, "--db", str(folder / "record.sqlite"), "--deadline-ms", "20000"],
        "FastAPI, without a record": [python, "-m", "uvicorn", app, *local, "--no-access-log"],
        "BentoML, without a record": [python, "-m", "bentoml", "serve", service, *local],
    }


def start(name: str, command: Sequence[str], folder: Path, checkpoint: Path, number: int) -> Rival:
    """A server that answers. Raises RuntimeError with what it said if it ends before."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, CHECKPOINT: str(checkpoint), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    env |= {"BENTOML_HOME": str(folder / "bento"), "BENTOML_DO_NOT_TRACK": "True"}
    log = folder / f"{port}.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*command, "--port", str(port)], env=env, stdout=said, stderr=said, cwd=ROOT
        )
    bodies = [
        {"users": [str(user % USERS)]} if "Bento" in name else {"user_id": str(user % USERS)}
        for user in range(number)
    ]
    rival = Rival(name, process, port, [request_of("/v1/recommend", body) for body in bodies])
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            data = json.dumps(bodies[0]).encode()
            headers = {"content-type": "application/json"}
            urllib.request.urlopen(
                urllib.request.Request(f"http://127.0.0.1:{port}/v1/recommend", data, headers), timeout=20
            ).read()
            return rival
        except OSError:
            time.sleep(0.2)
    process.terminate()
    raise RuntimeError(f"{name} does not start: {log.read_text()[-500:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="of the environment with the peers")
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=2000, help="of each turn")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="serving-peers-"))
    rivals: list[Rival] = []
    try:
        checkpoint = checkpoint_of(folder, options.items)
        for name, command in commands(options.python, checkpoint, folder).items():
            rivals.append(start(name, command, folder, checkpoint, options.requests))
        for turn in range(options.turns + 1):
            for rival in rivals:
                rival.turn()
                if turn == 0:  # a warm-up
                    rival.micros.clear()
                    rival.rates.clear()
        for rival in rivals:
            ratios = [x / y for x, y in zip(rival.micros, rivals[0].micros, strict=True)]
            print(
                f"{rival.name}: {statistics.median(rival.micros):.0f} microseconds of CPU "
                f"({min(rival.micros):.0f} to {max(rival.micros):.0f}), "
                f"{statistics.median(ratios):.2f} times ours ({min(ratios):.2f} to {max(ratios):.2f}); "
                f"{statistics.median(rival.rates):,.0f} in a second"
            )
    finally:
        for rival in rivals:
            rival.process.send_signal(signal.SIGTERM)
            rival.process.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
