"""Open Bandit Dataset: fashion items shown by a random policy and by Thompson sampling, with propensities.

Saito, Aihara, Matsutani and Narita 2021, "Open Bandit Dataset and Pipeline: Towards Realistic and
Reproducible Off-Policy Evaluation", NeurIPS Datasets and Benchmarks, arXiv:2008.07146. Its terms stand on
https://research.zozo.com/data.html; the small version is part of the authors' repository (Apache 2.0).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys_rl.data.tables.items import ItemFacts, catalogue_of_items
from recsys_rl.logs.decision_table import DecisionTable, by_design, single_decisions
from recsys_rl.types import UserError
from recsys_rl.utils.download import read_member

CAMPAIGNS = ("all", "men", "women")
LOGGERS = ("random", "bts")
USER_FEATURES = tuple(f"user_feature_{k}" for k in range(4))
ITEM_FEATURES = tuple(f"item_feature_{k}" for k in range(1, 4))
PLACES = 3  # left, middle, right


@dataclass(frozen=True)
class OpenBandit:
    """E impressions of one campaign by one logging policy, in the order of their times."""

    items: Tensor  # (E,) int64, 0..A-1
    positions: Tensor  # (E,) int64: 0, 1, 2 are the left, middle and right place
    clicks: Tensor  # (E,) float64: 0 or 1
    propensities: Tensor  # (E,) float64: probability of the item at this place
    times: Tensor  # (E,) int64: microseconds since 1970
    user_features: Tensor  # (E, F) float64: one-hot, the first value of each feature left out
    item_features: Tensor  # (A, G) float64: one number, and three features coded by the rank of their value
    source: str

    @property
    def num_items(self) -> int:
        """A"""
        return len(self.item_features)


def load_open_bandit(data_dir: str | Path, logger: str = "random", campaign: str = "all") -> OpenBandit:
    """One log of the small or the full dataset, unpacked in ``data_dir``.

    The log is the file ``<logger>/<campaign>/<campaign>.csv`` or ``.csv.gz``, beside it item_context.csv.
    Raises UserError if a file is missing or damaged, or if a propensity is not a probability.
    """
    if logger not in LOGGERS or campaign not in CAMPAIGNS:
        raise UserError(
            f"Open Bandit has no log {logger}/{campaign}: choose a logger of {', '.join(LOGGERS)} and a "
            f"campaign of {', '.join(CAMPAIGNS)}."
        )
    folder = Path(data_dir) / logger / campaign
    if not folder.is_dir():
        raise UserError(
            f"{data_dir} has no folder {logger}/{campaign}: give the folder of Open Bandit's data."
        )
    name = f"{campaign}.csv"
    columns = ["timestamp", "item_id", "position", "click", "propensity_score", *USER_FEATURES]
    frame = _table(folder, name, columns)
    # Rows of one request have the same time; the order of the file decides between them.
    frame = frame.sort("timestamp", maintain_order=True)
    items = _table(folder, "item_context.csv", ["item_id", "item_feature_0", *ITEM_FEATURES]).sort("item_id")
    rows, number = f"{folder / name}", len(items)
    _check(frame, number, rows)
    codes = [items[column].rank("dense").to_numpy() - 1 for column in ITEM_FEATURES]
    return OpenBandit(
        items=torch.from_numpy(frame["item_id"].to_numpy().astype(np.int64)),
        positions=torch.from_numpy(frame["position"].to_numpy().astype(np.int64) - 1),
        clicks=torch.from_numpy(frame["click"].to_numpy().astype(np.float64)),
        propensities=torch.from_numpy(frame["propensity_score"].to_numpy().astype(np.float64)),
        times=torch.from_numpy(frame["timestamp"].dt.epoch("us").to_numpy().astype(np.int64)),
        user_features=one_hot(frame, USER_FEATURES),
        item_features=torch.from_numpy(
            np.stack([*codes, items["item_feature_0"].to_numpy()], 1).astype(np.float64)
        ),
        source=f"open bandit ({logger}/{campaign}, {len(frame):,} rows)",
    )


def open_bandit_decisions(data_dir: str | Path | None, cache_dir: str | Path | None = None) -> DecisionTable:
    """The impressions as decisions of one item each; the place and the user's features are the context.

    ``data_dir``: the folder of the dataset, whose log random/all is read, or the folder of one log, such as
    bts/men. The propensity is that of the item at this place. Rows with the same time are one request, and
    count as one user, as the dataset has no ids of users. Nothing is downloaded, so ``cache_dir`` has no
    effect. Raises UserError.
    """
    if data_dir is None:
        raise UserError(
            "Open Bandit is not downloaded: give its folder with --data-dir, the folder obd of the authors' "
            "repository zr-obp (the small version) or the unpacked open_bandit_dataset.zip (the full one)."
        )
    root, logger, campaign = Path(data_dir), "random", "all"
    if (root / "item_context.csv").is_file():
        folder = root.resolve()
        root, logger, campaign = folder.parents[1], folder.parent.name, folder.name
    log = load_open_bandit(root, logger, campaign)
    number, features = log.num_items, log.item_features
    classes = {
        name: {item: f"class {int(code)}" for item, code in enumerate(features[:, k].tolist())}
        for k, name in enumerate(ITEM_FEATURES)
    }
    facts = ItemFacts(attributes=classes | {"item_feature_0": dict(enumerate(features[:, -1].tolist()))})
    shares = log.items.bincount(minlength=number).float() / len(log.items)
    uniform = logger == "random" and bool((log.propensities * number - 1).abs().max() < 1e-3)
    design = by_design(number, "items at each place")
    return single_decisions(
        log.times.unique(return_inverse=True)[1],
        log.items,
        log.clicks,
        log.propensities,
        signal="click",
        logger=design if uniform else f"{logger} (propensities of the file)",
        catalogue=catalogue_of_items(range(number), facts, shares, log.source),
        ids=[str(item) for item in range(number)],
        times=log.times,
        context={
            "place": torch.nn.functional.one_hot(log.positions, PLACES),
            "user": log.user_features,
        },
    )


def one_hot(frame: pl.DataFrame, columns: Sequence[str]) -> Tensor:
    """(E, F) float64: one column for each value of each feature but the first in the order of the values."""
    parts = []
    for column in columns:
        code = frame[column].fill_null("").rank("dense").to_numpy().astype(np.int64) - 1
        parts.append(np.eye(int(code.max()) + 1)[code][:, 1:])
    return torch.from_numpy(np.concatenate(parts, 1))


def _table(folder: Path, name: str, columns: Sequence[str]) -> pl.DataFrame:
    raw = read_member(folder, name)
    try:
        frame = pl.read_csv(io.BytesIO(raw), columns=list(columns))
        if "timestamp" in columns:
            frame = frame.with_columns(pl.col("timestamp").str.to_datetime(time_unit="us", time_zone="UTC"))
    except (pl.exceptions.PolarsError, ValueError) as error:
        reason = str(error).split("\n", 1)[0]
        raise UserError(f"{folder / name} is not a file of Open Bandit ({reason}): get it again.") from error
    if not len(frame):
        raise UserError(f"{folder / name} has no rows: get it again.")
    return frame


def _check(frame: pl.DataFrame, number: int, where: str) -> None:
    checks = {
        f"an item outside 0..{number - 1}": ~pl.col("item_id").is_between(0, number - 1),
        "a position outside 1..3": ~pl.col("position").is_between(1, 3),
        "a click that is not 0 or 1": ~pl.col("click").is_in([0, 1]),
        "a propensity outside (0, 1]": ~(
            (pl.col("propensity_score") > 0) & (pl.col("propensity_score") <= 1)
        ),
    }
    for complaint, wrong in checks.items():
        rows = frame.filter(wrong.fill_null(True))  # a missing value fits no range
        if len(rows):
            raise UserError(f"{where} has {complaint} in {len(rows)} rows: get the file again.")
