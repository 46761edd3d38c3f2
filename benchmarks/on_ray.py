"""Tasks in other processes and on Ray: what one costs, the parts a second of `ope`, and a node that dies.

    python -m benchmarks.on_ray [--rounds 1] [--sessions 3000] [--json FILE] [--csv FILE] [--smoke]

It trains PPO on `satiation` for a moment, records ``--sessions`` sessions in a folder, and judges the policy
on them with `ope`, in parts of 1,024 decisions and with models of 3,072: as the command does with larger
ones. Four systems judge the same parts: one process, two processes (``--jobs 2``), a Ray cluster of two nodes
on this machine, and the same cluster when one node is killed after the second part. Their answers have to be
equal to the last digit. Parts a second are counted after the first part. A task is measured with 300 that do
nothing. The seconds of the start are until the first of these has been done.

The table of needs is by calculation: judging and reading cost the processor time that was measured here, and
the memory is what the answers of the parts hold.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

from benchmarks.harness import commands, tables
from benchmarks.harness.newest import read, table
from benchmarks.harness.turns import Row
from recsys_rl.distributed.in_processes import InProcesses
from recsys_rl.distributed.on_ray import OnRay
from recsys_rl.logs.ope import read_log as ope_log
from recsys_rl.logs.ope.config import OpeConfig
from recsys_rl.logs.ope.ope import estimates
from recsys_rl.logs.ope.read_log import read_log
from recsys_rl.logs.parts import parts
from recsys_rl.utils.tasks import MapTasks, in_this_process

FITTED, PART = 3_072, 1_024
EMPTY = 300
NODES = 2
SYSTEMS = {
    "one": "one process",
    "jobs": "two processes (`--jobs 2`)",
    "ray": "Ray, two nodes",
    "killed": "Ray, one of the two nodes killed",
}
LARGE = (10**8, 10**10)
CORES = 16


@dataclass
class Watched:
    """An engine, with the seconds from its first part to its last, and the bytes of the answers."""

    engine: MapTasks
    after: Callable[[int], None] = lambda done: None
    seconds: float = 0.0
    cpu: float = 0.0
    size: int = 0
    parts: int = 0
    first: float = 0.0  # seconds until the first part

    def __call__(self, function: Callable[[Any], Any], items: Iterable[Any], /) -> Iterator[Any]:
        start, cpu = time.monotonic(), time.process_time()
        for result in self.engine(function, items):
            self.parts += 1
            self.seconds, self.cpu = time.monotonic() - start, time.process_time() - cpu
            self.first = self.first or self.seconds
            self.size += len(cloudpickle.dumps(result))
            self.after(self.parts)
            yield result


def judged(log: Path, checkpoint: Path, engine: Watched) -> tuple[str, int, int]:
    """The estimates as JSON, and the decisions and sessions of the log."""
    options = OpeConfig(log=(str(log),), checkpoint=str(checkpoint), policy=("ppo",), world=False)
    result, _ = estimates(options, read_log(options), map_tasks=engine)
    return json.dumps(result.json()), result.about.decisions, result.about.sessions


def of_tasks(engine: MapTasks) -> tuple[float, float]:
    """The seconds until the first task is done, and the milliseconds of each further one."""

    def nothing(number: int) -> int:
        return number

    start = time.monotonic()
    results = engine(nothing, iter(range(EMPTY)))
    next(results)
    first = time.monotonic()
    assert [*results] == [*range(1, EMPTY)]
    return first - start, 1000 * (time.monotonic() - first) / (EMPTY - 1)


def measured(log: Path, checkpoint: Path) -> list[Row]:
    """One round of all systems."""
    cpu = time.process_time()
    rows = sum(part.num_rows for part in parts(log, PART))
    reading = rows / (time.process_time() - cpu)
    found = []
    for system in SYSTEMS:
        with _engine(system) as (engine, kill):
            started, ms = of_tasks(engine)
            watched = Watched(engine, kill)
            answer, decisions, sessions = judged(log, checkpoint, watched)
        found.append(
            {
                "system": system,
                "start_s": started,
                "task_ms": ms,
                "parts": watched.parts,
                "parts_per_s": (watched.parts - 1) / (watched.seconds - watched.first),
                "seconds": watched.seconds,
                "judged_per_cpu_s": decisions / watched.cpu if system == "one" else None,
                "read_per_cpu_s": reading if system == "one" else None,
                "bytes_of_session": watched.size / sessions if system == "one" else None,
                "decisions_of_session": decisions / sessions if system == "one" else None,
                "answer": answer,
            }
        )
    return found


@contextlib.contextmanager
def _engine(system: str) -> Iterator[tuple[MapTasks, Callable[[int], None]]]:
    """The engine of a system, and what happens after each part."""
    if system in ("one", "jobs"):
        yield (in_this_process if system == "one" else InProcesses(2)), lambda done: None
        return
    # Loopback alone, and nothing sent out; both are read when ray is imported.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    utils: Any = importlib.import_module("ray.cluster_utils")
    sizes: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 200 * 2**20}
    cluster = utils.Cluster(initialize_head=True, head_node_args={**sizes, "include_dashboard": False})
    node = cluster.add_node(**sizes)
    os.environ["RAY_ADDRESS"] = cluster.address

    def after(done: int) -> None:
        if system == "killed" and done == 2:
            cluster.remove_node(node, allow_graceful=False)

    try:
        with contextlib.closing(OnRay()) as engine:
            yield engine, after
    finally:
        cluster.shutdown()
        del os.environ["RAY_ADDRESS"]


def text(results: Path) -> str:
    """The table of docs/speed.md."""
    rows = {row["system"]: row for row in read(results, "on_ray")}
    body = [
        [
            words,
            f"{float(rows[system]['start_s']):.1f}",
            f"{float(rows[system]['task_ms']):.2f}",
            f"{float(rows[system]['parts_per_s']):.2f}",
            f"{float(rows[system]['seconds']):.1f}",
        ]
        for system, words in SYSTEMS.items()
        if system in rows
    ]
    head = ["", "start, s", "an empty task, ms", "parts a second", f"{rows['one']['parts']} parts, s"]
    return table(head, body)


def needs(results: Path) -> str:
    """What large logs need, by calculation from the row of one process."""
    row = next(row for row in read(results, "on_ray") if row["system"] == "one")
    judged_per_s, read_per_s, size, steps = (
        float(row[name])
        for name in ("judged_per_cpu_s", "read_per_cpu_s", "bytes_of_session", "decisions_of_session")
    )
    body = []
    for decisions in LARGE:
        judging, reading = decisions / judged_per_s, 3 * decisions / read_per_s
        body.append(
            [
                f"10^{len(str(decisions)) - 1}",
                _hours(judging),
                _hours(reading),
                f"{judging / (reading / 3):.0f}",
                _hours(reading + judging / 16 - reading / 3)
                if judging / 16 > reading / 3
                else _hours(reading),
                f"{decisions / steps * size / 1e9:,.0f} GB",
            ]
        )
    head = [
        "decisions",
        "judging, hours of one core",
        "reading three times, hours",
        "cores that pay",
        f"hours with {CORES} cores",
        "memory of the command",
    ]
    return table(head, body)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f}"


def main() -> None:
    made = tables.parser(__doc__, default=1)
    made.add_argument("--sessions", type=int, default=3_000, help="of the log")
    args = tables.parse(made, "on_ray")
    sessions = 900 if args.smoke else args.sessions
    ope_log.FITTED, ope_log.PART = (500, 300) if args.smoke else (FITTED, PART)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train = ["train", "--env", "satiation", "--num-items", "300", "--total-timesteps", "8192"]
        commands.recsys_rl(folder, [*train, "--eval-interval", "0"])
        record = ["record", "--mix", "random", "--epsilon", "0.3", "--sessions", str(sessions)]
        commands.recsys_rl(
            folder, [*record, "--policy", "ppo", "--users", "all", "--parts", str(2 * PART), "--out", "log"]
        )
        rounds = [measured(folder / "log", folder / "checkpoints/ppo.pt") for _ in range(args.rounds)]
    rows = []
    for found in zip(*rounds, strict=True):
        answers = {row.pop("answer") for row in found}
        rows.append({"answers": answers} | {name: _median([row[name] for row in found]) for name in found[0]})
    if len(set[str]().union(*(row.pop("answers") for row in rows))) > 1:
        raise AssertionError("the answers differ")
    tables.publish(rows, args)


def _median(values: list[Any]) -> Any:
    return values[0] if isinstance(values[0], str | int | None) else statistics.median(values)


if __name__ == "__main__":
    tables.run(main)
