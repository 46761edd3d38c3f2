"""A made-up log of decisions, as an application writes it: clicks.csv, and newer.csv of a later week.

    python examples/own_decisions.py

A news site shows one of six sections to each visitor. Old habits choose it, with some chance: sport in the
evening, politics on a desk. Whether a visitor clicks depends on their age and on the hour; nobody wrote that
down, and a policy has to find it in the clicks. README learns from this log, judges and serves the policy.
"""

from __future__ import annotations

import csv

import numpy as np

SECTIONS = ["politics", "sport", "science", "culture", "money", "travel"]


def write(path: str, rows: int, rng: np.random.Generator) -> None:
    """A row for each decision: who, what they were shown, how likely that was, and whether they clicked."""
    age, hour = rng.uniform(16, 80, rows).round(), rng.integers(0, 24, rows)
    desk, user = rng.random(rows) < 0.4, rng.integers(0, rows // 3, rows)
    habit = np.outer(hour >= 18, [0, 2, 0, 0, 0, 0]) + np.outer(desk, [1.5, 0, 0, 0, 0.5, 0])  # (rows, 6)
    drawn = np.exp(habit) / np.exp(habit).sum(1, keepdims=True)  # the probability of each section
    shown = np.array([rng.choice(6, p=p) for p in drawn])
    young, night = (80 - age) / 64, (hour >= 20) | (hour < 6)
    liking = np.stack([1 - young, 0.5 + 0 * age, young, 1 - young, ~night * 0.8, night * 1.0], 1)  # (rows, 6)
    at = np.arange(rows)
    clicked = rng.random(rows) < 0.05 + 0.3 * liking[at, shown] ** 2
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        names = ["user", "item", "propensity", "clicked", "context.age", "context.hour", "context.device"]
        table.writerow(names)
        for k in at:
            device = "desk" if desk[k] else "phone"
            chance = f"{drawn[k, shown[k]]:.6f}"
            table.writerow(
                [user[k], SECTIONS[shown[k]], chance, int(clicked[k]), int(age[k]), hour[k], device]
            )


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    write("clicks.csv", 20_000, rng)
    write("newer.csv", 5_000, rng)
    print("clicks.csv and newer.csv are written")
