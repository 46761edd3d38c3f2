"""A made-up table of a team's own decisions, whose truth is known: the best item follows from the context."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

ITEMS = ("ale", "bun", "cod", "dal")
DEVICES = ("phone", "desk")


def best_of(mood: np.ndarray, device: np.ndarray) -> np.ndarray:
    """(E,): the number of the item that is clicked with .9 and not with .1: one of four, by the context."""
    best: np.ndarray = (mood > 0).astype(int) + 2 * (device == "desk")
    return best


def decisions(rows: int, seed: int = 0, users: int = 300, loyal: float = 0.25) -> pl.DataFrame:
    """A table of single decisions. Its logger shows the best item with ``loyal``, the others alike."""
    draw = np.random.default_rng(seed)
    user = draw.integers(0, users, rows)
    mood, device = draw.normal(size=rows).round(4), draw.choice(DEVICES, rows)
    best = best_of(mood, device)
    every = np.full((rows, 4), (1 - loyal) / 3)
    every[np.arange(rows), best] = loyal
    shown = (every.cumsum(1) < draw.random((rows, 1))).sum(1).clip(max=3)
    clicked = draw.random(rows) < np.where(shown == best, 0.9, 0.1)
    return pl.DataFrame(
        {
            "user": [f"u{number}" for number in user],
            "item": [ITEMS[number] for number in shown],
            "clicked": clicked.astype(int),
            "propensity": every[np.arange(rows), shown],
            "context.mood": mood,
            "context.age": draw.integers(18, 80, rows),
            "context.device": device,
        }
    )


def table(path: Path, frame: pl.DataFrame) -> str:
    """Write the frame as CSV or Parquet, by the path's ending."""
    (frame.write_parquet if path.suffix == ".parquet" else frame.write_csv)(path)
    return str(path)


SHORT = [
    *("--batch-size", "32", "--gradient-steps", "5", "--hidden-dims", "16", "--lr", "0.01"),
    *("--threads", "1", "--device", "cpu"),
]
"""Options of a short run, with 160 decisions an update."""
