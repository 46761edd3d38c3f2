"""Promised intervals and verdicts of `ope` on logs of single decisions whose truth is known.

    python -m benchmarks.verdict_coverage [--logs 2000] [--first-seed 2000000]

500 contexts are equally likely, so that what each policy earns is exactly known. An item's chance to pay 1
depends on the context; the mean chance is 3 % or 30 %. Loggers draw uniformly, or by a softmax of what they
guess: `mild`, `sharp` and `sharper` mixed with 20, 10 and 2 % of uniform draws, a floor of their
probabilities, and `no floor` without. The policy to judge is a mixture of the best and the worst choices: all
of it (`far`), or three tenths of it and the logger (`near`). It earns .7, 1, 1.5 or 2.5 times as much as the
log, as far as the game has it. A log has 1,000, 4,000 or 16,000 rows and 10 or 100 items. Logs go through
all these cases in an order that the first seed draws.

`dr` has the reward model of `ope` for logs of a checkpoint (coefficients for each item, cross-fitted), and
the verdict is that of `recsys_rl.logs.ope.verdict`. `after` is the rule of today. `before` is the one that
was: at least 200 effective rows, a Pareto k under .5 and a mean weight of 1, and no answer without. A row of
benchmarks/results/verdict_coverage.csv counts over a part of the logs: `promised` intervals, those that hold
the truth (`covered`), and of the intervals of the difference (`covered_difference`); logs whose policy earns
at least a tenth more (`gains`), and how many of them are *better* (`found`); those whose policy earns no
more (`no_gains`), and how many of them are *better* (`wrong`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness import newest, tables
from benchmarks.harness.turns import Row
from recsys_rl.logs.ope.compare import difference, enough
from recsys_rl.logs.ope.diagnostics import FEW, HEAVY
from recsys_rl.logs.ope.item_models import of_each_item
from recsys_rl.logs.ope.lower import SingleDecisions
from recsys_rl.logs.ope.result import LOGGED
from recsys_rl.logs.ope.reward_model import cross_fit, folds_by_user, ridge
from recsys_rl.logs.ope.rows import plain_row
from recsys_rl.logs.ope.verdict import Estimates, verdict_on

CONTEXTS, FEATURES = 500, 4
LOGGERS = {
    "uniform": (0.0, 1.0),
    "mild": (1.0, 0.2),
    "sharp": (4.0, 0.1),
    "sharper": (8.0, 0.02),
    "no floor": (3.0, 0.0),
}
"""The scale of a logger's softmax, and its share of uniform draws."""
SHARES = {"near": 0.3, "far": 1.0}
"""The share of the policy's decisions that are not the logger's."""
GAINS, RATES, SIZES, ITEMS = (-0.3, 0.0, 0.5, 1.5), (0.03, 0.3), (1_000, 4_000, 16_000), (10, 100)
LEAST = 0.1
"""Share of what the log earned from which on a policy that earns more counts as a gain."""
RULES = ("before", "after")
Case = tuple[str, float, str, float, int, int]


@dataclass(frozen=True)
class Game:
    """C equally likely contexts, and what is known of them; probabilities are (C, I) float64."""

    contexts: Tensor  # (C, F) float64
    rates: Tensor  # (C, I) float64
    logging: Tensor
    policy: Tensor

    def earned(self, policy: Tensor) -> float:
        return float((policy * self.rates).sum(1).mean())

    @property
    def gain(self) -> float:
        """The difference of the policy from the logger; exactly 0 where it is rounding."""
        found = self.earned(self.policy) - self.earned(self.logging)
        return 0.0 if abs(found) < 1e-9 else found


def softmax(scores: Tensor, scale: float, floor: float) -> Tensor:
    return (1 - floor) * (scale * scores).softmax(1) + floor / scores.shape[1]


def normal(noise: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=noise, dtype=torch.float64)


def game(case: Case, noise: torch.Generator) -> Game:
    logger, rate, kind, gain, _, items = case
    contexts = normal(noise, CONTEXTS, FEATURES)
    scores = 0.6 * (contexts @ normal(noise, FEATURES, items) + normal(noise, items))
    rates = (rate * scores.exp() / scores.exp().mean()).clamp(max=0.95)
    logging = softmax((scores + normal(noise, *scores.shape)) / 2, *LOGGERS[logger])
    guess = scores + normal(noise, *scores.shape) / 2
    best, worst = softmax(guess, 6.0, 0.02), softmax(-guess, 6.0, 0.02)
    of, share = Game(contexts, rates, logging, best), SHARES[kind]
    low, now, high = of.earned(worst), of.earned(logging), of.earned(best)
    part = min(max((now + gain * now / share - low) / (high - low), 0.0), 1.0)
    return Game(contexts, rates, logging, share * (part * best + (1 - part) * worst) + (1 - share) * logging)


def reward_model(
    of: Game, at: Tensor, shown: Tensor, rewards: Tensor, folds: Tensor
) -> tuple[Tensor, Tensor]:
    """q of the logged items and v of the policy, (E,) each, by models that were fitted on other folds."""
    items = of.rates.shape[1]
    fit = of_each_item(ridge(), range(FEATURES), items)
    features = torch.cat([of.contexts[at].float(), shown[:, None].float()], 1)
    every = torch.cat(
        [
            of.contexts.float().repeat_interleave(items, 0),
            torch.arange(items).repeat(CONTEXTS)[:, None].float(),
        ],
        1,
    )
    models = cross_fit(fit, features, rewards, folds)
    q = torch.stack([model(every).view(CONTEXTS, items) for model in models])  # (folds, C, I)
    q = q.clamp(float(rewards.min()), float(rewards.max()))
    return q[folds, at, shown], (q * of.policy).sum(2)[folds, at]


@dataclass(frozen=True)
class Judged:
    """A log, its truth and what was said of it."""

    case: Case
    gain: float  # the policy's difference from the log, as a share of what the log earned
    promised: dict[str, bool]  # by each of RULES
    better: dict[str, bool]
    covered: bool  # the interval of `dr` holds the truth
    covered_difference: bool


def judge(case: Case, seed: int) -> Judged:
    """Draw a log, and judge it."""
    noise = torch.Generator().manual_seed(seed)
    of, rows = game(case, noise), case[4]
    at = torch.randint(CONTEXTS, (rows,), generator=noise)
    shown = torch.multinomial(of.logging[at], 1, generator=noise)[:, 0]
    rewards = (torch.rand(rows, generator=noise, dtype=torch.float64) < of.rates[at, shown]).double()
    logged = of.logging[at, shown]
    weights, users = of.policy[at, shown] / logged, torch.arange(rows)
    q, v = reward_model(of, at, shown, rewards, folds_by_user(users, noise))
    terms = v + weights * (rewards - q)
    mine = plain_row("mine", "dr", terms, weights=weights, residuals=rewards - q)
    paired = difference(("mine", LOGGED), "dr", terms, rewards, users, rows)
    both = (0.0, 1.0) if bool(rewards.any()) else None  # as in a log of one's own
    known = Estimates(
        [plain_row(LOGGED, "mean", rewards), mine],
        {LOGGED: {"mean": rewards}, "mine": {"dr": terms}},
        users,
        rows,
        "dr",
        single=None if both is None else SingleDecisions(rewards, both, {"mine": weights}),
        rarest=float(logged.min()),
    )
    report = mine.weights
    assert report is not None
    before = report.ess >= FEW and report.pareto_k < HEAVY and report.holds_one
    truth = of.earned(of.policy)
    return Judged(
        case,
        of.gain / of.earned(of.logging),
        {"before": before, "after": enough(mine)},
        {"before": before and paired.low > 0, "after": verdict_on(known, "mine").answer == "better"},
        mine.low <= truth <= mine.high,
        paired.low <= of.gain <= paired.high,
    )


def parts_of(case: Case) -> tuple[str, ...]:
    """The parts of the table that a log counts in."""
    logger, rate, kind, _, rows, _ = case
    return "all", f"{rate:.0%} of rewards", kind, f"logger {logger}", f"{rows:,} rows"


def counted(judged: Sequence[Judged]) -> Iterator[Row]:
    """The rows of the results."""
    columns = zip(*map(parts_of, cases()), strict=True)
    for part in dict.fromkeys(part for column in columns for part in column):
        mine = [log for log in judged if part in parts_of(log.case)]
        gains, no_gains = [log for log in mine if log.gain >= LEAST], [log for log in mine if log.gain <= 0]
        for rule in RULES if mine else ():
            promised = [log for log in mine if log.promised[rule]]
            yield {
                "part": part,
                "rule": rule,
                "logs": len(mine),
                "promised": len(promised),
                "covered": sum(log.covered for log in promised),
                "covered_difference": sum(log.covered_difference for log in promised),
                "gains": len(gains),
                "found": sum(log.better[rule] for log in gains),
                "no_gains": len(no_gains),
                "wrong": sum(log.better[rule] for log in no_gains),
            }


def cases() -> list[Case]:
    return [*product(LOGGERS, RATES, SHARES, GAINS, SIZES, ITEMS)]


def text(results: Path) -> str:
    """The table of the docs: before -> after."""
    rows = newest.read(results, "verdict_coverage")
    lines = []
    for part in dict.fromkeys(row["part"] for row in rows):
        mine = [row for row in rows if row["part"] == part]
        shares = (("promised", "logs"), ("covered", "promised"), ("found", "gains"), ("wrong", "no_gains"))
        cells = [" → ".join(_share(row[of], row[all_]) for row in mine) for of, all_ in shares]
        lines.append([part, f"{int(mine[0]['logs']):,}", *cells])
    head = [
        "logs",
        "number",
        "promised, %",
        "of these hold the truth, %",
        "gains found, %",
        "wrong *better*, %",
    ]
    after = rows[1]
    held = _share(after["covered_difference"], after["promised"])
    about = (
        f"Before → after. Where the interval of `dr` is promised, that of the difference holds the truth in "
        f"{held} %. `python -m benchmarks.verdict_coverage`, {newest.origin(rows)}."
    )
    return f"{newest.table(head, lines)}\n\n{about}"


def _share(count: str, of: str) -> str:
    return f"{100 * int(count) / int(of):.1f}" if int(of) else "-"


def main() -> None:
    parser = tables.parser(__doc__, "logs", 2_000)
    parser.add_argument(
        "--first-seed", type=int, default=2_000_000, help="of the first log; the next has one more"
    )
    args = tables.parse(parser, "verdict_coverage")
    every = cases()
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(args.first_seed)).tolist()
    judged = list[Judged]()
    for number in range(3 if args.smoke else args.logs):
        judged.append(judge(every[order[number % len(order)]], args.first_seed + number))
        if number % 100 == 99:
            print(f"{number + 1:,} logs", file=sys.stderr, flush=True)
    tables.publish([*counted(judged)], args)


if __name__ == "__main__":
    tables.run(main)
