"""Does a baseline on the residual make `dr` and `ips` better? (arXiv:2405.05736, arXiv:2602.14914)

    python -m benchmarks.once.residual_baseline [--logs 200]

With x the reward (`b-ips`) or the residual r - q (`b-dr`), the terms are w (x - beta) + beta with the beta of
the smallest variance, sum (w^2 - w) x / sum (w^2 - w). The logs, the truth and the reward model are those of
``benchmarks.ope --only coverage``; ``poor`` takes half of that model. A row is a case: the squared error of
each estimator over that of another one, and how many intervals hold the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.harness import tables
from benchmarks.harness.turns import Row
from benchmarks.ope_coverage import Case, Simulator, Softmax, estimates, played
from recsys_rl.logs.ope.diagnostics import student_t, weigh
from recsys_rl.logs.ope.estimators import ESTIMATORS, Evidence, needed

UNIFORM = Softmax(0.0, uniform=1.0)
CASES = (
    Case("1 step", 20, 1, Softmax(0.5), Softmax(1.0)),
    Case("heavier weights", 50, 1, Softmax(-0.5, uniform=0.1), Softmax(1.0)),
    Case("uniform logger", 20, 1, UNIFORM, Softmax(1.0)),
    Case("uniform logger, sharp policy", 50, 1, UNIFORM, Softmax(2.0, uniform=0.05)),
    Case("near the logger", 20, 1, Softmax(0.5), Softmax(0.7)),
    Case("uniform policy", 20, 1, Softmax(1.0), UNIFORM),
)
ROWS = (500, 2000)


def with_baseline(weights: Tensor, values: Tensor) -> Tensor:
    """(N,): w (x - beta) + beta"""
    factors = weights * weights - weights
    total = float(factors.sum())
    beta = float((factors * values).sum()) / total if abs(total) > 1e-12 else 0.0
    return weights * (values - beta) + beta


def b_ips(log: Evidence) -> Tensor:
    return with_baseline(log.weights[:, 0], log.rewards[:, 0])


def b_dr(log: Evidence) -> Tensor:
    return needed(log.v)[:, 0] + with_baseline(log.weights[:, 0], log.residual[:, 0])


def poor(log: Evidence) -> Evidence:
    return replace(log, q=needed(log.q) / 2, v=needed(log.v) / 2)


SCORES: Mapping[str, Callable[[Evidence], Tensor]] = {
    **{name: ESTIMATORS[name].score for name in ("ips", "snips", "dr", "sndr")},
    "b-ips": b_ips,
    "b-dr": b_dr,
    "dr, poor": lambda log: ESTIMATORS["dr"].score(poor(log)),
    "b-dr, poor": lambda log: b_dr(poor(log)),
}
PAIRS = (("b-dr", "dr"), ("sndr", "dr"), ("b-dr, poor", "dr, poor"), ("b-ips", "ips"), ("snips", "ips"))


def row_of(case: Case, rows: int, logs: int, truth_sessions: int) -> Row:
    simulator = Simulator(case.num_items, case.steps)
    truth = simulator.value(case.judged, truth_sessions, torch.Generator().manual_seed(10_000))
    errors = dict.fromkeys(SCORES, 0.0)
    covered = dict.fromkeys(SCORES, 0)
    sizes = []
    for number, log in enumerate(played(simulator, case, logs, rows, 0)):
        found = estimates(log, torch.Generator().manual_seed(number))
        sizes.append(weigh(found.weights[:, 0]).ess)
        for name, score in SCORES.items():
            terms = score(found)
            low, high = student_t(terms)
            errors[name] += (float(terms.mean()) - truth) ** 2
            covered[name] += low <= truth <= high
    ratios = {f"{first} over {other}": errors[first] / errors[other] for first, other in PAIRS}
    held = {f"held, {name}": covered[name] for name in ("dr", "b-dr", "ips", "b-ips")}
    return {"case": case.name, "rows": rows, "ess": float(torch.tensor(sizes).median())} | ratios | held


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--logs", type=int, default=200, help="of each case")
    args = tables.parse(parser, "residual_baseline")
    args.csv = None
    cases, rows, logs, sessions = (
        (CASES[:1], (200,), 4, 20_000) if args.smoke else (CASES, ROWS, args.logs, 400_000)
    )
    torch.set_num_threads(args.threads or 1)
    tables.publish([row_of(case, number, logs, sessions) for case in cases for number in rows], args)


if __name__ == "__main__":
    tables.run(main)
