"""The table of benchmarks.strangers, of docs/07, from the newest rows of strangers.csv."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.harness.newest import Row, read, table
from recsys_rl.utils.metrics import interval

LABELS = {
    "popularity": "popularity",
    "static-list": "static-list",
    "mf": "mf, profile folded in",
    "linucb": "LinUCB",
    "lints": "linear Thompson sampling",
    "ppo": "PPO, trained on known users",
    "ppo-share": "PPO, half of its users strangers",
    "filter-without-answers": "the filter without the answers",
    "filter": "filter (knows the equations)",
    "informed": "informed (knows the profile)",
    "oracle": "oracle (knows the user)",
}


def strangers(results: Path) -> str:
    """Return, length and regret of each row; means over seeds, and intervals over these or over users."""
    rows, parts = read(results, "strangers", ("env", "seed")), []
    for env in dict.fromkeys(row["env"] for row in rows):
        of_env = [row for row in rows if row["env"] == env]
        seeds = list(dict.fromkeys(row["seed"] for row in of_env))
        lines = [_line(name, [row for row in of_env if row["policy"] == name]) for name in LABELS]
        head = [f"strangers on `{env}`", "return", "95 % interval", "steps", "regret after 5", "after all"]
        steps, many = int(of_env[0]["steps"]), len(seeds) > 1
        commits = ", ".join(dict.fromkeys(row["commit"] for row in of_env))
        said = (
            f"Seed{'s' if many else ''} {', '.join(seeds)}; each PPO trained for {steps:,} steps only; "
            f"intervals over {'seeds' if many else 'users'}; commit {commits}, "
            f"{of_env[-1]['date']};\n"
            f"`python -m benchmarks.strangers --threads 1 --only {env} --seeds {','.join(seeds)}`."
        )
        parts.append(f"{table(head, [line for line in lines if line])}\n\n{said}")
    return "\n\n".join(parts)


def _line(name: str, rows: Sequence[Row]) -> list[str]:
    """The cells of a row; [] where no seed has it. The ceiling has no regret."""
    if not rows:
        return []

    def mean(column: str, digits: int) -> str:
        found = [float(row[column]) for row in rows if row[column]]
        return f"{statistics.mean(found):.{digits}f}" if found else ""

    low, high = float(rows[0]["return_low"]), float(rows[0]["return_high"])
    if len(rows) > 1:
        over = interval(torch.tensor([float(row["return_mean"]) for row in rows]))
        low, high = over.low, over.high
    label = LABELS[name] + (f", {rows[0]['users']} users" if name == "informed" else "")
    cells = [label, mean("return_mean", 2), f"{low:.2f} – {high:.2f}", mean("length_mean", 1)]
    return [*cells, mean("regret_5", 2), mean("regret", 2)]
