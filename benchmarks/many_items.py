"""A team's own log of many items, with a known answer: our learners beside models of the click.

    python -m benchmarks.many_items [--items 500] [--decisions 20000] [--loggers mild sharp] [--seeds 0-4]
    python -m benchmarks.many_items --peer vowpalwabbit --python V/bin/python [as above]

The logs are made up (harness/many_items.py): contexts of 16 numbers, items with vectors, clicks by a logistic
function of both and of a quality that no vector tells. `recsys-rl train --algo ALGO --log FILE --items FILE`
learns with its presets; ``--no-features`` leaves the file of the items out, so that they are known by their
ids alone. On 2,000 other contexts the true rate of clicks of each policy is known.

The rivals (peers/click_models.py) learn from the decisions that ``train`` does not hold out: a two-tower
model of the click with early stopping, weighted classification by inverse propensity, and boosted trees. The
last two need scikit-learn. ``--peer`` adds a library to the rows of the same logs, and measures nothing else;
V is an environment with its package: vowpalwabbit (peers/vowpal_wabbit.py), or d3rlpy, which knows items by
their numbers (peers/d3rlpy_cql.py). A row of benchmarks/results/many_items.csv is one log and policy.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import newest, tables
from benchmarks.harness.classified import HELD_OUT, UNIFORM
from benchmarks.harness.many_items import ManyItems, made
from benchmarks.harness.peer_script import answer_of_peer
from benchmarks.harness.turns import Row
from benchmarks.own_log import decisions_of, probabilities_of
from benchmarks.peers.click_models import RIVALS, rivals_of
from recsys_rl.checkpoint import load
from recsys_rl.data.catalogue import split_users
from recsys_rl.logs.transitions import observe
from recsys_rl.make import agent_of
from recsys_rl.training.train import train
from recsys_rl.utils.metrics import interval
from recsys_rl.utils.seeding import parse_seeds

LEARNERS: Mapping[str, Mapping[str, Any]] = {
    "direct": {"algo": "direct"},
    "reinforce": {"algo": "reinforce"},
    "bc --weighted": {"algo": "bc", "weighted": True},
    "cql": {"algo": "cql"},
}
VW, D3RLPY = "vowpalwabbit", "d3rlpy"
PEERS: Mapping[str, tuple[str, str]] = {  # the row and the script in peers/ of a library
    VW: ("vw --cb_adf", "vowpal_wabbit.py"),
    D3RLPY: ("DiscreteCQL (d3rlpy)", "d3rlpy_cql.py"),
}
OF_PEERS = tuple(row for row, _ in PEERS.values())
POLICIES = ("best possible", "logger", "logger, its best", *RIVALS, *OF_PEERS, *LEARNERS)
KEYS = ("items", "decisions", "logger", "features", "seed", "policy")


def rows_of(
    problem: ManyItems, folder: Path, features: bool, seed: int, learners: Sequence[str], **settings: Any
) -> list[Row]:
    """The rows of one log."""
    at = np.arange(len(problem.truth))
    rows: list[Row] = [
        {"policy": "best possible", "greedy": float(problem.truth.max(1).mean())},
        {"policy": "logger", "drawn": float((problem.logger * problem.truth).sum(1).mean())},
        {"policy": "logger, its best", "greedy": float(problem.truth[at, problem.logger.argmax(1)].mean())},
    ]
    used = ~split_users(range(len(problem.contexts)), HELD_OUT, seed)
    for name, (shown, seconds) in rivals_of(problem, used, features, seed).items():
        rows.append({"policy": name, "greedy": float(problem.truth[at, shown].mean()), "seconds": seconds})
    log, truth, items = (folder / f"{name}.parquet" for name in ("log", "truth", "items"))
    problem.write(log)
    problem.write_truth(truth)
    problem.write_items(items)
    known: dict[str, Any] = {"items": str(items)} if features else {}
    for name in learners:
        started = time.process_time()
        path = train(
            log=(str(log),),
            seed=seed,
            folder=folder / name.replace(" ", ""),
            quiet=True,
            **known,
            **LEARNERS[name],
            **settings,
        )
        seconds = time.process_time() - started
        greedy, drawn = truth_of(problem, path, truth)
        rows.append({"policy": name, "greedy": greedy, "drawn": drawn, "seconds": seconds})
    return rows


def of_peer(problem: ManyItems, library: str, python: str, folder: Path, features: bool, seed: int) -> Row:
    """The row of a library, which learns from the decisions that ``train`` does not hold out."""
    policy, script = PEERS[library]
    used = ~split_users(range(len(problem.contexts)), HELD_OUT, seed)
    columns = ("contexts", "chosen", "clicks", "propensities")
    known = {name: getattr(problem, name)[used] for name in columns}
    items = problem.items if features else np.zeros((0, 0))
    np.savez(folder / "problem.npz", **known, others=problem.others, items=items, number=len(problem.items))
    script_file = tables.ROOT / "benchmarks" / "peers" / script
    seconds = answer_of_peer(python, script_file, library, folder)["seconds"]
    best = problem.truth[np.arange(len(problem.truth)), np.load(folder / "shown.npy")]
    return {"policy": policy, "greedy": float(best.mean()), "seconds": seconds}


def truth_of(problem: ManyItems, checkpoint: Path, truth: Path) -> tuple[float, float]:
    """The true rate of clicks of a policy's best items, and of its draws."""
    made_of = load(checkpoint)
    names = {name: row for row, name in enumerate(problem.names)}
    rows = np.array([names[name] for name in made_of.catalogue.item_names])  # of the problem
    of_policy = torch.from_numpy(problem.truth[:, rows])
    obs = observe(decisions_of(made_of, truth), made_of.catalogue)
    best = agent_of(made_of).act(obs, greedy=True).items  # (m, 1)
    drawn = (probabilities_of(checkpoint, truth) * of_policy).sum(1).mean()
    return float(of_policy.gather(1, best).mean()), float(drawn)


def text(results: Path) -> str:
    """The table of docs/11."""
    rows = newest.read(results, "many_items", KEYS)
    body, measured = [], {row["policy"] for row in rows}
    policies = [policy for policy in POLICIES if policy in measured]
    for log in dict.fromkeys(tuple(row[key] for key in KEYS[:4]) for row in rows):
        of_log = [row for row in rows if tuple(row[key] for key in KEYS[:4]) == log]
        found = {name: _values(of_log, name, name == "logger") for name in policies}
        drawn = _values(of_log, "direct", True)
        items, decisions, logger, features = log
        by = "vectors" if features == "True" else "ids"
        number = len({row["seed"] for row in of_log})  # a mean of fewer logs would be one of other worlds
        cells = [
            f"{sum(values) / number:.3f}" if len(values) == number else ""
            for values in (*found.values(), drawn)
        ]
        gain = _gain(of_log)
        body.append([f"{int(items):,}", f"{int(decisions):,}", logger, by, *cells, gain])
    head = ["items", "decisions", "logger", "known by"]
    head += [f"**{policy}**" if policy in LEARNERS else policy for policy in policies]
    head += ["**direct**, drawn", "direct minus two towers"]
    seeds = sorted({int(row["seed"]) for row in rows})
    given = ",".join(map(str, seeds))
    return (
        f"{newest.table(head, body)}\n\n"
        "True rate of clicks of the best items in other contexts (`logger` and *drawn*: of the draws);\n"
        f"seeds {given.replace(',', ', ')}, each a world of its own; "
        "the last column is paired, with half a 95 % interval;\n"
        f"`python -m benchmarks.many_items --seeds {given}`, {newest.origin(rows)}."
    )


def _gain(rows: Sequence[newest.Row]) -> str:
    """The mean difference, direct minus two towers, over the seeds that have both; "" without one."""
    ours, theirs = (
        {row["seed"]: float(row["greedy"]) for row in rows if row["policy"] == policy}
        for policy in ("direct", "two towers")
    )
    differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    if not differences:
        return ""
    more = interval(torch.tensor(differences))
    half = f" ± {more.high - more.mean:.3f}" if len(differences) > 2 else ""
    return f"{more.mean:+.3f}{half}"


def _values(rows: Sequence[newest.Row], policy: str, drawn: bool) -> list[float]:
    return [float(row["drawn" if drawn else "greedy"]) for row in rows if row["policy"] == policy]


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--decisions", type=int, default=20_000)
    parser.add_argument("--loggers", nargs="+", choices=UNIFORM, default=list(UNIFORM))
    parser.add_argument("--seeds", type=parse_seeds, default="0-4", help="as in 0-4 (default)")
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=list(LEARNERS))
    parser.add_argument("--no-features", action="store_true", help="items are known by their ids alone")
    parser.add_argument("--peer", choices=PEERS, help="a library, for its rows alone")
    parser.add_argument("--python", help="of an environment with the library of --peer")
    args = tables.parse(parser, "many_items")
    torch.set_num_threads(args.threads or 1)
    settings: dict[str, Any] = {}
    if args.smoke:
        args.items, args.decisions, args.seeds, args.loggers = 20, 400, [2], ["mild"]
        settings = {"total_timesteps": 640, "gradient_steps": 5}
    for seed in args.seeds:
        for logger in args.loggers:
            problem = made(args.items, args.decisions, logger, seed)
            with tempfile.TemporaryDirectory() as name:
                folder, features = Path(name), not args.no_features
                if args.peer:
                    python = args.python or sys.executable
                    found = [of_peer(problem, args.peer, python, folder, features, seed)]
                else:
                    found = rows_of(problem, folder, features, seed, args.learners, **settings)
            about: Row = {"items": args.items, "decisions": args.decisions, "logger": logger}
            about |= {"features": features, "seed": seed}
            tables.publish([about | row for row in found], args)
            said = " ".join(f"{row['policy']} {row.get('greedy', row.get('drawn', 0)):.3f}" for row in found)
            print(f"{args.items} items {logger} seed {seed}: {said}", file=sys.stderr)


if __name__ == "__main__":
    tables.run(main)
