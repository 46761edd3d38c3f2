"""Learners from three logs of `satiation`: their returns, beside a clone of the log and its own policy.

    python -m benchmarks.offline [--logs medium ...] [--algos cql ...] [--seeds 0-2] [--keep FOLDER]

The logs (harness/offline_logs.py) hold 20,000 sessions of training users each. Every learner takes 2,500
gradient steps of 128 decisions with its preset. Then its greedy policy plays one session with each held-out
user, the same noise for all policies. Differences are paired by user: to the greedy clone (``bc``), and to
the greedy policy of the log itself (``behaviour``: of `replay` the last one; `random` has none).

Each row of benchmarks/results/offline.csv is one log, policy and seed. ``--keep`` keeps logs and checkpoints
in FOLDER/seed-N, and takes those that are there. ``--cached`` runs nothing and prints the newest rows. A
learner takes 15 to 60 seconds of CPU, the logs of a seed three minutes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import newest, tables
from benchmarks.harness.offline_logs import LOGS, Logs, Sizes, make_logs
from benchmarks.harness.turns import Row
from recsys_rl.checkpoint import load
from recsys_rl.evaluation.rivals.baselines import RandomPolicy
from recsys_rl.experience.rollout import play
from recsys_rl.make import agent_of, make_env
from recsys_rl.protocols import Policy
from recsys_rl.training.train import train
from recsys_rl.utils.logger import read_log
from recsys_rl.utils.metrics import interval
from recsys_rl.utils.seeding import parse_seeds

ALGOS = ("bc", "cql", "bcq", "iql", "reinforce", "dt", "direct")
BEHAVIOUR = "behaviour"
BATCH = 128
SMOKE = Sizes(
    steps=32 * 21,
    sessions=60,
    gradient_steps=20,
    world={"data": "synthetic", "num_users": 40, "num_items": 30, "embedding_dim": 8, "hidden_dims": (16,)},
    ppo={"n_steps": 8, "num_envs": 4, "batch_size": 16},
)
VERSUS = ("bc", BEHAVIOUR)


def returns_of(checkpoint: Path, greedy: bool) -> Tensor:
    """The returns (U,) of a session with each held-out user."""
    made = load(checkpoint)
    return _played(checkpoint, agent_of(made), greedy)


def _played(checkpoint: Path, policy: Policy, greedy: bool) -> Tensor:
    made, noise = load(checkpoint), torch.Generator().manual_seed(0)
    users = made.population.heldout
    env = make_env(made.config, made.world, len(users), noise, heldout=True, training=False)
    return play(env, policy, users, greedy=greedy).returns


def behaviour_returns(logs: Logs, name: str) -> tuple[Tensor, Tensor]:
    """The returns (U,) of the policy of a log, greedy and sampled; random items have no greedy policy."""
    checkpoint = logs.behaviour(name)
    if checkpoint is not None:
        return returns_of(checkpoint, True), returns_of(checkpoint, False)
    path = logs.snapshot("medium")
    items = (load(path).catalogue.num_items,)
    returns = _played(path, RandomPolicy(items, torch.Generator().manual_seed(0)), False)
    return returns, returns


def learn(logs: Logs, name: str, algo: str, seed: int, sizes: Sizes) -> tuple[Path, float]:
    """The checkpoint of a learner and its seconds of CPU; it is trained unless the checkpoint is there."""
    folder = logs.folder / f"{algo}-{name}"
    done = folder / "done"
    if not done.exists():
        started = time.process_time()
        train(
            algo=algo,
            env="satiation",
            log=str(logs.log(name)),
            total_timesteps=sizes.gradient_steps * BATCH,
            gradient_steps=min(50, sizes.gradient_steps),
            eval_interval=0,
            seed=seed,
            folder=folder,
            quiet=True,
            **sizes.world,
        )
        done.write_text(f"{time.process_time() - started:.0f}\n")
    return folder / f"{algo}.pt", float(done.read_text())


def rows_of(logs: Logs, name: str, algos: Sequence[str], seed: int, sizes: Sizes) -> list[Row]:
    """The rows of one log and seed: the behaviour, then each learner."""
    greedy: dict[str, Tensor] = {}
    rows: list[Row] = []
    for policy in (BEHAVIOUR, *algos):
        more: dict[str, Any] = {"value_start": None, "seconds": None}
        if policy == BEHAVIOUR:
            greedy[policy], drawn = behaviour_returns(logs, name)
        else:
            path, seconds = learn(logs, name, policy, seed, sizes)
            greedy[policy], drawn = returns_of(path, True), returns_of(path, False)
            values = [
                value for _, _, what, value in read_log(path.parent / "log.csv") if what == "value_start"
            ]
            more = {"value_start": values[-1] if values else None, "seconds": seconds}
        estimate = interval(greedy[policy])
        row = {"log": name, "policy": policy, "seed": seed, "users": len(drawn)}
        row |= {"return_mean": estimate.mean, "return_low": estimate.low, "return_high": estimate.high}
        row |= {"drawn_mean": float(drawn.mean()), **more}
        for versus in VERSUS:
            known = versus in greedy and versus != policy
            difference = interval(greedy[policy] - greedy[versus]) if known else None
            for end in ("mean", "low", "high"):
                row[f"over_{versus}_{end}"] = None if difference is None else getattr(difference, end)
        print(f"{name} {policy} seed {seed}: {estimate.mean:.2f}", file=sys.stderr)
        rows.append(row)
    return rows


def summary(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A row for each log and policy: means over seeds; intervals over users of one seed, or over seeds."""
    table: list[Row] = []
    for name in LOGS:
        for policy in (BEHAVIOUR, *ALGOS):
            of_seeds = [row for row in rows if (row["log"], row["policy"]) == (name, policy)]
            if of_seeds:
                line: Row = {"log": name, "policy": policy, "seeds": len(of_seeds)}
                line |= _over_seeds(of_seeds, "return")
                for versus in VERSUS:
                    line |= _over_seeds(of_seeds, f"over_{versus}")
                for column in ("drawn_mean", "value_start", "seconds"):
                    line[column] = _mean([row[column] for row in of_seeds])
                table.append(line)
    return table


def _over_seeds(rows: Sequence[Mapping[str, Any]], name: str) -> Row:
    ends = ("mean", "low", "high")
    values = [_number(row[f"{name}_mean"]) for row in rows]
    known = [value for value in values if value is not None]
    if not known:
        return {f"{name}_{end}": None for end in ends}
    if len(known) == 1:
        (row,) = (row for row, value in zip(rows, values, strict=True) if value is not None)
        return {f"{name}_{end}": _number(row[f"{name}_{end}"]) for end in ends}
    estimate = interval(torch.tensor(known, dtype=torch.float64))
    return {f"{name}_{end}": getattr(estimate, end) for end in ends}


def _mean(values: Sequence[Any]) -> float | None:
    known = [value for value in map(_number, values) if value is not None]
    return sum(known) / len(known) if known else None


def _number(value: Any) -> float | None:
    return None if value in (None, "") else float(value)


def text(results: Path) -> str:
    """The table of docs/11, from the newest rows of the file alone."""
    rows = newest.read(results, "offline", ("log", "policy", "seed"))
    body = []
    for row in summary(rows):
        cells = [f"`{row['log']}`", row["policy"] if row["policy"] == BEHAVIOUR else f"**{row['policy']}**"]
        cells += [f"{row['return_mean']:.2f}"]
        for versus in VERSUS:
            mean, low, high = (row[f"over_{versus}_{end}"] for end in ("mean", "low", "high"))
            cells.append("" if mean is None else f"{mean:+.2f} ({low:+.2f} to {high:+.2f})")
        cells.append(f"{row['drawn_mean']:.2f}")
        cells += [
            "" if row[column] is None else f"{row[column]:.{n}f}"
            for column, n in (("value_start", 1), ("seconds", 0))
        ]
        body.append(cells)
    head = ["log", "policy", "greedy", "minus greedy bc", "minus the greedy behaviour", "drawn"]
    seeds = sorted({row["seed"] for row in rows})
    said = (
        "Returns of held-out users. "
        + ("Intervals over users" if len(seeds) == 1 else "Intervals (Student's t) over seeds")
        + f", 95 %; {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds)}; `python -m "
        f"benchmarks.offline`,\n{newest.origin(rows).replace('commit', 'commits')}."
    )
    return f"{newest.table([*head, 'value at the start', 'CPU seconds'], body)}\n\n{said}"


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--logs", nargs="+", choices=LOGS, default=list(LOGS))
    parser.add_argument("--algos", nargs="+", choices=ALGOS, default=list(ALGOS))
    parser.add_argument("--seeds", type=parse_seeds, default="0-2", help="as in 0-2 or 0,3,7 (default: 0-2)")
    parser.add_argument("--keep", type=Path, help="keep logs and checkpoints here, and take those there")
    parser.add_argument("--cached", action="store_true", help="run nothing; the newest rows of the file")
    args = tables.parse(parser, "offline")
    torch.set_num_threads(args.threads or 1)
    sizes, seeds = (SMOKE, [0]) if args.smoke else (Sizes(), args.seeds)
    algos = [algo for algo in ALGOS if algo == "bc" or algo in args.algos]  # the others are compared with it
    if args.cached:
        rows: list[Any] = list(newest.read(args.csv.parent, args.csv.stem, ("log", "policy", "seed")))
        args.csv = None
        tables.publish(summary(rows), args)
        return
    with tempfile.TemporaryDirectory() as temporary:
        rows = []
        for seed in seeds:
            logs = make_logs((args.keep or Path(temporary)) / f"seed-{seed}", seed, sizes)
            for name in args.logs:
                rows += rows_of(logs, name, algos, seed, sizes)
    tables.publish(rows, args)


if __name__ == "__main__":
    tables.run(main)
