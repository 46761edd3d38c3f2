"""The returns of the newest runs of benchmarks.learning, in numbers and in words."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness.newest import every, newest, origin
from recsys_rl.evaluation import table
from recsys_rl.utils.metrics import Interval, interval

RIVALS = (*table.RIVALS, "expert")
"""Rows over which the tables have the gain of a learned policy."""
LEARNED = ("ppo-greedy", "ppo", "a2c-greedy", "a2c", "dqn-greedy", "dqn")
LABELS = {name: f"**{name}**" for name in LEARNED} | {
    "ranker-greedy": "ranker (gamma 0), greedy",
    "ranker": "ranker (gamma 0)",
    "searched": "searched (a longer linear score of all that the policy sees)",
    "searched-stock": "searched-stock (searched, with a capped stock and a hinge of user and item)",
    "rule": "rule (linear, searched)",
    "mmr": "mmr (mf, diversified)",
    "mf": "mf (profile times item)",
    "expected": "expected (what the policy's own network expects now)",
    "trade-syllabus": "trade-syllabus (the skills one after another)",
    "trade-mastery": "trade-mastery (the next skill at a belief of 0.95)",
    "trade-leitner": "trade-leitner (boxes, first what is due)",
    "trade-sm2": "trade-sm2 (SM-2, first what is due)",
    "trade-fsrs": "trade-fsrs (first what is recalled below 0.9)",
    "trade-forgetting": "trade-forgetting (nearest to being forgotten)",
    "trade-best-seller": "trade-best-seller (mf's videos, popular products)",
    "trade-also-bought": "trade-also-bought (mf's videos, products like those in the cart)",
    "trade-never-discount": "trade-never-discount (mf, at full price)",
    "trade-always-discount": "trade-always-discount (mf, at the highest discount there is)",
    "trade-up-next": "trade-up-next (most like the video that plays)",
    "trade-fresh-creators": "trade-fresh-creators (popular, no creator again)",
    "trade-fixed-load": "trade-fixed-load (mf, and ads at a fixed share)",
    "trade-ad-threshold": "trade-ad-threshold (mf, and ads that earn enough)",
    "static-list": "static-list",
    "one-item": "one-item",
    "popularity": "popularity",
    "random": "random",
    "untrained": "untrained",
    "expert": "expert (knows the equations, a few numbers searched)",
    "myopic": "myopic (sees the true next reward)",
    "credited": "credited (sees the true reward, later completion included)",
    "informed": "informed (the planner, with the profile for the taste)",
    "planner": "planner (simulates to the end)",
    "oracle": "oracle (the optimum)",
}
"""Rows in the order of the tables; others come last, under their own names."""
EFFECTS = {
    "satiation-all-effects": "all effects",
    "satiation-no-weariness": "no weariness (`satiation_strength` 0)",
    "satiation-no-catchiness": "no catchiness (`catchiness_gain` 0)",
    "satiation-no-patience-gain": "patience shifts no appeal (`patience_gain` 0)",
    "satiation-no-patience": "disappointment costs nothing (`patience_cost` 0)",
    "satiation-stranger": "a stranger (`profile_fraction` 0.2)",
    "satiation-well-known": "a well-known user (`profile_fraction` 0.99)",
}
WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class Runs:
    """The runs of a task of benchmarks.learning: each policy's values by seed; with the ``known`` values.

    They are the newest runs. Seeds that these lack are from earlier runs of the same day: seeds may be
    measured in several parts. Rows of benchmarks.learning_rows, which have no training, join the runs of
    their seed that stand before them in the file; ``alone`` has their policies.
    """

    def __init__(self, results: Path, task: str, **known: str) -> None:
        rows = every(results, "learning", task=task, **known)
        trained = [row for row in rows if row["train_seconds"]]
        last = newest(trained)
        seeds, day = {row["seed"] for row in last}, last[-1]["date"] if last else ""
        parts = newest([row for row in trained if row["date"] == day], ("seed",))
        runs = [*(row for row in parts if row["seed"] not in seeds), *last]
        self.seeds = list(dict.fromkeys(row["seed"] for row in runs))
        others = newest([row for row in rows if not row["train_seconds"]], ("seed", "policy"))
        place = {id(row): at for at, row in enumerate(rows)}
        last_of = {row["seed"]: place[id(row)] for row in runs}
        others = [row for row in others if place[id(row)] > last_of.get(row["seed"], len(rows))]
        rows = [*runs, *others]
        self.by_place = {(row["policy"], row["seed"]): row for row in rows}  # the last of each
        self.alone = list(dict.fromkeys(row["policy"] for row in others))
        given = list(dict.fromkeys(row["policy"] for row in rows))
        self.policies = sorted(given, key=lambda p: [*LABELS, *given].index(p))
        self.learned = next(filter(given.__contains__, ("dqn-greedy", "a2c-greedy")), "ppo-greedy")
        self.yardstick = self.best(table.yardsticks(given))
        self.seconds = statistics.median(float(row["train_seconds"]) for row in runs)
        self.origin = origin(rows)

    def best(self, names: Sequence[str]) -> str:
        """The name with the highest mean; the first of equals."""
        return table.best_of(names, {policy: self.mean(policy).mean for policy in self.policies})

    def values(self, policy: str, column: str = "return_mean") -> list[float]:
        cells = [self.by_place.get((policy, seed), {}).get(column, "") for seed in self.seeds]
        return [float(value) for value in cells if value]

    def mean(self, policy: str, column: str = "return_mean") -> Interval:
        return interval(vector(self.values(policy, column)))

    def share(self, policy: str = "") -> Interval:
        """The part that ``policy`` goes of the way from each seed's yardstick to the planner.

        Without a name it is the greedy learned policy.
        """
        policy = policy or self.learned
        known = self.values(policy, "share")  # of the same users, where the planner plays some alone
        if known:
            return interval(vector(known))
        ours, planner = vector(self.values(policy)), vector(self.values("planner"))
        return interval((ours - self.yardsticks()) / (planner - self.yardsticks()))

    def gain(self) -> Interval:
        """The gain of the greedy learned policy over each seed's yardstick, as a share of that."""
        return interval(vector(self.values(self.learned)) / self.yardsticks() - 1)

    def yardsticks(self) -> Tensor:
        """The return of the best simple policy of each seed."""
        names = [name for name in table.yardsticks(self.policies) if name in self.policies]
        return torch.stack([vector(self.values(name)) for name in names]).amax(0)


def vector(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def spread(estimate: Interval) -> str:
    return f"{estimate.low:.2f} – {estimate.high:.2f}"


def percent(estimate: Interval) -> str:
    return (
        f"{100 * estimate.mean:.0f} % (95 % interval {100 * estimate.low:.0f} – {100 * estimate.high:.0f} %)"
    )


def duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def seeds_of(runs: Runs) -> str:
    return f"{'seed' if len(runs.seeds) == 1 else 'seeds'} {', '.join(sorted(runs.seeds, key=int))}"
