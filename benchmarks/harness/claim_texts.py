"""The first table of README.md, and its table of claims, from the newest rows of learning.csv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.harness.learning_texts import WORDS, Runs, platform
from benchmarks.harness.newest import table
from recsys_rl.utils.metrics import interval

CLAIMED = ("satiation", "short-video", "long-video")
RIVALS = ("rule", "searched", "expert")


def first_rows(results: Path) -> str:
    """The rows of `satiation` that matter most.

    The learned policy, the yardstick, the ranking by profile, one row that looks at the next reward alone,
    and the planner.
    """
    runs = Runs(results, "satiation")
    return platform(
        results, "satiation", policies=(runs.learned, runs.yardstick, "mf", "ranker-greedy", "planner")
    )


def claims(results: Path, tasks: Sequence[str] = CLAIMED) -> str:
    """What greedy PPO gains over each rival that was measured: mean, 95 % interval and worst seed."""
    by_task = {task: Runs(results, task) for task in tasks}
    known = [name for name in RIVALS if any(name in runs.policies for runs in by_task.values())]
    body = [[f"`{task}`", *(_gain(runs, name) for name in known)] for task, runs in by_task.items()]
    counts = {len(runs.seeds) for runs in by_task.values()}
    seeds = " or ".join(WORDS[count] for count in sorted(counts))
    head = ["platform", *(f"PPO over `{name}`" for name in known)]
    return (
        f"{table(head, body)}\n\nReturn of the greedy policy on {seeds} seeds; intervals (95 %) over seeds."
    )


def _gain(runs: Runs, rival: str) -> str:
    """``+22 % (18 to 27), worst seed +18 %``; empty if the platform has no such row."""
    if rival not in runs.policies:
        return ""
    ours, theirs = (torch.tensor(runs.values(name), dtype=torch.float64) for name in (runs.learned, rival))
    gains = 100 * (ours / theirs - 1)  # (seeds,)
    found = interval(gains)
    return f"{found.mean:+.0f} % ({found.low:.0f} to {found.high:.0f}), worst seed {gains.min():+.0f} %"
