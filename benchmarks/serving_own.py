"""CPU time of a decision whose request has 64 numbers of context, beside one of `satiation`.

    python -m benchmarks.serving_own

Three servers are asked in turns, in the closed loop of `benchmarks.serving`, each with 1,000 items: a policy
of `satiation`, and two of a log with 64 numbers, in one list and in 64 columns. What else the machine does
falls on all of them, so the median of the ratios counts.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import shutil
import statistics
import tempfile
from pathlib import Path

from benchmarks.harness.load import request_of
from benchmarks.harness.served import Server
from benchmarks.serving import CONNECTIONS, USERS, Load, checkpoint_of, recommendations
from recsys_rl.cli.train import train_options
from recsys_rl.training.train import train

NUMBERS = 64
ROWS = 5_000  # of the log
ITEMS = 1_000
TURNS = 5


def context_of(numbers: list[float], columns: bool) -> dict[str, object]:
    """The context of these numbers, in a piece for each or in one list."""
    return {f"n{at}": number for at, number in enumerate(numbers)} if columns else {"numbers": numbers}


def log_of(path: Path, columns: bool) -> Path:
    """A log of single decisions, each item as likely as any other."""
    rng = random.Random(0)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        names = context_of([0.0] * NUMBERS, columns)
        table.writerow(["user", "item", "propensity", "clicked", *(f"context.{name}" for name in names)])
        for row in range(ROWS):
            numbers = [f"{rng.gauss(0, 1):.4f}" for _ in range(NUMBERS)]
            cells = numbers if columns else ["|".join(numbers)]
            table.writerow([row % 500, row % ITEMS, 1 / ITEMS, int(rng.random() < 0.2), *cells])
    return path


def policy_of(folder: Path, name: str, columns: bool) -> Path:
    """A policy that learned briefly from such a log."""
    log = log_of(folder / f"{name}.csv", columns)
    options = ["--algo", "bc", "--log", str(log), "--total-timesteps", "2560"]
    return train(train_options(options).config, folder=folder / name, quiet=True)


def requests(number: int, columns: bool) -> list[bytes]:
    rng = random.Random(1)
    numbers = ([round(rng.gauss(0, 1), 4) for _ in range(NUMBERS)] for _ in range(number))
    return [
        request_of("/v1/recommend", {"user_id": str(at % USERS), "context": context_of(some, columns)})
        for at, some in enumerate(numbers)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=5_000)
    number, folder = parser.parse_args().decisions, Path(tempfile.mkdtemp(prefix="serving-own-"))
    servers: dict[str, tuple[Server, list[bytes]]] = {}
    try:
        asked = recommendations(number), requests(number, False), requests(number, True)
        names = "satiation", "64 numbers in a list", "64 columns"
        for at, (name, some) in enumerate(zip(names, asked, strict=True)):
            path = checkpoint_of(folder, ITEMS) if at == 0 else policy_of(folder, f"own{at}", at == 2)
            servers[name] = Server(path, folder / f"{at}.sqlite"), some
            Load.of(servers[name][0], some[:1000], [], CONNECTIONS, math.inf)
        times: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(TURNS):
            for name, (server, some) in servers.items():
                load = Load.of(server, some, [], CONNECTIONS, math.inf)
                times[name].append(1e6 * load.cpu / load.answered)
        for name, each in times.items():
            ratios = [mine / theirs for mine, theirs in zip(each, times["satiation"], strict=True)]
            size = (folder / f"{names.index(name)}.sqlite").stat().st_size / (TURNS * number + 1000)
            print(
                f"{name}: {min(each):.0f} to {max(each):.0f} microseconds of CPU, "
                f"{statistics.median(ratios):.2f} times satiation ({min(ratios):.2f} to {max(ratios):.2f}); "
                f"{size:,.0f} bytes of the record"
            )
    finally:
        for server, _ in servers.values():
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
