"""The first table of README.md, and what PPO gains over the rows that trials in the simulator find."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness.learning_texts import WORDS, Runs, platform, seeds_of, vector
from benchmarks.harness.newest import read, table
from recsys_rl.evaluation.table import RIVALS
from recsys_rl.utils.metrics import interval

CLAIMS = ("satiation", "short-video", "long-video", "social-feed")
"""The tasks of the table of claims."""
GAINS, COSTS = (1, 2, 3), (0.25, 0.5)
OWN = (3, 0.5)
"""The dials catchiness_gain and patience_cost of the table of sensitivity, and the platform's own."""
SENSITIVE = {
    (0, 0.5): "satiation-no-catchiness",
    **{(gain, cost): f"satiation-catchiness-{gain:g}-cost-{cost:g}" for gain in GAINS for cost in COSTS},
    (3, 0): "satiation-no-patience",
    OWN: "satiation-all-effects",
}
"""The task of each pair of dials. Some are rows of the table of effects, too."""
SENSITIVE_ROWS = ("mf", "rule", "searched", "ppo-greedy", "planner")


def first_rows(results: Path) -> str:
    """The rows of `satiation` that matter most.

    The learned policy, the yardstick, the ranking by profile, one row that looks at the next reward alone,
    and the planner.
    """
    runs = Runs(results, "satiation")
    return platform(
        results, "satiation", policies=(runs.learned, runs.yardstick, "mf", "ranker-greedy", "planner")
    )


def claims(results: Path, policy: str = "ppo-greedy") -> str:
    """What ``policy`` gains over `rule`, `searched` and `expert` on each platform.

    A row that the results lack has no number.
    """
    body = []
    for task in CLAIMS:
        runs = Runs(results, task)
        body.append([f"`{task}`", *(claim(runs, policy, rival) for rival in RIVALS)])
    seeds = {len(Runs(results, task).seeds) for task in CLAIMS}
    said = " or ".join(WORDS[number] for number in sorted(seeds))
    return (
        f"{table([f'`{policy}`', *(f'over `{rival}`' for rival in RIVALS)], body)}\n\n"
        f"Gain in mean return on the same held-out users, mean over {said} seeds with its 95 % interval over "
        "seeds, and the worst seed."
    )


def claim(runs: Runs, policy: str, rival: str) -> str:
    """The gain of ``policy`` over ``rival`` as text; "–" if the results lack one of them.

    The interval is over seeds, and of one seed over its users where the results have that.
    """
    ours, theirs = (vector(runs.values(name)) for name in (policy, rival))
    if len(ours) == 0 or len(ours) != len(theirs):
        return "–"
    gains = 100 * (ours / theirs - 1)
    found = interval(gains)
    if len(gains) == 1:
        ends = [runs.values(policy, f"over_{rival}_{end}") for end in ("low", "high")]
        between = " to ".join(f"{100 * end[0]:+.1f}" for end in ends) if all(ends) else ""
        return f"{found.mean:+.1f} %" + (f" ({between})" if between else "")
    return f"{found.mean:+.1f} % ({found.low:+.1f} to {found.high:+.1f}), worst {gains.min():+.1f}"


def sensitivity(results: Path) -> str:
    """PPO's gain over `rule` and over `searched` with other dials of `satiation`.

    Rows that were measured before those with the platform's own dials are left out.
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
