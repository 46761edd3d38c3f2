"""Does it learn? Trains and evaluates whole runs over seeds, and prints the tables of the docs.

    python -m benchmarks.learning drift make-train cartpole-ppo cartpole-a2c --seeds 0-4

Each run is the two commands that anyone can type (``recsys-rl train``, ``recsys-rl evaluate``) in a
folder of its own, with one thread (`make-train` with two: --jobs 1); ``--jobs`` of them go side by side, or
all nodes of a Ray cluster share them (``--on ray``). PPO on `drift` has a second training, for
the next reward alone (gamma 0) with a third of the steps, which makes the row `ranker`, and one evaluation
plays both. Where benchmarks.experts has an expert of the platform, it joins with ``--policy``. A row of the
table is the mean over seeds with a 95 % interval (Student's t over seeds; a seed changes the world's split,
the users, the weights and all noise). Then follow the gains over `rule`, `searched` and `expert`, and for
each seed the gain over that seed's yardstick and over `ranker`. Writes one CSV row per task, seed and policy.

``--keep FOLDER`` keeps the trained runs in FOLDER/<task>-<seed>/<row>/, row being the algorithm or `ranker`,
and takes those that are there: runs with a file `done`, which holds the seconds of the training.
``--curve FILE.svg`` draws the learning curve of the last task, on training users, with the mean return of
`searched` on the same users as a line.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.experts import policy
from benchmarks.harness import commands, tables
from benchmarks.harness.returns import RIVALS
from benchmarks.harness.runs import checkpoint_in, return_on_curve, trained
from recsys_rl.cli.tasks import TaskOptions, shared_by
from recsys_rl.cli.train import train_options
from recsys_rl.evaluation.printing import gain_text, share_text
from recsys_rl.evaluation.report.learning_curve import learning_curve_svg, passing
from recsys_rl.evaluation.table import mean_over_seeds, relative_gain
from recsys_rl.utils.files import write_text
from recsys_rl.utils.logger import read_log
from recsys_rl.utils.metrics import interval
from recsys_rl.utils.seeding import parse_seeds

TASKS: dict[str, tuple[str, list[str]]] = {  # algo, options of `train`
    "drift": ("ppo", ["--data", "synthetic"]),
    "make-train": ("ppo", ["--env", "satiation", "--threads", "2"]),  # as in the Makefile
    "shop": ("ppo", ["--env", "shop"]),
    "cartpole-ppo": ("ppo", ["--env", "gym:CartPole-v1", "--total-timesteps", "200000"]),
    "cartpole-a2c": ("a2c", ["--env", "gym:CartPole-v1", "--total-timesteps", "500000"]),
    "drift-a2c": ("a2c", ["--data", "synthetic"]),
    "satiation-a2c": ("a2c", ["--env", "satiation"]),
    "drift-dqn": ("dqn", ["--data", "synthetic"]),
    "satiation-dqn": ("dqn", ["--env", "satiation"]),
    "satiation-dqn-long": ("dqn", ["--env", "satiation", "--total-timesteps", "1800000"]),
    "short-video": ("ppo", ["--env", "short-video"]),
    "short-video-a2c": ("a2c", ["--env", "short-video"]),
    "long-video": ("ppo", ["--env", "long-video"]),
    "long-video-a2c": ("a2c", ["--env", "long-video"]),
    "social-feed": ("ppo", ["--env", "social-feed"]),
    "social-feed-a2c": ("a2c", ["--env", "social-feed"]),
    "tutor": ("ppo", ["--env", "tutor"]),
}
EFFECTS: dict[str, list[str]] = {  # of `satiation`, each switched off, or another knowledge of the users
    "all-effects": [],
    "no-weariness": ["--satiation-strength", "0"],
    "no-catchiness": ["--catchiness-gain", "0"],
    "no-patience-gain": ["--patience-gain", "0"],
    "no-patience": ["--patience-cost", "0"],
    "stranger": ["--profile-fraction", "0.2"],
    "well-known": ["--profile-fraction", "0.99"],
}
SENSITIVITY: dict[str, list[str]] = {  # other settings of `satiation`; 3 and 0.5 are its own
    f"catchiness-{gain:g}-cost-{cost:g}": ["--catchiness-gain", f"{gain:g}", "--patience-cost", f"{cost:g}"]
    for gain in (1, 2, 3)
    for cost in (0.25, 0.5)
    if (gain, cost) != (3, 0.5)
}
FEWER = ["--total-timesteps", "600000"]
"""Enough to compare worlds, with rules that are searched for as many steps."""
TASKS |= {
    f"satiation-{name}": ("ppo", ["--env", "satiation", *FEWER, *settings])
    for name, settings in (EFFECTS | SENSITIVITY).items()
}
RANKED = ("drift",)  # tasks with the row `ranker`; on `satiation` `expected` earned the same
RANKER_PART = 3
"""`ranker` has a third of the steps, as what it learns lies one step ahead: with 600,000 steps it equals the
oracle of the next reward on `satiation`."""
COLUMNS = (
    "date",
    "hardware",
    "commit",
    "task",
    "seed",
    "train_seconds",
    "policy",
    "return_mean",
    "length_mean",
    "users",
    "return_low",
    "return_high",
    "share",
    *(f"over_{rival}{end}" for rival in RIVALS for end in ("", "_low", "_high")),
)
Row = dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """The training of one seed and its evaluation."""

    result: dict[str, Any]  # the table
    rows: list[Row]  # of the CSV
    curve: list[list[float]]  # step, return of the greedy policy on training users
    searched: float | None  # return of `searched` on the same users, if it was asked for


def run_once(
    task: str, seed: int, extra: list[str], keep: Path | None = None, level: bool = False
) -> Trained:
    """Train and evaluate one seed. Runs are taken from, and kept in, the folder ``keep``."""
    algo, options = TASKS[task]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = folder if keep is None else keep.resolve() / f"{task}-{seed}"
        train = ["train", "--algo", algo, "--seed", str(seed), "--threads", "1", *options, *extra]
        seconds = trained(runs / algo, algo, train)
        files, config = [checkpoint_in(runs / algo, algo)], train_options(train[1:]).config
        if task in RANKED:
            steps = config.train_config.total_timesteps // RANKER_PART
            short_sighted = ["--gamma", "0", "--eval-interval", "0", "--total-timesteps", str(steps)]
            trained(runs / "ranker", algo, [*train, *short_sighted])
            files.append(checkpoint_in(runs / "ranker", algo))
        own = ["--policy", policy.SPEC] if config.platform.users in policy.EXPERTS else []
        commands.recsys_rl(folder, ["evaluate", *map(str, files), *own, "--json", "table.json"])
        result = with_expert((folder / "table.json").read_text())
        (log,) = (runs / algo).glob("runs/*/log.csv")
        curve = [[step, value] for step, _, name, value in read_log(log) if name == "eval_return_mean"]
        searched = return_on_curve(files[0], "searched") if level else None
    return Trained(result, rows_of(task, seed, seconds, result), curve, searched)


def with_expert(text: str) -> dict[str, Any]:
    """A table of one seed from its JSON, in which the policy of benchmarks.experts is the row `expert`.

    ``gains`` has those over it, too.
    """
    result: dict[str, Any] = json.loads(text.replace(policy.SPEC, policy.NAME))
    returns = {row["policy"]: row["returns"] for row in result["per_seed"][0]["rows"]}
    if policy.NAME in returns:
        for name in result["learned"]:
            gain = relative_gain(torch.tensor(returns[name]), torch.tensor(returns[policy.NAME]))
            row = dict(zip(("gain", "low", "high"), gain, strict=True))
            result["gains"].append(
                {"policy": name, "versus": policy.NAME, **row, "users": len(returns[name])}
            )
    return result


def rows_of(task: str, seed: int, seconds: float, result: dict[str, Any]) -> list[Row]:
    """The rows of the CSV from the table of one seed."""
    shares = {row["policy"]: row["share"] for row in result["shares"]}
    over: dict[str, Row] = defaultdict(dict)
    for row in result["gains"]:
        ends = {"": row["gain"], "_low": row["low"], "_high": row["high"]}
        over[row["policy"]] |= {f"over_{row['versus']}{end}": value for end, value in ends.items()}
    known = {"task": task, "seed": seed, "train_seconds": round(seconds, 1)}
    return [
        known
        | {"share": shares.get(row["policy"])}
        | over[row["policy"]]
        | {key: row[key] for key in COLUMNS[6:12]}
        for row in result["rows"]
    ]


def print_summary(task: str, seeds: Sequence[int], results: list[dict[str, Any]]) -> dict[str, Any]:
    """A Markdown table of means over seeds, the shares of the way, and the gains on each seed.

    Returns the mean table.
    """
    mean = mean_over_seeds(results)
    print(f"\n{task}, seeds {', '.join(map(str, seeds))}: mean over seeds [95 % interval over seeds]\n")
    print("| policy | return | 95 % interval | worst seed | session length |\n|---|---|---|---|---|")
    for row in mean["rows"]:
        print(
            f"| {row['policy']} | {row['return_mean']:.2f} | {row['return_low']:.2f} to "
            f"{row['return_high']:.2f} | {row['worst']:.2f} | {row['length_mean']:.1f} |"
        )
    print(f"\nyardstick: {mean['yardstick']}")
    returns = {row["policy"]: row["return_mean"] for row in mean["rows"]}
    for rival in dict.fromkeys(row["versus"] for row in mean["gains"]):
        each = [gain_text(row) for row in mean["gains"] if row["versus"] == rival]
        print(f"gain over {rival} on the same users, mean over seeds: {', '.join(each)}")
    for row in mean["shares"]:
        print(f"{row['policy']}: {share_text(row)}")
    if "oracle" in returns:
        for name in mean["learned"]:
            print(f"{name}: {returns[name] / returns['oracle']:.3f} of the oracle")
    print()
    for seed, result in zip(seeds, results, strict=True):
        for line in gains(TASKS[task][0], result):
            print(f"seed {seed}: {line}")
        for row in result["gains"]:
            if row["gain"] is not None and row["policy"] in mean["learned"]:
                print(f"seed {seed}: gain over {row['versus']}: {gain_text(numbers(row))}")
    return mean


def numbers(row: Row) -> Row:
    """The row of a table's JSON with NaN in place of null."""
    return {name: math.nan if value is None else value for name, value in row.items()}


def gains(algo: str, result: dict[str, Any]) -> list[str]:
    """The gain of the policy over the yardstick and over `ranker`, sampled and greedy, as sentences."""
    rows = {row["policy"]: row for row in result["rows"]}
    lines = []
    for suffix in ("", "-greedy"):
        ours = rows[f"{algo}{suffix}"]
        for other in (result["yardstick"], f"ranker{suffix}"):
            if other not in rows:
                continue
            theirs = rows[other]
            apart = ours["return_low"] > theirs["return_high"] or ours["return_high"] < theirs["return_low"]
            lines.append(
                f"{ours['policy']} {_bounds(ours)}, {other} {_bounds(theirs)}: gain "
                f"{ours['return_mean'] / theirs['return_mean'] - 1:+.1%}, intervals "
                f"{'disjoint' if apart else 'overlap'}"
            )
    return lines


def _bounds(row: Row) -> str:
    return f"{row['return_mean']:.2f} [{row['return_low']:.2f}, {row['return_high']:.2f}]"


def add_columns(table: Path) -> None:
    """Give a CSV file that an older version began the columns that it lacks; its rows are empty there."""
    with table.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        if tuple(reader.fieldnames or ()) == COLUMNS:
            return
    lines = [COLUMNS, *([row.get(name, "") for name in COLUMNS] for row in rows)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    write_text(table, text.getvalue())


def mean_curve(curves: list[list[list[float]]]) -> dict[str, list[float]]:
    """The curves of all seeds as one, with a 95 % interval over seeds."""
    estimates = [
        interval(torch.tensor([point[1] for point in points])) for points in zip(*curves, strict=True)
    ]
    return {
        "step": [point[0] for point in curves[0]],
        "mean": [estimate.mean for estimate in estimates],
        "low": [estimate.low for estimate in estimates],
        "high": [estimate.high for estimate in estimates],
    }


def draw_curve(file: Path, algo: str, runs: Sequence[Trained]) -> None:
    """The mean learning curve, with `searched` on the same training users where it is known.

    It also prints the step from which on the curve stays above that line.
    """
    curve = mean_curve([one.curve for one in runs])
    levels = [one.searched for one in runs if one.searched is not None]
    lines = {"searched": statistics.mean(levels)} if levels else {}
    for name, level in lines.items():
        step = passing(curve, level)
        where = "does not stay above it" if step is None else f"stays above it from step {step:,.0f} on"
        print(f"{name} on the training users of the curve: {level:.2f}; {algo}-greedy {where}")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(learning_curve_svg(curve, lines, name=f"{algo}-greedy"))


def main() -> None:
    parser = tables.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=TASKS)
    parser.add_argument("--seeds", type=parse_seeds, default="0-4", help="as in 0-4 or 0,3,7 (default: 0-4)")
    parser.add_argument("--jobs", type=int, help="runs side by side (default: 2, without --on)")
    parser.add_argument("--on", choices=["ray"], help="as of recsys-rl train: the nodes of a Ray cluster")
    parser.add_argument("--csv", type=Path, default=Path("benchmarks/results/learning.csv"))
    parser.add_argument("--keep", type=Path, help="folder to keep trained runs in, and to take them from")
    parser.add_argument("--curve", type=Path, help="draw the learning curve of the last task to this file")
    parser.add_argument(
        "--smoke", action="store_true", help="a few thousand steps: does it run? Writes no CSV"
    )
    args = parser.parse_args()
    extra = ["--total-timesteps", "4096"] if args.smoke else []
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, {tables.processor()}",
        "commit": commit.strip(),
    }
    engine = TaskOptions(jobs=args.jobs or (2 if args.on is None else 1), on=args.on)
    table_file = Path(os.devnull) if args.smoke else args.csv
    table_file.parent.mkdir(parents=True, exist_ok=True)
    is_new = not table_file.exists()
    if table_file.is_file():
        add_columns(table_file)
    with table_file.open("a", newline="") as file, shared_by(engine) as map_tasks:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        for task in args.tasks:
            runs: list[Trained] = []
            drawn = args.curve is not None and task == args.tasks[-1]
            once = partial(run_once, task, extra=extra, keep=args.keep, level=drawn)
            for one in map_tasks(once, args.seeds):
                runs.append(one)
                seconds = float(one.rows[0]["train_seconds"])
                print(f"{task} seed {one.rows[0]['seed']}: {seconds:.0f} s", file=sys.stderr, flush=True)
                writer.writerows(about | row for row in one.rows)
                file.flush()  # a run that is stopped keeps the seeds before
            print_summary(task, args.seeds, [one.result for one in runs])
            if drawn:
                draw_curve(args.curve, TASKS[task][0], runs)


if __name__ == "__main__":
    tables.run(main)
