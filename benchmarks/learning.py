"""Does it learn? Trains and evaluates whole runs over seeds, and prints the tables of the docs.

    python -m benchmarks.learning drift satiation cartpole-ppo cartpole-a2c --seeds 5

Each run is the two commands that anyone can type (``recsys-rl train``, ``recsys-rl evaluate``) in a
folder of its own, with one thread; two runs go side by side. A row of the table is the mean over
seeds with a 95 % interval (Student's t over seeds; a seed changes the world's split, the users, the
weights and all noise). Writes one CSV row per task, seed and policy, and with ``--curve FILE.svg`` a
picture of the learning curve of the last task.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from recsys_rl.report import learning_curve_svg
from recsys_rl.utils.logger import read_log
from recsys_rl.utils.metrics import interval

TASKS: dict[str, tuple[str, list[str]]] = {  # algo, options of `train`
    "drift": ("ppo", ["--data", "synthetic"]),
    "satiation": ("ppo", ["--env", "satiation"]),
    "cartpole-ppo": ("ppo", ["--env", "gym:CartPole-v1", "--total-timesteps", "200000"]),
    "cartpole-a2c": ("a2c", ["--env", "gym:CartPole-v1", "--total-timesteps", "500000"]),
    "drift-a2c": ("a2c", ["--data", "synthetic"]),
    "satiation-a2c": ("a2c", ["--env", "satiation"]),
}
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
)
Row = dict[str, Any]


def run_once(task: str, seed: int, extra: list[str]) -> tuple[list[Row], list[list[float]]]:
    """One training run and its evaluation: the table's rows, and the learning curve (step, return)."""
    algo, options = TASKS[task]
    env = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from recsys_rl.cli import main; raise SystemExit(main())"]
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        train = ["train", "--algo", algo, "--seed", str(seed), "--threads", "1", *options, *extra]
        subprocess.run([*command, *train], cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - started
        evaluate = ["evaluate", "--algo", algo, "--json", "table.json"]
        subprocess.run([*command, *evaluate], cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
        rows = json.loads((Path(folder) / "table.json").read_text())["rows"]
        (log,) = Path(folder).glob("logs/*/log.csv")
        curve = [[step, value] for step, _, name, value in read_log(log) if name == "eval_return_mean"]
    known = {"task": task, "seed": seed, "train_seconds": round(seconds, 1)}
    print(f"{task} seed {seed}: {seconds:.0f} s", file=sys.stderr, flush=True)
    return [known | {name: row[name] for name in COLUMNS[6:]} for row in rows], curve


def summary(rows: list[Row]) -> list[Row]:
    """Mean and interval over seeds of each policy, in the order of the tables."""
    returns: dict[str, list[float]] = defaultdict(list)
    lengths: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        returns[row["policy"]].append(row["return_mean"])
        lengths[row["policy"]].append(row["length_mean"])
    found = {name: interval(torch.tensor(values)) for name, values in returns.items()}
    return [
        {
            "policy": name,
            "return_mean": found[name].mean,
            "return_low": found[name].low,
            "return_high": found[name].high,
            "worst": min(returns[name]),
            "length_mean": sum(lengths[name]) / len(lengths[name]),
        }
        for name in returns
    ]


def print_summary(task: str, rows: list[Row], num_seeds: int) -> None:
    """A Markdown table, and what the policy reached of the references that the table holds."""
    algo = TASKS[task][0]
    print(f"\n{task}, {num_seeds} seeds: mean over seeds [95 % interval]\n")
    print("| policy | return | 95 % interval | worst seed | session length |\n|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['policy']} | {row['return_mean']:.2f} | {row['return_low']:.2f} to "
            f"{row['return_high']:.2f} | {row['worst']:.2f} | {row['length_mean']:.1f} |"
        )
    mean = {row["policy"]: row["return_mean"] for row in rows}
    for name in (algo, f"{algo}-greedy"):
        if "oracle" in mean:
            print(f"\n{name}: {mean[name] / mean['oracle']:.3f} of the oracle")
        if "planner" in mean:
            way = (mean[name] - mean["myopic"]) / (mean["planner"] - mean["myopic"])
            print(f"\n{name}: {way:.1%} of the way from myopic to planner")


def mean_curve(curves: list[list[list[float]]]) -> dict[str, list[float]]:
    """The curves of all seeds as one, with a 95 % interval over seeds."""
    found = [interval(torch.tensor([point[1] for point in points])) for points in zip(*curves, strict=True)]
    return {
        "step": [point[0] for point in curves[0]],
        "mean": [x.mean for x in found],
        "low": [x.low for x in found],
        "high": [x.high for x in found],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="+", choices=TASKS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--csv", type=Path, default=Path("benchmarks/results/learning.csv"))
    parser.add_argument("--curve", type=Path)
    parser.add_argument(
        "--smoke", action="store_true", help="a few thousand steps: does it run? Writes no CSV"
    )
    args = parser.parse_args()
    extra = ["--total-timesteps", "4096"] if args.smoke else []
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores",
        "commit": commit.strip(),
    }
    table_file = Path(os.devnull) if args.smoke else args.csv
    table_file.parent.mkdir(parents=True, exist_ok=True)
    is_new = not table_file.exists()
    with table_file.open("a", newline="") as file, ThreadPoolExecutor(args.jobs) as pool:
        writer = csv.DictWriter(file, COLUMNS)
        if is_new:
            writer.writeheader()
        for task in args.tasks:
            results = list(pool.map(lambda seed, task=task: run_once(task, seed, extra), range(args.seeds)))
            rows = [row for found, _ in results for row in found]
            writer.writerows(about | row for row in rows)
            file.flush()
            table = summary(rows)
            print_summary(task, table, args.seeds)
            if args.curve is not None and task == args.tasks[-1]:
                means = {row["policy"]: row["return_mean"] for row in table}
                lines = ("random", "static-list", "myopic", "oracle", "planner")
                curve = mean_curve([points for _, points in results])
                references = {name: means[name] for name in lines if name in means}
                args.curve.parent.mkdir(parents=True, exist_ok=True)
                args.curve.write_text(learning_curve_svg(curve, references, name=TASKS[task][0]))


if __name__ == "__main__":
    main()
