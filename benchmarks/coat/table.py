"""The tables of docs/13: means and intervals over refits, and the published figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.coat.play import BEST, GAMES, LEARNED, POLICIES, VERSUS
from benchmarks.harness import newest
from benchmarks.harness.turns import Row
from recsys_rl.utils.metrics import interval

PUBLISHED: Mapping[str, tuple[float, float]] = {
    "A2C": (81.80, 75.65),
    "PG": (79.34, 75.54),
    "DORL": (76.99, 73.29),
    "PPO": (73.03, 74.61),
    "DQN": (54.35, 65.59),
    "CQL": (23.35, 30.56),
    "BCQ": (9.56, 12.08),
}


def summary(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A row for each game and policy: means and 95 % intervals (Student's t) over refits."""
    table: list[Row] = []
    for name in GAMES:
        for policy in POLICIES:
            mine = [row for row in rows if (row["game"], row["policy"]) == (name, policy)]
            if not mine:
                continue
            line: Row = {"game": name, "policy": policy, "seeds": len(mine)}
            for column in ("return_mean", *(f"over_{versus}" for versus in VERSUS)):
                values = [float(row[column]) for row in mine if row[column] not in (None, "")]
                spread = interval(torch.tensor(values, dtype=torch.float64)) if values else None
                for end in ("mean", "low", "high"):
                    key = f"{column.removesuffix('_mean')}_{end}"
                    line[key] = None if spread is None else getattr(spread, end)
            line["length_mean"] = sum(float(row["length_mean"]) for row in mine) / len(mine)
            times = [float(row["seconds"]) for row in mine if row["seconds"] not in (None, "")]
            line["seconds"] = sum(times) / len(times) if times else None
            table.append(line)
    return table


def text(results: Path) -> str:
    """The table of the chapter, from the newest rows of the file alone."""
    rows = newest.read(results, "coat", ("game", "policy", "seed"))
    body = []
    for row in summary(rows):
        half = row["return_high"] - row["return_mean"]
        cells = [row["game"], f"**{row['policy']}**" if row["policy"] in LEARNED else row["policy"]]
        cells.append(f"{row['return_mean']:.2f}" + (f" ({half:.2f})" if half > 0.005 else ""))
        cells.append(f"{row['length_mean']:.1f}")
        for versus in VERSUS:
            mean, low, high = (row[f"over_{versus}_{end}"] for end in ("mean", "low", "high"))
            cells.append("" if mean is None else f"{mean:+.2f} ({low:+.2f} to {high:+.2f})")
        cells.append("" if row["seconds"] is None else f"{row['seconds']:.0f}")
        body.append(cells)
    head = ["game", "policy", "return", "turns", *(f"minus {versus}" for versus in VERSUS), "CPU seconds"]
    last = max(rows, key=lambda row: row["date"])
    seeds = sorted({row["seed"] for row in rows}, key=int)
    leaks = [float(row["leak"]) for row in rows if row["leak"]]
    said = (
        "Mean return of a session of each of the 290 users in the true ratings, greedy. In brackets half of "
        f"the 95 % interval (Student's t) over the refits {', '.join(seeds)};\ndifferences are paired by "
        f"refit. Among the {BEST} coats with the best estimates the number of close ones has a correlation "
        f"of {min(leaks):.2f} to {max(leaks):.2f}\nwith the true mean, given the estimate. `python -m "
        f"benchmarks.coat`, {newest.origin([last])}."
    )
    return f"{newest.table(head, body)}\n\n{said}"


def published(results: Path) -> str:
    """The published figures as a table."""
    body = [[name, *(f"{value:.2f}" for value in values)] for name, values in PUBLISHED.items()]
    return newest.table(["published, one seed", "FB", "NX"], body)
