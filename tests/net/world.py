"""The files and options that the entries share."""

from __future__ import annotations

import csv
import random
from pathlib import Path

NUM_ITEMS, NUM_USERS, STEPS = 40, 60, 10
SIZES = ["--embedding-dim", "4", "--max-episode-steps", str(STEPS)]
WORLD = ["--data", "synthetic", "--num-items", str(NUM_ITEMS), "--num-users", str(NUM_USERS), *SIZES]
RUN = [
    *("--hidden-dims", "16", "--threads", "1", "--device", "cpu"),
    *("--save-interval", "3", "--eval-interval", "4"),
]
ROLLOUTS = [*RUN, "--num-envs", "16", "--n-steps", "20"]  # 320 steps an update
EPOCHS = [*ROLLOUTS, "--batch-size", "80", "--update-epochs", "2"]
PPO = [*WORLD, *EPOCHS]
LOGGED = [*RUN, "--batch-size", "32", "--gradient-steps", "10"]  # 320 decisions an update


def updates(number: int) -> list[str]:
    """The option for so many updates of 320 steps or decisions."""
    return ["--total-timesteps", str(320 * number)]


def write_plays(path: Path, days: int) -> None:
    """A log of events: three kinds of listeners, who rate items of their own kind higher."""
    draw = random.Random(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "item", "rating", "timestamp"])
        for user in range(50):
            for item in draw.sample(range(NUM_ITEMS), 20):
                day = draw.randrange(100)
                rating = draw.randint(3, 5) if user % 3 == item % 3 else draw.randint(1, 4)
                if day < days:
                    writer.writerow([f"u{user}", f"i{item}", rating, 1_600_000_000 + 86_400 * day + item])


def write_decisions(path: Path, target: Path, propensities: bool = True) -> None:
    """A team's own log of single decisions, and the probabilities of another policy on its rows."""
    draw = random.Random(1)
    with path.open("w", newline="") as log, target.open("w", newline="") as other:
        rows, judged = csv.writer(log), csv.writer(other)
        rows.writerow(["user", "item", "reward", "context.age", *(["propensity"] if propensities else [])])
        judged.writerow(["propensity"])
        for row in range(600):
            age = draw.random()
            weights = [1 + age, 1.0, 2 - age, 1.0, 0.5]
            item = draw.choices(range(5), weights)[0]
            reward = int(draw.random() < 0.1 + 0.15 * item * age)
            chance = weights[item] / sum(weights)
            rows.writerow(
                [row % 90, item, reward, f"{age:.4f}", *([f"{chance:.8f}"] if propensities else [])]
            )
            judged.writerow([f"{(item + 1) / 15:.8f}"])


def write_ratings(path: Path) -> None:
    """A whole matrix of ratings, a row for each user."""
    draw = random.Random(2)
    with path.open("w", newline="") as file:
        for _ in range(30):
            csv.writer(file).writerow([f"{draw.uniform(1, 5):.3f}" for _ in range(NUM_ITEMS)])
