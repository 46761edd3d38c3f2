"""Tables and words on returns, of README.md and docs/, from the results of benchmarks.learning."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from benchmarks.harness.newest import read, table
from benchmarks.harness.returns import (
    EFFECTS,
    LABELS,
    LEARNED,
    RIVALS,
    WORDS,
    Runs,
    duration,
    percent,
    seeds_of,
    spread,
    vector,
)
from recsys_rl.records import TRADE
from recsys_rl.utils.metrics import interval

MORE = {"length_mean": ("session length", "{:.1f}"), "distinct_mean": ("distinct", "{:.1f}"),
        "coverage": ("coverage", "{:.0%}")}  # fmt: skip
RULE_BESIDE_SEARCHED = "rule (linear, seven weights, searched)"
OTHER_LABELS = {
    "short-video": {"planner": "planner (simulates 10 of 200 steps, then extrapolates)"},
}
"""Rows of a task with another name than in LABELS."""
EFFECT_ROWS = ("mf", "rule", "searched", "ppo-greedy", "informed", "planner")
CLAIMS = ("make-train", "short-video", "long-video", "social-feed", "tutor", "shop")
"""The tasks of the table of claims, which has those that were run."""
SHOWN = {"make-train": "satiation"}
"""The platforms of tasks with another name."""
DRAWN = ("tutor",)
"""Those of them with a second row, of the policy that draws, as its most probable items earn less."""
GAINS, COSTS = (1, 2, 3), (0.25, 0.5)
OWN = (3, 0.5)
"""The settings catchiness_gain and patience_cost of the table of sensitivity, and the platform's own."""
SENSITIVE = {
    (0, 0.5): "satiation-no-catchiness",
    **{(gain, cost): f"satiation-catchiness-{gain:g}-cost-{cost:g}" for gain in GAINS for cost in COSTS},
    (3, 0): "satiation-no-patience",
    OWN: "satiation-all-effects",
}
"""The task of each pair of settings. Some are rows of the table of effects, too."""
FIRST = "make-train"
"""The task whose runs are those of `make train`."""
FIRST_ROWS = {
    "mf": "matrix factorisation: the movies nearest to the user's taste, best first",
    "searched": "a linear score of all that PPO sees, its weights found by as many trials in the simulator",
    "ppo-greedy": "**PPO**",
    "expert": "a formula by somebody who knows the simulator's equations, which nobody knows of real users",
}
FIRST_GAINS = {"searched": "linear score", "expert": "formula"}
SHORT = ("ppo-greedy", "searched", "rule", "mf", "random", "expert", "informed", "planner")
"""The rows of a table that stands before the rows are defined."""
SENSITIVE_ROWS = ("mf", "rule", "searched", "ppo-greedy", "planner")


def first_rows(results: Path) -> str:
    """What `make train` prints, in rows whose names need no explanation, beside `expert`, and what PPO gains.

    Of several seeds: means, and the lowest and the highest run. Of one seed: the interval over its users.
    """
    runs = Runs(results, FIRST)
    several, body = len(runs.seeds) > 1, []
    for policy, label in FIRST_ROWS.items():
        low, high = (
            runs.values(policy, "return_mean" if several else f"return_{end}") for end in ("low", "high")
        )
        bold = "**" if policy == runs.learned else ""
        length = statistics.mean(runs.values(policy, "length_mean"))
        cells = (
            f"{bold}{runs.mean(policy).mean:.2f}{bold}",
            f"{min(low):.2f} – {max(high):.2f}",
            f"{length:.1f}",
        )
        body.append([label, *cells])
    width = "the single runs" if several else "95 % interval"
    head = ["who chooses the movies", "return of a session", width, "movies until the user leaves"]
    ours = vector(runs.values(runs.learned))
    gains = [
        f"{more_or_less(ours, vector(runs.values(rival)))} than the {words}"
        for rival, words in FIRST_GAINS.items()
    ]
    means = f"Means over {WORDS[len(runs.seeds)]} seeds of `make train`" if several else "`make train`"
    return (
        f"{table(head, body)}\n\nPPO earns {' and '.join(gains)}. {means}, on users held out of training\n"
        "([how it was measured](docs/claims.md))."
    )


def more_or_less(ours: Tensor, theirs: Tensor) -> str:
    """The mean gain of returns (seeds,) over others on the same seeds in words, such as "3.7 % more"."""
    gain = 100 * float((ours / theirs - 1).mean())
    return f"{abs(gain):.1f} % {'less' if gain < 0 else 'more'}"


def claims(results: Path) -> str:
    """What PPO, with its most probable items, gains over `rule`, `searched` and `expert` on each platform.

    A row that the results lack has no number. Where they lack `rule`, the best rule of the trade on each seed
    stands in its place.
    """
    body, trade = [], list[str]()
    played = [task for task in CLAIMS if read(results, "learning", task=task)]
    for task in played:
        runs = Runs(results, task)
        for policy in ("ppo-greedy", "ppo") if task in DRAWN else ("ppo-greedy",):
            cells = [claim(runs, policy, rival) for rival in RIVALS]
            if runs.yardstick.startswith(TRADE) and not runs.values(RIVALS[0]):
                cells[0] = f"{gained(vector(runs.values(policy)), runs.yardsticks())} (trade)"
                trade = [*trade, task]
            body.append([f"`{SHOWN.get(task, task)}`" + (", drawn" if policy == "ppo" else ""), *cells])
    seeds = {len(Runs(results, task).seeds) for task in played}
    said = " or ".join(WORDS[number] for number in sorted(seeds))
    return (
        f"{table(['`ppo-greedy`', *(f'over `{rival}`' for rival in RIVALS)], body)}\n\n"
        f"Gain in mean return on the same held-out users, mean over {said} seeds with its 95 % interval over "
        "seeds, and the worst seed."
        + "".join(
            f" `{task}` has no profile to rank by: (trade) is over the best rule of its trade on each seed."
            for task in dict.fromkeys(trade)
        )
    )


def claim(runs: Runs, policy: str, rival: str) -> str:
    """The gain of ``policy`` over ``rival`` as text; "–" if the results lack one of them.

    The interval is over seeds, and of one seed over its users where the results have that.
    """
    ours, theirs = (vector(runs.values(name)) for name in (policy, rival))
    if len(ours) == 0 or len(ours) != len(theirs):
        return "–"
    if len(ours) == 1:
        estimate = interval(100 * (ours / theirs - 1))
        ends = [runs.values(policy, f"over_{rival}_{end}") for end in ("low", "high")]
        between = " to ".join(f"{100 * end[0]:+.1f}" for end in ends) if all(ends) else ""
        return f"{estimate.mean:+.1f} %" + (f" ({between})" if between else "")
    return gained(ours, theirs)


def gained(ours: Tensor, theirs: Tensor) -> str:
    """The gain of returns (seeds,) over others on the same seeds, two or more, as text."""
    gains = 100 * (ours / theirs - 1)
    estimate = interval(gains)
    return f"{estimate.mean:+.1f} % ({estimate.low:+.1f} to {estimate.high:+.1f}), worst {gains.min():+.1f}"


def platform(results: Path, task: str, only: Sequence[str] = ()) -> str:
    """The table of a task of one platform, or ``only`` some rows of it, with the gain over the yardstick.

    The share of the way to the planner follows.
    """
    runs, body = Runs(results, task), []
    labels = LABELS | OTHER_LABELS.get(task, {})
    if "searched" in runs.policies:
        labels["rule"] = RULE_BESIDE_SEARCHED
    more = {key: shape for key, shape in MORE.items() if any(runs.values(p, key) for p in runs.policies)}
    for policy in [name for name in runs.policies if name in (only or runs.policies)]:
        estimate, bold = runs.mean(policy), "**" if policy in LEARNED else ""
        cells = [labels.get(policy, policy), f"{bold}{estimate.mean:.2f}{bold}", spread(estimate)]
        cells.append(f"{min(runs.values(policy)):.2f}")
        known = {key: runs.values(policy, key) for key in more}
        cells += [more[key][1].format(statistics.mean(v)) if v else "" for key, v in known.items()]
        body.append(cells)
    head = ["policy", "return", "95 % interval", "worst seed", *(name for name, _ in more.values())]
    said = _origin(runs, task, "seed")
    if {"rule", "planner"} <= set(runs.policies):
        said += f"\nThe yardstick is {runs.yardstick}: {runs.learned} earns {percent(runs.gain())} more"
        measured = bool(runs.values(runs.learned, "share"))
        if measured or runs.values(runs.learned, "users") == runs.values("planner", "users"):
            said += f",\nand closes {percent(runs.share())} of the way from it to the planner"
            said += ", on the users whom the planner played" if measured else ""
        said += "."
    elif runs.yardstick.startswith(TRADE):
        gains = (
            f"{name} {gained(vector(runs.values(name)), runs.yardsticks())}" for name in ("ppo", "ppo-greedy")
        )
        said += f"\nGains over the best rule of the trade on each seed: {'; '.join(gains)}."
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
        estimate, bold = runs.mean(policy), "**" if policy in LEARNED else ""
        name = f"{policy} (the same for everybody)" if policy == simple else LABELS[policy]
        share = f"{estimate.mean / optimum:.3f}" if policy != "oracle" else "1"
        body.append([name, f"{bold}{estimate.mean:.2f}{bold}", f"{bold}{share}{bold}", spread(estimate)])
    head = ["`drift`, 100,000 steps, synthetic items", "return", "share of the optimum", "95 % interval"]
    return f"{table(head, body)}\n\n{_origin(ppo, 'drift drift-a2c', 'run')}"


def _origin(runs: Runs, command: str, unit: str) -> str:
    """The sentence under a table: seeds, commands, commits, duration."""
    said = (
        f"{WORDS[len(runs.seeds)].capitalize()} seeds; intervals (Student's t) over seeds; `python -m "
        f"benchmarks.learning {command}`,\n{runs.origin}"
    )
    said += "." if runs.learned in runs.alone else f"; {duration(runs.seconds)} of training a {unit}."
    if runs.alone:
        names = " ".join(runs.alone)
        task = command.split()[0]
        said += f"\nMeasured by itself: `python -m benchmarks.learning_rows {task} --rows {names}`."
    return said


def effects(results: Path) -> str:
    """The returns of `satiation` without each effect, and with other knowledge of the users.

    Rows that were measured before those of all effects are left out.
    """
    body = []
    rows = {task: read(results, "learning", task=task) for task in EFFECTS}
    since = max((row["date"] for row in rows["satiation-all-effects"]), default="")
    known = {
        task: Runs(results, task) for task, of_task in rows.items() if of_task and of_task[0]["date"] >= since
    }
    shown = [row for row in EFFECT_ROWS if all(row in runs.policies for runs in known.values())]
    for task, runs in known.items():
        returns = [f"{runs.mean(policy).mean:.2f}" for policy in shown]
        gain, share = 100 * runs.gain().mean, 100 * runs.share().mean
        body.append([EFFECTS[task], *returns, f"{gain:+.0f} %", f"{share:.0f} %"])
    head = ["", *shown, "PPO over the yardstick", "share of the way to the planner"]
    origins = dict.fromkeys(f"{seeds_of(runs)}, {runs.origin}" for runs in known.values())
    said = f"Each row has 600,000 steps, the searched rules as well: {'; '.join(origins)}."
    return f"{table(head, body)}\n\n{said}"


def sensitivity(results: Path) -> str:
    """PPO's gain over `rule` and over `searched` with other settings of `satiation`.

    Rows that were measured before those with the platform's own settings are left out.
    """
    body, origins = [], list[str]()
    since = max((row["date"] for row in read(results, "learning", task=SENSITIVE[OWN])), default="")
    for (gain, cost), task in sorted(SENSITIVE.items()):
        rows = read(results, "learning", task=task)
        if not rows or rows[0]["date"] < since:
            continue
        runs, own = Runs(results, task), " (own)" if (gain, cost) == OWN else ""
        returns = [f"{runs.mean(name).mean:.2f}" if runs.values(name) else "–" for name in SENSITIVE_ROWS]
        over = [claim(runs, "ppo-greedy", rival) for rival in ("rule", "searched")]
        body.append([f"{gain:g}{own}", f"{cost:g}", *returns, *over])
        origins.append(f"{seeds_of(runs)}, {runs.origin}")
    head = ["`catchiness_gain`", "`patience_cost`", *SENSITIVE_ROWS, "PPO over `rule`", "over `searched`"]
    return (
        f"{table(head, body)}\n\nHeld-out users, 600,000 steps for PPO and each search; a gain of one seed "
        f"has its 95 % interval over users: {'; '.join(dict.fromkeys(origins))}."
    )


def gain_over_yardstick(results: Path, task: str = FIRST) -> str:
    return f"{100 * Runs(results, task).gain().mean:.0f} %"


def gains_by_seed(results: Path, task: str, policy: str) -> str:
    """The gain of ``policy`` over the yardstick on each seed."""
    runs = Runs(results, task)
    gains = 100 * (vector(runs.values(policy)) / runs.yardsticks() - 1)  # (seeds,)
    *most, last = (f"{gain:.0f}" for gain in gains.tolist())
    return f"{', '.join(most)} and {last} %"


def share_of_way(results: Path) -> str:
    return f"{100 * Runs(results, FIRST).share().mean:.0f} %"
