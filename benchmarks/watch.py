"""Rows of a run's log while it learns: the numbers of "Watch it learn" in docs/03 and docs/04.

    python -m benchmarks.watch [TASK ...]

One run for each task, seed 0, one thread. Appends to benchmarks/results/logs.csv the log's rows at the first
update, and where sessions ended near a tenth and a half of the run and at its end.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import commands, tables
from benchmarks.harness.newest import read, table
from benchmarks.harness.turns import Row
from recsys_rl.errors import UserError
from recsys_rl.utils.files import check_writable
from recsys_rl.utils.logger import read_log

TASKS = {
    "drift": ("ppo", ["--data", "synthetic"]),
    "satiation": ("ppo", ["--env", "satiation", "--total-timesteps", "600000"]),
    "drift-a2c": ("a2c", ["--data", "synthetic"]),
    "drift-a2c-no-bonus": ("a2c", ["--data", "synthetic", "--ent-coef", "0"]),
}
CSV = tables.RESULTS / "logs.csv"
MOMENTS = (0.1, 0.5, 1.0)  # of the run
LOGGED = (
    "return_mean",
    "entropy",
    "approx_kl",
    "clipfrac",
    "explained_variance",
    "value_loss",
    "policy_loss",
    "lr",
)


def watch(task: str, extra: Sequence[str]) -> list[Row]:
    """The rows of one run's log (``step``, ``name``, ``value``) at its first update and at MOMENTS."""
    algo, options = TASKS[task]
    settings = ["train", "--algo", algo, "--seed", "0", "--threads", "1"]
    settings += ["--log-interval", "1", "--eval-interval", "0"]
    with tempfile.TemporaryDirectory() as folder:
        commands.recsys_rl(Path(folder), [*settings, *options, *extra])
        (log,) = Path(folder).rglob("log.csv")
        rows = read_log(log)
    ended = sorted({step for step, _, name, _ in rows if name == "return_mean"})  # sessions ended there
    wanted = {nearest(ended, at * rows[-1][0]) for at in MOMENTS} | {rows[0][0]}
    return [
        {"task": task, "step": step, "name": name, "value": value}
        for step, _, name, value in rows
        if step in wanted and name != "steps_per_second"
    ]


def nearest(steps: Sequence[int], target: float) -> int:
    return min(steps, key=lambda step: abs(step - target))


def logged(results: Path, task: str) -> dict[int, dict[str, float]]:
    """Values by step and name."""
    by_step: dict[int, dict[str, float]] = {}
    for row in read(results, "logs", task=task):
        by_step.setdefault(int(row["step"]), {})[row["name"]] = float(row["value"])
    return dict(sorted(by_step.items()))


def short(value: float | None) -> str:
    """About two digits, without an exponent."""
    if value is None:
        return "–"
    size = abs(value)
    places = 1 if size >= 1 else 2 if size >= 0.1 else 3 if size >= 0.01 else 4
    shown = f"{value:.{places}f}"
    return "0" if float(shown) == 0 else shown


def log_ppo(results: Path) -> str:
    runs = {task: list(logged(results, task).values()) for task in ("drift", "satiation")}
    body = [
        [f"`{name}`", *(", ".join(short(run[i].get(name)) for i in (0, 1, -1)) for run in runs.values())]
        for name in LOGGED
    ]
    return table(["first update, a tenth of the run, last update", *(f"`{task}`" for task in runs)], body)


def log_a2c(results: Path) -> str:
    names = ("entropy", "return_mean", "explained_variance")
    runs = {"drift-a2c": "the defaults", "drift-a2c-no-bonus": "`ent_coef` 0"}
    body = [
        [words, f"{step:,}", *(short(values.get(name)) for name in names)]
        for task, words in runs.items()
        for step, values in logged(results, task).items()
    ]
    return table(["settings", "step", *(f"`{name}`" for name in names)], body)


def main() -> None:
    parser = tables.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", help="all, where none is named")
    parser.add_argument("--csv", type=Path, default=CSV, help="append the rows to this file")
    parser.add_argument("--smoke", action="store_true", help="does it run? A few thousand steps, no CSV")
    args = parser.parse_args()
    unknown = sorted(set(args.tasks) - set(TASKS))
    if unknown:
        raise UserError(f"There is no task {unknown[0]}: name some of {', '.join(TASKS)}, or none for all.")
    check_writable(args.csv, "--csv")
    extra = ["--total-timesteps", "4096"] if args.smoke else []
    args.json, args.csv = None, None if args.smoke else args.csv
    tables.publish([row for task in args.tasks or TASKS for row in watch(task, extra)], args)


if __name__ == "__main__":
    tables.run(main)
