"""The table of docs/06 on limits, from the newest rows of limits.csv."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.newest import Row, read, table

RUNS = {
    "plain": ("the platform's weights", "one ad in five places"),
    "plain-limit": ("the platform's weights", "and ads<=0.1"),
    "tail-limit": ("the platform's weights", "and tail_exposure>=0.5"),
    "paid": ("revenue=4", "one ad in five places"),
    "paid-limit": ("revenue=4", "and ads<=0.1"),
    "paid-limit-half": ("revenue=4", "and ads<=0.05"),
}


def limits(results: Path) -> str:
    """The runs under each limit: shares, multipliers and returns, each seed's beside the other's."""
    rows = read(results, "limits", ("run", "seed"))
    head = [
        "weights",
        "limit",
        "seeds",
        "ads, %",
        "tail, %",
        "multiplier",
        "return",
        "return of learning",
        "Gini",
    ]
    lines = []
    for run, words in RUNS.items():
        at = [row for row in rows if row["run"] == run]
        shares = (_each(at, name, 100, 1) for name in ("ads", "tail_exposure"))
        returns = (_each(at, name, 1, 2) for name in ("return_mean", "learned_return", "creator_gini"))
        lines.append([*words, str(len(at)), *shares, _each(at, "multiplier_mean", 1, 2), *returns])
    trained = [row for row in rows if row["run"] in RUNS]
    said = (
        f"{_sizes(trained)}, on its held-out users, by the policy that draws;\nmultiplier: mean over the "
        f"last fifth of the training. {_origin(trained)};\n`python -m benchmarks.limits`."
    )
    rule = [row for row in rows if row["run"] == "hard-rule"]
    if rule:
        broken, steps = int(float(rule[-1]["broken"])), int(rule[-1]["steps"])
        said += f"\nShowing an ad wherever none is forbidden breaks the rule at {broken} of {steps:,} places."
    lines = [line for line in lines if line[-1]]  # a run without results has no row
    return f"{table(head, lines)}\n\n{said}"


def _each(rows: Sequence[Row], column: str, scale: float, digits: int) -> str:
    """The value of each seed; with more than three seeds their mean."""
    by_seed = sorted(rows, key=lambda row: int(row["seed"]))
    found = [scale * float(row[column]) for row in by_seed if row.get(column)]
    if len(found) > 3:
        found = [statistics.mean(found)]
    return ", ".join(f"{value:.{digits}f}" for value in found)


def _origin(rows: Sequence[Row]) -> str:
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    return f"Commit {commits}, {rows[-1]['date']}"


def _sizes(rows: Sequence[Row]) -> str:
    items, steps = int(float(rows[0]["items"])), int(rows[0]["steps"])
    return f"PPO's preset with {items:,} items and {steps:,} steps; each seed's value"
