"""Errors of estimators on a large catalogue, over the spread of the items within their clusters.

2,000 items in 45 clusters. The logger prefers some items for no reason (``logger_sd`` of the logits), the
target policy is a softmax of the expected reward, and single items have an effect of 0.1 of their own. The
larger the spread within a cluster, the less the weight of a cluster says about its items.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.harness.evidence import of_decisions
from benchmarks.harness.turns import Row
from recsys_rl.logs.ope.clusters import by_cluster
from recsys_rl.logs.ope.estimators import ESTIMATORS
from recsys_rl.logs.ope.reward_model import cross_fit, folds_by_user, predict, ridge

ITEMS, CLUSTERS, DIM, USERS = 2000, 45, 8, 200
SHARPNESS = 5.0  # of the target's softmax
ITEM_EFFECT = 0.1


@dataclass(frozen=True)
class Shop:
    """The probability of a click is a sigmoid of user . item and of the item's own effect."""

    users: Tensor  # (U, D)
    items: Tensor  # (I, D)
    clusters: Tensor  # (I,)
    click: Tensor  # (U, I)
    logging: Tensor  # (U, I) pi_b
    target: Tensor  # (U, I) pi


def shop(spread: float, logger_sd: float, generator: torch.Generator, num_items: int = ITEMS) -> Shop:
    """A shop; ``spread`` is the norm of the difference of an item and the centre of its cluster."""

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    users = torch.nn.functional.normalize(normal(USERS, DIM), dim=1)
    centres = torch.nn.functional.normalize(normal(CLUSTERS, DIM), dim=1)
    clusters = torch.randint(CLUSTERS, (num_items,), generator=generator)
    clusters[:CLUSTERS] = torch.arange(CLUSTERS)
    items = centres[clusters] + spread / DIM**0.5 * normal(num_items, DIM)
    click = (2 * users @ items.T - 1 + ITEM_EFFECT * normal(num_items)).sigmoid()  # (U, I)
    logging = (users @ items.T + logger_sd * normal(num_items)).softmax(1)
    return Shop(users, items, clusters, click, logging, (SHARPNESS * click).softmax(1))


def estimates(made: Shop, rows: int, generator: torch.Generator) -> dict[str, float]:
    """The estimate of each estimator on one log of ``rows`` decisions."""
    who = torch.randint(len(made.users), (rows,), generator=generator)
    uniform = torch.rand(rows, generator=generator, dtype=torch.float64)
    items = torch.zeros(rows, dtype=torch.int64)  # (E,), by the inverse of each user's distribution
    below = made.logging.cumsum(1)
    for user in range(len(made.users)):
        mine = who == user
        items[mine] = torch.searchsorted(below[user], uniform[mine]).clamp_max(len(made.items) - 1)
    rewards = torch.bernoulli(made.click[who, items], generator=generator)
    weights = (made.target / made.logging)[who, items]
    # A model of user x cluster centre: what a team has that knows no single item.
    number = int(made.clusters.max()) + 1
    sums = torch.zeros(number, DIM, dtype=torch.float64).index_add_(0, made.clusters, made.items)
    centres = sums / made.clusters.bincount().unsqueeze(1)
    affinity = made.users @ centres.T  # (U, C)
    folds = folds_by_user(who, generator)
    one = torch.nn.functional.one_hot(made.clusters, number).double()  # (I, C)
    in_cluster = made.target @ one  # (U, C): the target's share of each cluster
    logged = torch.stack([affinity[who, made.clusters[items]], affinity[who, made.clusters[items]] ** 2], 1)
    models = cross_fit(ridge(), logged, rewards, folds)
    every = torch.stack([affinity[who], affinity[who] ** 2], 2)  # (E, C, 2)
    q = predict(models, every, folds)  # (E, C)
    log = of_decisions(
        weights,
        rewards,
        q.gather(1, made.clusters[items].unsqueeze(1)).squeeze(1),
        (in_cluster[who] * q).sum(1),
    )
    mine, theirs = (
        by_cluster(probabilities, made.clusters) for probabilities in (made.target, made.logging)
    )  # (U, C)
    log = replace(log, clusters=(mine / theirs)[who, made.clusters[items]])
    names = ("ips", "snips", "dr", "mips", "offcem")
    return {name: float(ESTIMATORS[name].score(log).mean()) for name in names}


def catalogue(
    rows: int, logs: int, spreads: tuple[float, ...], seed: int, num_items: int = ITEMS
) -> list[Row]:
    """For each spread and logger, the mean squared error of each estimator, also over that of ips."""
    table: list[Row] = []
    for logger_sd in (1.5, 0.5):
        for spread in spreads:
            made = shop(spread, logger_sd, torch.Generator().manual_seed(seed), num_items)
            value = float((made.target * made.click).sum(1).mean())
            errors: dict[str, list[float]] = {}
            for log in range(logs):
                generator = torch.Generator().manual_seed(1000 * seed + log)
                for name, estimate in estimates(made, rows, generator).items():
                    errors.setdefault(name, []).append((estimate - value) ** 2)
            mse = {name: sum(mine) / len(mine) for name, mine in errors.items()}
            table += [
                {"logger_sd": logger_sd, "spread": spread, "estimator": name, "mse": error}
                | {"over_ips": error / mse["ips"], "value": value, "logs": logs}
                for name, error in mse.items()
            ]
    return table
