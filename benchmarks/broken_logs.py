"""How often is a right log called broken, and how often is a wrong one found?

    python -m benchmarks.broken_logs [--only weights trained] [--runs 40]

`weights`: logs of 20,000 and of 50,000 single decisions of users in eight segments, four decisions a user.
Loggers are uniform, mild and sharp (a softmax over scores of the segment's items, a tenth of the draws
uniform). A fifth of the users are held out. Five policies learn from the others, in closed form: a clone of
the logger (counts of the segment, shrunk to the shares of all), a policy by the shares of all, one by the
estimated return of each item, the best item of each segment, and the best item alone. The weights on the
held-out side are judged by `recsys_rl.logs.ope.verdict`; a log counts as broken if the verdict on any of
these policies says so. Its propensities are right, 1.1 or .9 times as large as they should be, or one
constant for all decisions (no uniform logger's, whose constant is right). `leak` is the right log where the
shares are those of all decisions, the held-out ones included.

`trained`: the same question for whole runs of `recsys-rl train --algo bc` on right logs of 20,000 decisions
whose items have features, with the mean weight of the clone.

Everything is drawn by the run's number. Rows are appended to benchmarks/results/broken_logs.csv.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from benchmarks.harness import newest, tables
from benchmarks.harness.turns import Row
from recsys_rl.logs.ope.answer import BROKEN
from recsys_rl.logs.ope.diagnostics import weigh
from recsys_rl.logs.ope.result import LOGGED, Estimate
from recsys_rl.logs.ope.verdict import Estimates, verdict_on
from recsys_rl.training.train import train

ITEMS, ROWS = (8, 160, 2_000, 5_000), (20_000, 50_000)
LOGGERS = {"uniform": 0.0, "mild": 1.0, "sharp": 2.5}
SEGMENTS, EACH, HELDOUT, RATE = 8, 4, 0.2, 0.05
KINDS = ("right", "leak", "x 1.1", "x 0.9", "constant")
SHRINK = 50.0  # decisions as which the shares of all segments count in the clone of one


@dataclass(frozen=True)
class Log:
    """Decisions in their order, and those of held-out users."""

    users: Tensor  # (E,) int64
    segments: Tensor  # (E,) int64
    items: Tensor  # (E,) int64
    clicks: Tensor  # (E,) float64
    propensities: Tensor  # (E,) float64, as they are logged
    heldout: Tensor  # (E,) bool
    number: int  # I

    def rows(self, at: Tensor) -> Log:
        parts = {name: values[at] for name, values in vars(self).items() if isinstance(values, Tensor)}
        return Log(**parts, number=self.number)


def log_of(rows: int, items: int, logger: str, seed: int) -> Log:
    """A right log."""
    noise = torch.Generator().manual_seed(seed)
    users = torch.arange(rows) // EACH
    segments = torch.randint(SEGMENTS, (int(users[-1]) + 1,), generator=noise)[users]
    scores = LOGGERS[logger] * torch.randn(SEGMENTS, items, generator=noise, dtype=torch.float64)
    chances = 0.9 * scores.softmax(1) + 0.1 / items
    rates = RATE * torch.randn(SEGMENTS, items, generator=noise, dtype=torch.float64).exp().clamp(max=10)
    drawn = torch.empty(rows, dtype=torch.int64)
    for segment in range(SEGMENTS):
        mine = segments == segment
        drawn[mine] = torch.multinomial(chances[segment], int(mine.sum()), replacement=True, generator=noise)
    clicks = torch.rand(rows, generator=noise, dtype=torch.float64) < rates[segments, drawn]
    heldout = (torch.rand(int(users[-1]) + 1, generator=noise) < HELDOUT)[users]
    return Log(users, segments, drawn, clicks.double(), chances[segments, drawn], heldout, items)


def wrong(log: Log, kind: str) -> Log:
    """The log with its propensities as they are logged."""
    factors = {"x 1.1": 1.1, "x 0.9": 0.9}
    if kind == "constant":
        return replace(log, propensities=torch.full_like(log.propensities, 1 / log.number))
    return replace(log, propensities=(log.propensities * factors.get(kind, 1.0)).clamp(max=1))


def policies(log: Log, leak: bool) -> Iterator[tuple[str, Tensor]]:
    """Names, and probabilities (SEGMENTS, I) of each item, of policies that learn from the training side."""
    learned = log.rows(~log.heldout)
    at = learned.segments * log.number + learned.items

    def sums(values: Tensor) -> Tensor:
        return torch.bincount(at, values, SEGMENTS * log.number).view(SEGMENTS, log.number)

    counts = sums(torch.ones_like(learned.clicks))
    shares = torch.bincount((log if leak else learned).items, minlength=log.number).double() + 0.5
    clone = counts + SHRINK * shares / shares.sum()
    yield "clone", clone / clone.sum(1, keepdim=True)
    yield "popularity", (shares / shares.sum()).expand(SEGMENTS, -1)
    size = torch.bincount(learned.segments, minlength=SEGMENTS).unsqueeze(1)
    values = sums(learned.clicks / learned.propensities) / size + learned.clicks.mean() / 2
    yield "by value", values / values.sum(1, keepdim=True)
    yield "greedy", one_hot(values)
    yield "best item", one_hot(values.sum(0)).expand(SEGMENTS, -1)


def one_hot(values: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(values.argmax(-1), values.shape[-1]).double()


def called_broken(log: Log, leak: bool = False) -> bool:
    """True if the verdict on any policy says that the log is broken."""
    judged = log.rows(log.heldout)
    terms: dict[str, dict[str, Tensor]] = {LOGGED: {"mean": judged.clicks}}
    rows = []
    for name, chances in policies(log, leak):
        weights = chances[judged.segments, judged.items] / judged.propensities
        of = weigh(weights, judged.users)
        terms[name] = {"dr": weights * judged.clicks}
        rows.append(Estimate(name, "dr", float(terms[name]["dr"].mean()), 0.0, 1.0, "student-t", of))
    logged = Estimate(LOGGED, "mean", float(judged.clicks.mean()), 0.0, 1.0, "student-t", None)
    known = Estimates([logged, *rows], terms, judged.users, len(judged.users), "dr")
    return any(verdict_on(known, row.policy).answer == BROKEN for row in rows)


def weights(runs: int, cells: Sequence[tuple[int, int]]) -> Iterator[Row]:
    """The share of logs that are called broken, for each kind of log."""
    for number, items in cells:
        found: dict[str, list[bool]] = {kind: [] for kind in KINDS}
        for logger in LOGGERS:
            for run in range(runs):
                log = log_of(number, items, logger, run)
                for kind in KINDS[: len(KINDS) - (logger == "uniform")]:
                    found[kind].append(called_broken(wrong(log, kind), kind == "leak"))
        for kind, answers in found.items():
            about = {"part": "weights", "kind": kind, "items": items, "rows": number}
            yield {**about, "logs": len(answers), "broken": statistics.mean(answers)}


def trained(runs: int, cells: Sequence[tuple[int, int]]) -> Iterator[Row]:
    """The same of whole runs on right logs, with the mean weight of `bc`."""
    for number, items in cells:
        answers, means = [], []
        for run in range(runs):
            with tempfile.TemporaryDirectory() as temporary:
                answer, mean = of_run(Path(temporary), number, items, run)
            answers.append(answer)
            means.append(mean)
        about = {"part": "trained", "kind": "right", "items": items, "rows": number}
        yield {**about, "logs": runs, "broken": statistics.mean(answers), "mean": statistics.mean(means)}


def of_run(folder: Path, number: int, items: int, run: int) -> tuple[bool, float]:
    """Whether a row of the table of `train` calls a right log broken, and the mean weight of the policy."""
    log, noise = log_of(number, items, "mild", run), np.random.default_rng(run)
    prices = noise.normal(size=(items, 2))
    path, about = folder / "log.parquet", folder / "items.csv"
    pl.DataFrame(
        {
            "user": log.users.numpy(),
            "item": log.items.numpy(),
            "click": log.clicks.numpy(),
            "propensity": log.propensities.numpy(),
            "context.segment": [f"s{segment}" for segment in log.segments.tolist()],
        }
    ).write_parquet(path)
    pl.DataFrame({"item": range(items), "price": prices[:, 0], "weight": prices[:, 1]}).write_csv(about)
    given: dict[str, Any] = {"items": str(about), "total_timesteps": 128_000, "threads": 1}
    checkpoint = train(algo="bc", log=(str(path),), folder=folder / "run", latest=False, **given)
    found = json.loads((checkpoint.parent / "ope.json").read_text(encoding="utf-8"))
    mean = next(
        row["mean_weight"] for row in found["rows"] if row["policy"] == "bc" and row["estimator"] == "ips"
    )
    return any(row["answer"] == BROKEN for row in found["verdicts"]), float(mean)


PARTS: dict[str, Callable[[int, Sequence[tuple[int, int]]], Iterator[Row]]] = {
    "weights": weights,
    "trained": trained,
}
HEADS = {
    "right": "right log",
    "leak": "right log, shares of all rows",
    "x 1.1": "p x 1.1",
    "x 0.9": "p x 0.9",
    "constant": "one constant",
}


def text(results: Path) -> str:
    """The table of docs/09: the share of logs that are called broken."""
    rows = newest.read(results, "broken_logs", ("part", "kind", "items", "rows"))
    of = {(row["kind"], row["items"], row["rows"]): row for row in rows if row["part"] == "weights"}
    lines = [
        [f"{items:,}", f"{number:,}", *(percent(of.get((kind, str(items), str(number)))) for kind in KINDS)]
        for items in ITEMS
        for number in ROWS
        if ("right", str(items), str(number)) in of
    ]
    whole = [row for row in rows if row["part"] == "trained"]
    wrong_runs = sum(round(float(row["broken"]) * int(row["logs"])) for row in whole)
    means = ", ".join(f"{float(row['mean']):.3f} ({int(row['items']):,} items)" for row in whole)
    logs = sum(int(row["logs"]) for row in rows if row["kind"] == "right" and row["part"] == "weights")
    return (
        f"{newest.table(['items', 'decisions', *HEADS.values()], lines)}\n\n"
        f"Share of logs that are called broken, %, by any of five policies; {logs:,} right logs. Of "
        f"{sum(int(row['logs']) for row in whole)} whole runs of `train` on right logs\n"
        f"{wrong_runs or 'none'} said so; mean weight of `bc`: {means}; `python -m benchmarks.broken_logs`,\n"
        f"{newest.origin(rows)}."
    )


def percent(row: newest.Row | None) -> str:
    return "" if row is None else f"{100 * float(row['broken']):.1f}"


def main() -> None:
    parser = tables.parser(__doc__, "runs", 40)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS], metavar="PART")
    args = tables.parse(parser, "broken_logs")
    torch.set_num_threads(args.threads or 1)
    cells = [(number, items) for items in ITEMS for number in ROWS]
    for name in args.only:
        runs = args.runs if name == "weights" else 2
        some = cells if name == "weights" else cells[:: len(ROWS)]
        if args.smoke:
            runs, some = 1, [(2_000, 8)]
        rows = []
        for row in PARTS[name](runs, some):
            rows.append(row)
            print(*row.values(), file=sys.stderr, flush=True)
        tables.publish(rows, args)


if __name__ == "__main__":
    tables.run(main)
