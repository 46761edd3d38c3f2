"""The published off-policy table of Open Bandit's small version: relative errors of seven estimators.

    python -m benchmarks.open_bandit [--data-dir FOLDER] [--seeds 30] [--json FILE] [--csv FILE] [--smoke]

The log of the random policy (campaign `all`, 10,000 rows) evaluates Bernoulli Thompson sampling. Its true
value is the mean click of its own log, 0.0042. The table has the mean of |estimate - truth| / truth over 30
bootstrap samples of the rows, ``spread`` is its standard deviation, and ``published`` is the number of Saito
et al. 2021. The policy is 1,000,000 draws of 80 Beta variables from the published prior; the three largest
fill the three places. The reward model is one logistic regression for each place (C = 100), cross-fitted in
three folds of rows. The clip of dros is chosen by SLOPE, that of clipped-ips by
estimated mean squared error.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from benchmarks.harness import tables
from benchmarks.harness.evidence import of_decisions
from benchmarks.harness.newest import read
from benchmarks.harness.slope import by_slope
from benchmarks.harness.turns import Row
from recsys_rl.errors import UserError
from recsys_rl.logs.ope.clipping import by_error
from recsys_rl.logs.ope.diagnostics import weigh
from recsys_rl.logs.ope.estimators import ESTIMATORS, Estimator
from recsys_rl.logs.ope.reward_model import Predict, cross_fit, logistic
from recsys_rl.logs.public.open_bandit import OpenBandit, load_open_bandit

PLACES, DRAWS, FOLDS, SEED = 3, 1_000_000, 3, 12345
CLIPS = (10.0, 50.0, 100.0, 500.0, 1e3, 5e3, 1e4, float("inf"))
UNCLIPPED = ("dm", "ips", "snips", "dr", "sndr")
PUBLISHED = {
    "ips": 0.311, "snips": 0.312, "dm": 0.157, "dr": 0.292, "sndr": 0.302, "dros": 0.160,
}  # fmt: skip


def load_prior(data_dir: Path, campaign: str = "all") -> Tensor:
    """(A, 2) float64: alpha and beta of each item in the published prior of Thompson sampling."""
    file = data_dir / "prior_bts.csv"
    if not file.is_file():
        raise UserError(f"{file} does not exist: give the folder of Open Bandit's data with --data-dir.")
    frame = pl.read_csv(file).filter(pl.col("campaign") == campaign).sort("item_id")
    return torch.from_numpy(frame.select("alpha", "beta").to_numpy().astype(np.float64))


# argsort of draws theta_a ~ Beta(alpha_a, beta_a): Thompson sampling without an update
def thompson_policy(prior: Tensor, draws: int, places: int, generator: np.random.RandomState) -> Tensor:
    """(places, A) float64: how often each item is the best, the second best ... of ``draws`` draws.

    numpy's older generator, as the published table was made with it.
    """
    number = len(prior)
    count = np.zeros((places, number))
    block = max(1, min(draws, 2_000_000 // number))
    for start in range(0, draws, block):
        rows = min(block, draws - start)
        drawn = generator.beta(prior[:, 0].numpy(), prior[:, 1].numpy(), size=(rows, number))
        best = np.argpartition(drawn, number - places, axis=1)[:, number - places :]
        order = np.take_along_axis(drawn, best, 1).argsort(1)[:, ::-1]
        best = np.take_along_axis(best, order, 1)  # (rows, places), the largest first
        for index in range(places):
            count[index] += np.bincount(best[:, index], minlength=number)
    return torch.from_numpy(count / draws)


def folds_of_rows(number: int) -> Tensor:
    """(E,) int64: shuffled rows in three folds of equal size, the first ones longer by one."""
    order = np.random.RandomState(SEED).permutation(number)
    fold = np.empty(number, dtype=np.int64)
    for k, rows in enumerate(np.array_split(order, FOLDS)):
        fold[rows] = k
    return torch.from_numpy(fold)


def reward_model(log: OpenBandit, rows: Tensor, folds: Tensor) -> Tensor:
    """(E, A): the cross-fitted click rate of every item for each row at its place."""
    users, items, places = log.user_features[rows], log.items[rows], log.positions[rows]
    features = torch.cat([users, log.item_features[items]], 1)  # (E, F + G)
    clicks = log.clicks[rows]
    q = torch.zeros(len(rows), log.num_items, dtype=torch.float64)
    for index in range(PLACES):
        here = places == index
        models = cross_fit(logistic(100.0), features[here], clicks[here], folds[here])
        for fold, model in enumerate(models):
            mine = here & (folds == fold)
            q[mine] = for_every_item(model, users[mine], log.item_features)
    return q


def for_every_item(model: Predict, users: Tensor, items: Tensor) -> Tensor:
    """(B, A) predictions for B users (B, F) and A items (A, G).

    The logit is a sum of a user's and an item's part, so that B + A predictions are enough.
    """
    zero_user, zero_item = (
        users.new_zeros(len(items), users.shape[1]),
        items.new_zeros(len(users), items.shape[1]),
    )
    mine = model(torch.cat([users, zero_item], 1)).logit()  # (B,)
    theirs = model(torch.cat([zero_user, items], 1)).logit()  # (A,)
    both = model(torch.cat([users[:1], items[:1]], 1)).logit()  # the intercept is in both parts
    return (mine.unsqueeze(1) + theirs + (both - mine[0] - theirs[0])).sigmoid()


def estimates(log: OpenBandit, policy: Tensor, rows: Tensor) -> dict[str, float]:
    """Each estimator's value on the log's ``rows`` (E,); policy (places, A)."""
    items, places = log.items[rows], log.positions[rows]
    q = reward_model(log, rows, folds_of_rows(len(rows)))
    logged = of_decisions(
        weights=policy[places, items] / log.propensities[rows],
        rewards=log.clicks[rows],
        q=q.gather(1, items.unsqueeze(1)).squeeze(1),
        v=(policy[places] * q).sum(1),
    )
    by_name = {name: float(ESTIMATORS[name].score(logged).mean()) for name in UNCLIPPED}
    choices: dict[str, Callable[[Estimator], float]] = {
        "clipped-ips": lambda of: by_error(of, logged),
        "dros": lambda of: by_slope(of, logged, grid=CLIPS),
    }
    for name, choose in choices.items():
        of = ESTIMATORS[name]
        by_name[name] = float(of.clipped(logged, choose(of)).mean())
    return by_name


def errors(results: Path) -> str:
    """The mean relative errors of the published estimators."""
    rows = {row["estimator"]: row for row in read(results, "open_bandit")}
    names = [name for name in ("ips", "snips", "dm", "dr", "sndr", "dros") if name in rows]
    return ", ".join(f"{name} {float(rows[name]['relative_error']):.3f}" for name in names)


def weights(results: Path) -> str:
    """The mean weight and the effective sample size."""
    row = next(row for row in read(results, "open_bandit") if row["estimator"] == "ips")
    mean, ess = float(row["mean_weight"]), float(row["ess"])
    return f"mean weight is {mean:.3f}, and the effective sample size {ess:,.0f}"


def main() -> None:
    parser = tables.parser(__doc__, "seeds", 30)
    parser.add_argument("--data-dir", type=Path, default=tables.ROOT.parent / "shared/data/open-bandit-small")
    args = tables.parse(parser, "open_bandit")
    torch.set_num_threads(args.threads or 1)
    seeds, draws = (2, 20_000) if args.smoke else (args.seeds, DRAWS)
    log = load_open_bandit(args.data_dir)
    truth = float(load_open_bandit(args.data_dir, "bts").clicks.mean())
    generator = np.random.RandomState(SEED)
    policy = thompson_policy(load_prior(args.data_dir), draws, PLACES, generator)  # (places, A)
    errors: dict[str, list[float]] = {}
    for seed in range(seeds):
        number = len(log.items)
        rows = torch.from_numpy(np.random.RandomState(seed).choice(number, size=number, replace=True))
        for name, value in estimates(log, policy, rows).items():
            errors.setdefault(name, []).append(abs(value - truth) / truth)
    weights = weigh(policy[log.positions, log.items] / log.propensities)
    table: list[Row] = []
    for name, mine in errors.items():
        row: Row = {"estimator": name, "relative_error": statistics.mean(mine)}
        row |= {"spread": statistics.pstdev(mine), "published": PUBLISHED.get(name)}
        uses = name != "dm"
        row |= {"mean_weight": weights.mean if uses else None, "ess": weights.ess if uses else None}
        table.append(row | {"largest_weight": weights.largest if uses else None})
    clicks = int(log.clicks.sum())
    tables.publish(table, args, digits=6, seeds=seeds, truth=truth)
    print(
        f"{clicks} clicks in {len(log.items):,} rows decide it all: no order of these estimators is proven."
    )


if __name__ == "__main__":
    tables.run(main)
