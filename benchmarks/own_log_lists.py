"""`python -m benchmarks.own_log --slates`: what is learned from a log of lists of five places.

The users are made up (harness/made_lists.py), so that the expected clicks on any list are known. Each learner
has its presets, and learns from a log with the clicks of each place, and from the same log with their sum.
``way`` is the share of the way from the logger's own best lists, 0, to the best ones, 1. ``estimate`` is what
`train` prints for the drawn policy on held-out contexts, beside its truth, ``drawn``.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import newest, tables
from benchmarks.harness.made_lists import WORLDS, ListLog, first
from benchmarks.harness.turns import Row
from recsys_rl.checkpoint import load
from recsys_rl.logs.transitions import observe
from recsys_rl.make import agent_of
from recsys_rl.utils.metrics import interval

DECISIONS = 20_000
LEARNERS = ("reinforce", "bc --weighted")
LOGGED = ("places", "sum")
"""What a log has of the clicks on a list."""
KEYS = ("data", "seed", "policy", "logged")


def truth_of(checkpoint: Path, truth: Path, log: ListLog, read: Callable[..., Any]) -> dict[str, float]:
    """The expected clicks on the lists of a policy, its best ones and drawn ones."""
    made = load(checkpoint)
    obs, agent = observe(read(made, truth), made.catalogue), agent_of(made)
    ids = np.array([int(made.catalogue.id_of(row)) for row in range(made.catalogue.num_items)])
    best, drawn = (log.value(ids[agent.act(obs, greedy=greedy).items.numpy()]) for greedy in (True, False))
    return {"clicks": best, "way": log.way(best), "drawn": drawn}


def rows_of(world: str, decisions: int, seed: int, learn: Callable[..., Any], **known: Any) -> list[Row]:
    """The rows of one log. ``learn``, and ``read`` and ``verdict`` in ``known``: those of own_log.py."""
    read, verdict = known.pop("read"), known.pop("verdict")
    log = ListLog.make(WORLDS[world], decisions, seed)
    own, best = first(log.world.scores(log.checked)), log.world.best(log.checked)
    rows: list[Row] = [
        {"policy": "logger", "drawn": float(log.clicks.sum(1).mean())},
        {"policy": "logger, its best", "clicks": log.value(own), "way": 0.0},
        {"policy": "best", "clicks": log.value(best), "way": 1.0},
    ]
    for logged in LOGGED:
        for name in LEARNERS:
            with tempfile.TemporaryDirectory() as temporary:
                files = [Path(temporary) / name for name in ("log.parquet", "truth.parquet")]
                log.write(files[0], logged == "places")
                log.write_checked(files[1], logged == "places")
                checkpoint, _ = learn(Path(temporary), files[0], name, seed, True, **known)
                row: Row = {"policy": name, "logged": logged, **truth_of(checkpoint, files[1], log, read)}
                rows.append(row | verdict(checkpoint))
    return [{"data": world, "decisions": decisions, "seed": seed} | row for row in rows]


def measure(args: Any, **known: Any) -> None:
    """Publish the rows of each seed, which are written by themselves, as in own_log.py."""
    if args.csv == tables.RESULTS / "own_log.csv":
        args.csv = tables.RESULTS / "own_log_lists.csv"
    worlds, decisions = tuple(WORLDS), DECISIONS
    if args.smoke:
        worlds, decisions, args.seeds = worlds[:1], 400, [0]
        known |= {"total_timesteps": 640, "gradient_steps": 5}
    for seed in args.seeds:
        rows: list[Row] = []
        for world in worlds:
            rows += rows_of(world, decisions, seed, **known)
            said = " ".join(f"{row['policy']} {row['way']:.2f}" for row in rows[-4:])
            print(f"{world} seed {seed}: {said}", file=sys.stderr)
        tables.publish(rows, args)


def text(results: Path) -> str:
    """The table of docs/11."""
    rows = newest.read(results, "own_log_lists", KEYS)
    body = []
    for world in dict.fromkeys(row["data"] for row in rows):
        here = [row for row in rows if row["data"] == world]
        known = [_mean(here, policy, "", "clicks") for policy in ("logger, its best", "best")]
        ways = [_mean(here, name, logged, "way") for name in LEARNERS for logged in reversed(LOGGED)]
        body.append([world, *known, *ways, *(_kept(here, name) for name in LEARNERS)])
    head = ["users", "logger, its best", "best"]
    head += [f"`{name}`, {'sum' if logged == 'sum' else 'by place'}" for name in LEARNERS
             for logged in reversed(LOGGED)]  # fmt: skip
    head += [f"`{name}`, drawn" for name in LEARNERS]
    seeds = sorted({int(row["seed"]) for row in rows})
    return (
        f"{newest.table(head, body)}\n\n"
        "Expected clicks on a list of the logger and on the best list; the share of the way between the two "
        "that the policy's best lists reach, learned from the sum of the clicks and by place; the clicks on "
        "the drawn lists as a share of those on the policy's best ones, by place.\n"
        f"Means over seeds {', '.join(map(str, seeds))} with half a 95 % interval (Student's t); "
        f"`python -m benchmarks.own_log --slates`,\n{newest.origin(rows)}."
    )


def _mean(rows: Sequence[newest.Row], policy: str, logged: str, column: str) -> str:
    known = [float(row[column]) for row in rows if (row["policy"], row["logged"]) == (policy, logged)]
    if column == "clicks":
        return f"{sum(known) / len(known):.2f}"
    found = interval(torch.tensor(known))
    half = f" ± {found.high - found.mean:.2f}" if len(known) > 1 else ""
    return f"{found.mean:.2f}{half}"


def _kept(rows: Sequence[newest.Row], policy: str) -> str:
    shares = [
        float(row["drawn"]) / float(row["clicks"])
        for row in rows
        if (row["policy"], row["logged"]) == (policy, "places")
    ]
    return f"{sum(shares) / len(shares):.2f}"


def coverage(results: Path) -> str:
    """In how many logs with places the interval of ``train`` holds the truth."""
    rows = newest.read(results, "own_log_lists", KEYS)
    rows = [row for row in rows if row["logged"] == "places" and row["estimate"]]
    covered = [
        float(row["estimate_low"]) <= float(row["drawn"]) <= float(row["estimate_high"]) for row in rows
    ]
    return f"{sum(covered)} of {len(covered)}"
