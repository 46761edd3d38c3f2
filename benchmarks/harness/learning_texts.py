"""Tables and words on returns, of README.md and docs/, from the newest rows of learning.csv."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness.newest import read, table
from recsys_rl.evaluation.table import best_of, yardsticks
from recsys_rl.utils.metrics import Interval, interval

LEARNED = ("ppo-greedy", "ppo", "a2c-greedy", "a2c", "dqn-greedy", "dqn")
LABELS = {name: f"**{name}**" for name in LEARNED} | {
    "ranker-greedy": "ranker (gamma 0), greedy",
    "ranker": "ranker (gamma 0)",
    "searched": "searched (linear forms of all that the policy sees)",
    "rule": "rule (linear, searched)",
    "mmr": "mmr (mf, diversified)",
    "mf": "mf (profile times item)",
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
MORE = {"length_mean": ("session length", "{:.1f}"), "distinct_mean": ("distinct", "{:.1f}"),
        "coverage": ("coverage", "{:.0%}")}  # fmt: skip
WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


RULE_BESIDE_SEARCHED = "rule (linear, seven weights, searched)"
OTHER_LABELS = {
    "short-video": {"planner": "planner (simulates 10 of 200 steps, then extrapolates)"},
}
"""Rows of a task with another name than in LABELS."""
EFFECTS = {
    "satiation-all-effects": "all effects",
    "satiation-no-weariness": "no weariness (`satiation_strength` 0)",
    "satiation-no-catchiness": "no catchiness (`catchiness_gain` 0)",
    "satiation-no-patience-gain": "patience shifts no appeal (`patience_gain` 0)",
    "satiation-no-patience": "disappointment costs nothing (`patience_cost` 0)",
    "satiation-stranger": "a stranger (`profile_fraction` 0.2)",
    "satiation-well-known": "a well-known user (`profile_fraction` 0.99)",
}
EFFECT_ROWS = ("mf", "rule", "searched", "ppo-greedy", "informed", "planner")


class Runs:
    """The runs of a task of benchmarks.learning: each policy's values by seed."""

    def __init__(self, results: Path, task: str) -> None:
        rows = read(results, "learning", task=task)
        self.by_place = {(row["policy"], row["seed"]): row for row in rows}  # the last of each
        self.seeds = list(dict.fromkeys(row["seed"] for row in rows))
        given = list(dict.fromkeys(row["policy"] for row in rows))
        self.policies = sorted(given, key=lambda p: [*LABELS, *given].index(p))
        self.learned = next(filter(given.__contains__, ("dqn-greedy", "a2c-greedy")), "ppo-greedy")
        self.yardstick = self.best(yardsticks(given))
        self.seconds = statistics.median(float(row["train_seconds"]) for row in rows)
        self.origin = f"commit {rows[0]['commit']}, {rows[0]['date']}"

    def best(self, names: Sequence[str]) -> str:
        """The name with the highest mean; the first of equals."""
        return best_of(names, {policy: self.mean(policy).mean for policy in self.policies})

    def values(self, policy: str, column: str = "return_mean") -> list[float]:
        found = [self.by_place.get((policy, seed), {}).get(column, "") for seed in self.seeds]
        return [float(value) for value in found if value]

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
        names = [name for name in yardsticks(self.policies) if name in self.policies]
        return torch.stack([vector(self.values(name)) for name in names]).amax(0)


def vector(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def origin(runs: Runs, command: str, unit: str) -> str:
    """The sentence under a table: seeds, command, commit, duration."""
    return (
        f"{WORDS[len(runs.seeds)].capitalize()} seeds; intervals (Student's t) over seeds; `python -m "
        f"benchmarks.learning {command}`,\n{runs.origin}; {duration(runs.seconds)} of training a {unit}."
    )


def spread(found: Interval) -> str:
    return f"{found.low:.2f} – {found.high:.2f}"


def percent(found: Interval) -> str:
    return f"{100 * found.mean:.0f} % (95 % interval {100 * found.low:.0f} – {100 * found.high:.0f} %)"


def duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def platform(results: Path, task: str, policies: Sequence[str] | None = None) -> str:
    """The table of a task of one platform, with the gain over the yardstick.

    The share of the way to the planner follows. With ``policies`` the table has their rows alone.
    """
    runs, body = Runs(results, task), []
    labels = LABELS | OTHER_LABELS.get(task, {})
    if "searched" in runs.policies:
        labels["rule"] = RULE_BESIDE_SEARCHED
    more = {key: shape for key, shape in MORE.items() if any(runs.values(p, key) for p in runs.policies)}
    for policy in runs.policies:
        if policies is not None and policy not in policies:
            continue
        found, bold = runs.mean(policy), "**" if policy in LEARNED else ""
        cells = [labels.get(policy, policy), f"{bold}{found.mean:.2f}{bold}", spread(found)]
        cells.append(f"{min(runs.values(policy)):.2f}")
        known = {key: runs.values(policy, key) for key in more}
        cells += [more[key][1].format(statistics.mean(v)) if v else "" for key, v in known.items()]
        body.append(cells)
    head = ["policy", "return", "95 % interval", "worst seed", *(name for name, _ in more.values())]
    said = origin(runs, task, "seed")
    if {"rule", "planner"} <= set(runs.policies):
        said += f"\nThe yardstick is {runs.yardstick}: {runs.learned} earns {percent(runs.gain())} more"
        said += f",\nand closes {percent(runs.share())} of the way from it to the planner"
        said += ", on the users whom the planner played" if runs.values(runs.learned, "share") else ""
        said += "."
    return f"{table(head, body)}\n\n{said}"


def drift(results: Path) -> str:
    ppo, a2c = Runs(results, "drift"), Runs(results, "drift-a2c")
    optimum, body = ppo.mean("oracle").mean, []
    simple = ppo.best(("one-item", "static-list", "popularity"))
    chosen = [(ppo, "ppo-greedy"), (ppo, "ppo"), (a2c, "a2c-greedy"), (a2c, "a2c")]
    chosen += [
        (ppo, p) for p in ("ranker", "rule", "mmr", "mf", simple, "random", "oracle") if p in ppo.policies
    ]
    for runs, policy in chosen:
        found, bold = runs.mean(policy), "**" if policy in LEARNED else ""
        name = f"{policy} (the same for everybody)" if policy == simple else LABELS[policy]
        share = f"{found.mean / optimum:.3f}" if policy != "oracle" else "1"
        body.append([name, f"{bold}{found.mean:.2f}{bold}", f"{bold}{share}{bold}", spread(found)])
    head = ["`drift`, 100,000 steps, synthetic items", "return", "share of the optimum", "95 % interval"]
    return f"{table(head, body)}\n\n{origin(ppo, 'drift drift-a2c', 'run')}"


DQN_ROWS = ("dqn-greedy", "dqn", "ppo-greedy", "ppo", "searched", "rule", "mf", "random")
"""The rows of ``dqn``."""
DQN_TASKS = {
    "drift": {"drift-dqn": 100_000, "drift": 100_000},
    "satiation": {
        "satiation-dqn": 600_000,
        "satiation-dqn-long": 1_800_000,
        "satiation-all-effects": 600_000,
        "satiation": 1_800_000,
    },
}
"""The tasks of ``dqn`` on each platform and their steps.

The first has the seeds, and the last the simple policies.
"""


def dqn(results: Path) -> str:
    """DQN on two catalogues, beside PPO and simple policies of the same seeds, with the steps of each."""
    body, said = [], []
    for env, steps in DQN_TASKS.items():
        known = {task: Runs(results, task) for task in steps if read(results, "learning", task=task)}
        (own, *_), last = known.values(), list(known)[-1]
        for policy in DQN_ROWS:
            for task, runs in known.items():
                places = [(policy, seed) for seed in own.seeds if (policy, seed) in runs.by_place]
                its_own = task == last if policy not in LEARNED else ("dqn" in policy) == ("dqn" in task)
                if not (places and its_own):
                    continue
                values = [float(runs.by_place[place]["return_mean"]) for place in places]
                found = interval(vector(values))
                between = spread(found) if len(values) > 1 else ""
                trained = policy in (*LEARNED, "searched", "rule")
                cells = (
                    f"{steps[task]:,}" if trained else "",
                    f"{found.mean:.2f}",
                    between,
                    f"{min(values):.2f}",
                )
                body.append([f"`{env}`", LABELS[policy], *cells])
        said.append(f"\n`{env}`: {seeds_of(own)}, {own.origin}, {duration(own.seconds)} a run")
    head = ["platform", "policy", "steps", "return", "95 % interval", "worst seed"]
    return (
        f"{table(head, body)}\n\nSteps of training, or of the search for `searched` and `rule`. Intervals "
        f"(Student's t) over seeds.{';'.join(said)}."
    )


def seeds_of(runs: Runs) -> str:
    return f"{'seed' if len(runs.seeds) == 1 else 'seeds'} {', '.join(sorted(runs.seeds, key=int))}"


def effects(results: Path) -> str:
    """The returns of `satiation` without each effect, and with other knowledge of the users.

    Rows that were measured before those of all effects are left out.
    """
    body = []
    rows = {task: read(results, "learning", task=task) for task in EFFECTS}
    since = max((row["date"] for row in rows["satiation-all-effects"]), default="")
    known = {task: Runs(results, task) for task, found in rows.items() if found and found[0]["date"] >= since}
    shown = [row for row in EFFECT_ROWS if all(row in runs.policies for runs in known.values())]
    for task, runs in known.items():
        returns = [f"{runs.mean(policy).mean:.2f}" for policy in shown]
        gain, share = 100 * runs.gain().mean, 100 * runs.share().mean
        body.append([EFFECTS[task], *returns, f"{gain:+.0f} %", f"{share:.0f} %"])
    head = ["", *shown, "PPO over the yardstick", "share of the way to the planner"]
    origins = dict.fromkeys(f"{seeds_of(runs)}, {runs.origin}" for runs in known.values())
    said = f"Each row has 600,000 steps, the searched rules as well: {'; '.join(origins)}."
    return f"{table(head, body)}\n\n{said}"


def gain_over_yardstick(results: Path, task: str = "satiation") -> str:
    return f"{100 * Runs(results, task).gain().mean:.0f} %"


def gains_by_seed(results: Path, task: str, policy: str) -> str:
    """The gain of ``policy`` over the yardstick on each seed."""
    runs = Runs(results, task)
    gains = 100 * (vector(runs.values(policy)) / runs.yardsticks() - 1)  # (seeds,)
    *most, last = (f"{gain:.0f}" for gain in gains.tolist())
    return f"{', '.join(most)} and {last} %"


def share_of_way(results: Path) -> str:
    return f"{100 * Runs(results, 'satiation').share().mean:.0f} %"
