"""Off-policy evaluation against known truths: coverage, large catalogues, and the choice of a policy.

    python -m benchmarks.ope [--only coverage|catalogue|selection] [--env satiation] [--seeds 1] [--smoke]

`coverage`: 1,000 logs of 2,000 sessions of `satiation`'s users over made-up items. Policies are
softmax(5 b profile . e) mixed with 0.2 of uniform; b = 0.5 logs and b = 1 is judged. ``covered`` counts the
nominal 95 % intervals that hold the true return. In the case `no overlap` uniform logs judge b = 2 without
mixture: ``warned`` counts the logs for which our output warns. Cases of `earlier users` have the defaults of
commit 309d4ec. ``promise`` is the kind of the interval (logs/ope/diagnostics.py): where a clip is chosen on
the log, the interval promises nothing.

`catalogue`: mean squared errors on 10,000 decisions over 2,000 items in 45 clusters, by the spread of items
within a cluster, for a logger with strong and one with mild preferences. ``over_ips`` is that over ips's.

`selection`: ten policies of --env (PPO, stopped early too, sampled and greedy; mf, mmr ...) estimated from
three logs, half random and half PPO stopped early: of 20,000 sessions of `satiation`, or 1,000 of
`short-video`. It trains PPO first.
"""

from __future__ import annotations

import torch

from benchmarks.harness import tables
from benchmarks.harness.turns import Row
from benchmarks.ope_catalogue import catalogue
from benchmarks.ope_coverage import CASES, SESSIONS, coverage
from benchmarks.ope_selection import SIZES, selection, smoke

QUESTIONS = ("coverage", "catalogue", "selection")


def main() -> None:
    parser = tables.parser(__doc__, "seeds", 1)
    parser.add_argument("--only", choices=QUESTIONS, help="one question; without it, all")
    parser.add_argument("--logs", type=int, default=1000, help="of each case of coverage")
    parser.add_argument("--env", choices=tuple(SIZES), default="satiation", help="platform of selection")
    args = tables.parse(parser, "ope")
    torch.set_num_threads(args.threads or 1)
    rows: list[Row] = []
    for seed in range(1 if args.smoke else args.seeds):
        for question in QUESTIONS:
            if args.only in (None, question):
                rows += [{"question": question, "seed": seed} | row for row in answers(question, seed, args)]
    tables.publish(rows, args)


def answers(question: str, seed: int, args: object) -> list[Row]:
    small, logs = getattr(args, "smoke", False), getattr(args, "logs", 1000)
    if question == "coverage":
        sizes = (4, 200, 20_000) if small else (logs, SESSIONS, 400_000)
        return [row for case in CASES for row in coverage(case, *sizes, seed)]
    if question == "selection":
        env = getattr(args, "env", "satiation")
        return selection(smoke(env), 1, seed, "synthetic") if small else selection(SIZES[env], 3, seed)
    if small:
        return catalogue(500, 2, (0.1,), seed, 100)
    return catalogue(10_000, 50, (0.0, 0.1, 0.2, 0.3, 0.5), seed)


if __name__ == "__main__":
    tables.run(main)
