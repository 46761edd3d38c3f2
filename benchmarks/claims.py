"""Each measured claim of README.md and docs/goals.md, for the table of docs/claims.md; the cheap ones again.

    python -m benchmarks.write_tables       # writes docs/claims.md, too
    python -m benchmarks.claims --check     # measures the cheap claims again (some minutes): which moved?

A claim moved if its new value lies outside of the published interval, or, of a ratio of speeds, more than a
fifth away. Exit code 1: at least one did. The trainings of README's first table are not among them: they
take three minutes a seed, by `make train`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks import learning_tables, own_log, speed_tables
from benchmarks.harness import newest, tables
from benchmarks.harness.classified import SETS
from benchmarks.harness.newest import Row, read
from benchmarks.harness.returns import Runs
from benchmarks.harness.tables import RESULTS, ROOT

NEAR = 0.2
"""A ratio of speeds moved if it is further away than this share of itself."""


class Measured(NamedTuple):
    """One number again, and where it was published to lie."""

    what: str
    value: float
    low: float
    high: float

    @property
    def moved(self) -> bool:
        return not self.low <= self.value <= self.high


@dataclass(frozen=True)
class Claim:
    says: str
    number: Callable[[Path], str]
    """The published number with its interval, from a folder of results."""
    rows: Callable[[Path], Sequence[Row]]
    """The rows behind it; none if the number stands in README alone."""
    command: str
    not_said: str
    again: Callable[[Path], list[Measured]] | None = None
    """Measures it again in an empty folder; None if that takes long."""


def gain(results: Path, task: str, rival: str = "searched") -> str:
    runs = Runs(results, task)
    return learning_tables.claim(runs, runs.learned, rival).split(", worst")[0]


def runs_of(results: Path, task: str) -> list[Row]:
    return [*Runs(results, task).by_place.values()]


def minutes_of_training(results: Path) -> str:
    return f"{Runs(results, learning_tables.FIRST).seconds / 60:.0f} minutes of training"


def served_returns(results: Path) -> str:
    """The mean return of served sessions before the loop, and after its first and its last round."""
    rows = read(results, "loop", ("seed",))
    means = [sum(float(row[name]) for row in rows) / len(rows) for name in ("before", "served_1", "served")]
    return " → ".join(f"{mean:.1f}" for mean in means)


def largest_difference(results: Path) -> str:
    rows = read(results, "ope_peers")
    return f"{max(float(row['difference']) for row in rows if row['difference']):.0e}"


def held(results: Path) -> str:
    """Of promised intervals, those that hold the truth; of policies without a gain, those called better."""
    row = read(results, "verdict_coverage", part="all", rule="after")[0]
    covered = f"{int(row['covered']):,} of {int(row['promised']):,} promised intervals"
    without = f"{int(row['no_gains']):,} policies that gain nothing"
    return f"{covered} hold the truth; of {without}, {row['wrong']} is called *better*"


def judged(row: Row) -> bool:
    """A row of the coverage of own logs."""
    return row["data"] in SETS and bool(row["estimate"])


def in_page(page: str, pattern: str) -> tuple[float, ...]:
    """The numbers of a text of a page of the checkout, whose line breaks don't matter."""
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    found = re.search(pattern, text)
    assert found is not None, pattern
    return tuple(map(float, found.groups()))


CLICKS = (
    "docs/11_offline.md",
    r" reinforce ([\d.]+) \[([\d.]+), ([\d.]+)\].*? "
    r"`ope` on newer.csv says ([\d.]+) \(([\d.]+) to ([\d.]+)\)",
)
SERVED = (
    "README.md",
    r"there the estimate was ([\d.]+) \(([\d.]+) to ([\d.]+)\), "
    r"and the policy earned ([\d.]+) \(([\d.]+) to ([\d.]+)\)",
)


def two_estimates(results: Path, where: tuple[str, str]) -> str:
    a, a_low, a_high, b, b_low, b_high = in_page(*where)
    return f"{a:g} ({a_low:g} to {a_high:g}), and {b:g} ({b_low:g} to {b_high:g})"


def of_readme(results: Path) -> list[Row]:
    return []


def run(folder: Path, *words: str, **variables: str) -> str:
    """What the command prints. It finds this checkout, and `recsys-rl` and `python` beside this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": path, "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(words, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def clicks_again(folder: Path) -> list[Measured]:
    """The estimates of the policy that a log of clicks teaches."""
    ours = [sys.executable, "-m", "recsys_rl"]
    run(folder, sys.executable, str(ROOT / "examples" / "own_decisions.py"))
    run(folder, *ours, "train", "--algo", "reinforce", "--log", "clicks.csv")
    checkpoint = ["--checkpoint", "checkpoints/reinforce.pt"]
    run(folder, *ours, "ope", "--log", "newer.csv", *checkpoint, "--json", "ope.json")
    values = []
    for file in (next(folder.glob("runs/*/ope.json")), folder / "ope.json"):
        rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
        values += [row["value"] for row in rows if row["policy"] == "reinforce" and row["recommended"]]
    _, low, high, _, low_2, high_2 = in_page(*CLICKS)
    return [
        Measured("estimate of train", values[0], low, high),
        Measured("estimate of ope", values[1], low_2, high_2),
    ]


def served_again(folder: Path) -> list[Measured]:
    """The estimate from a record, and what the policy then earned."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    said = run(folder, "bash", str(ROOT / "examples" / "served_loop.sh"), str(folder / "loop"), PORT=port)
    return read_served(said)


def read_served(said: str) -> list[Measured]:
    """From the text of examples/served_loop.sh."""
    estimate = re.search(r"^ppo +wdr +([\d.]+) ", said, re.MULTILINE)
    truth = re.findall(r": return ([\d.]+) \(", said)
    assert estimate is not None and truth, said
    _, low, high, _, low_2, high_2 = in_page(*SERVED)
    return [
        Measured("estimate from the record", float(estimate[1]), low, high),
        Measured("earned", float(truth[-1]), low_2, high_2),
    ]


def speed_again(folder: Path) -> list[Measured]:
    """Our steps a second over those of Stable-Baselines3, on one thread; one round."""
    file = folder / "speed.json"
    more = ["--rounds", "1", "--threads", "1", "--json", str(file), "--csv", str(folder / "speed.csv")]
    run(ROOT, sys.executable, "-m", "benchmarks.throughput", *more)
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    now = {row["settings"]: row.get("ours_over_it") for row in rows if row["system"] == "stable-baselines3"}
    before = read(RESULTS, "throughput-one-thread", system="stable-baselines3")
    return [
        Measured(
            f"times Stable-Baselines3, {row['settings']}",
            float(now[row["settings"]] or 0),
            (1 - NEAR) * float(row["ours_over_it"]),
            (1 + NEAR) * float(row["ours_over_it"]),
        )
        for row in before
    ]


OF_A_PLATFORM = "One platform, with the settings of its preset; its users are equations."
LEARNING = "python -m benchmarks.learning"
CLAIMS = (
    Claim(
        "`make train`: PPO over the best linear score that as many trials find",
        partial(gain, task=learning_tables.FIRST),
        partial(runs_of, task=learning_tables.FIRST),
        f"{LEARNING} {learning_tables.FIRST}",
        "The gain on another kind of processor, whose runs have other weights. The gain with real users. "
        "With other settings of the users the gain is another ([calibration](calibration.md)). PPO's network "
        "has parts in the shape of the simulator's hidden equations (stocks with a cap, a hinge of user and "
        "item together), learned from what it observes; the linear score has neither, and the row "
        "`searched-stock`, which has both, earns as much as it.",
    ),
    Claim(
        "`make train`: PPO over a formula that knows the simulator's equations",
        partial(gain, task=learning_tables.FIRST, rival="expert"),
        partial(runs_of, task=learning_tables.FIRST),
        f"{LEARNING}_rows {learning_tables.FIRST} --rows expert",
        "That no formula earns more: the numbers of this one were searched, its form was written by hand.",
    ),
    *(
        Claim(
            f"`{task}`: PPO over the best linear score (*PPO does not always win*)",
            partial(gain, task=task),
            partial(runs_of, task=task),
            f"{LEARNING} {task}",
            OF_A_PLATFORM,
        )
        for task in ("short-video", "long-video", "social-feed", "shop")
    ),
    Claim(
        "`make train` takes minutes on two cores",
        minutes_of_training,
        partial(runs_of, task=learning_tables.FIRST),
        f"{LEARNING} {learning_tables.FIRST}",
        "README's three minutes are of two idle cores, installation and table included. The median here was "
        "measured while other work ran.",
    ),
    Claim(
        "The loop: mean return of served sessions before, after the first round, after the third",
        served_returns,
        lambda results: read(results, "loop", ("seed",)),
        "python -m benchmarks.loop",
        "That people would answer like this: visitors are simulated, the first policy had a short training.",
    ),
    Claim(
        "A log of clicks: what `train` and `ope` estimate of the learned policy",
        partial(two_estimates, where=CLICKS),
        of_readme,
        "python examples/own_decisions.py; recsys-rl train --algo reinforce --log clicks.csv; recsys-rl ope",
        "A log of people: a script makes it up, and by its equations the policy earns 0.244.",
        clicks_again,
    ),
    Claim(
        "A record of a server: the estimate of a second policy, and what it then earned",
        partial(two_estimates, where=SERVED),
        of_readme,
        "bash examples/served_loop.sh",
        "The same of a policy that differs much from the one that served: the record is then weak evidence.",
        served_again,
    ),
    Claim(
        "`drift` on one thread: steps a second over those of Stable-Baselines3",
        partial(speed_tables.times_of, name="throughput-one-thread"),
        lambda results: read(results, "throughput-one-thread", system="stable-baselines3"),
        "python -m benchmarks.throughput --threads 1",
        "The speed with a slow environment of your own, or on a GPU, or on another processor: an Intel "
        "Xeon had 4.1 and 2.9 times. A median of rounds has no interval.",
        speed_again,
    ),
    Claim(
        "Our estimates beside those of the Open Bandit Pipeline: the largest difference",
        largest_difference,
        lambda results: [row for row in read(results, "ope_peers") if row["difference"]],
        "python -m benchmarks.ope_peers --python V/bin/python",
        "The intervals, which differ ([foreign](foreign.md)). Reward models: both are given the same.",
    ),
    Claim(
        "goals: an estimate has an interval or the words *no promise*",
        held,
        lambda results: read(results, "verdict_coverage", part="all", rule="after"),
        "python -m benchmarks.verdict_coverage",
        "Logs whose propensities are wrong, or of people who influence each other. The logs are made up.",
    ),
    Claim(
        "goals: a log is enough: the interval that `train` prints holds the truth",
        own_log.coverage,
        lambda results: [row for row in read(results, "own_log", own_log.KEYS) if judged(row)],
        "python -m benchmarks.own_log",
        "Sessions: these are single decisions on public data sets of labels, where the truth is known.",
    ),
)


def table(results: Path) -> str:
    """The table of docs/claims.md."""
    lines = []
    for claim in CLAIMS:
        rows = claim.rows(results)
        seeds = ranges({int(row["seed"]) for row in rows if row.get("seed")})
        parts = [f"`{claim.command}`", *([f"seeds {seeds}"] if seeds else [])]
        parts += [newest.origin(rows), *dict.fromkeys(row["hardware"] for row in rows)] if rows else []
        parts += ["`--check`"] if claim.again else []
        lines.append([claim.says, claim.number(results), "; ".join(parts), claim.not_said])
    return newest.table(["claim", "number", "measured by", "what it does not say"], lines, words=True)


def ranges(seeds: Collection[int]) -> str:
    """Such as "0 to 4, 100 to 199"."""
    firsts = [seed for seed in sorted(seeds) if seed - 1 not in seeds]
    lasts = [seed for seed in sorted(seeds) if seed + 1 not in seeds]
    pairs = zip(firsts, lasts, strict=True)
    return ", ".join(f"{first} to {last}" if last > first else f"{first}" for first, last in pairs)


def check() -> int:
    """Measure the cheap claims again, print a line for each number, and return how many moved."""
    moved = 0
    for claim in CLAIMS:
        if claim.again is None:
            continue
        with tempfile.TemporaryDirectory(prefix="claims-") as name:
            for measured in claim.again(Path(name)):
                moved += measured.moved
                state = "MOVED" if measured.moved else "holds"
                between = f"{measured.low:.3g} to {measured.high:.3g}"
                print(f"{state}  {measured.what}: {measured.value:.3g} (published {between})", flush=True)
    return moved


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="measure the cheap claims again")
    if not parser.parse_args().check:
        print(table(RESULTS))
    elif check():
        raise SystemExit(1)


if __name__ == "__main__":
    tables.run(main)
