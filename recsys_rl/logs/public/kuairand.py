"""The random exposures of KuaiRand (data/kuairand.py) as a log of decisions with known propensities."""

from __future__ import annotations

from pathlib import Path

import torch

from recsys_rl.data.kuairand import random_exposures
from recsys_rl.data.tables.items import catalogue_of_items
from recsys_rl.logs.decision_table import DecisionTable, by_design, single_decisions


def random_decisions(
    data_dir: str | Path | None = None, cache_dir: str | Path | None = None
) -> DecisionTable:
    """The random exposures of ``load_kuairand`` as decisions, rewarded by the click.

    Each video of the pool had the same chance, so the propensity is 1 / (number of videos in this log).
    Rows are ordered by user, time and video. Raises UserError.
    """
    log, facts = random_exposures(data_dir, cache_dir)
    ids = log.item_ids.tolist()
    number, rows = len(ids), len(log.items)
    shares = log.items.bincount(minlength=number).float() / rows
    return single_decisions(
        log.users,
        log.items,
        log.ratings,
        torch.full((rows,), 1 / number, dtype=torch.float64),
        signal="click",
        logger=by_design(number, "videos"),
        catalogue=catalogue_of_items(ids, facts, shares, log.source),
        ids=[str(id_) for id_ in ids],
        times=log.times,
    )
