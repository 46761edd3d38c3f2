"""Coat shopping: 290 people rated 24 coats of their own choice, and 16 that were drawn at random.

Schnabel, Swaminathan, Singh, Chandak and Joachims 2016, "Recommendations as Treatments: Debiasing Learning
and Evaluation", ICML. Non-commercial use only. This package contains none of the data, and the archive has no
published size, so it is not downloaded: give the folder of train.ascii with --data-dir.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from recsys_rl.data.catalogue import DatasetConfig, world_of_log
from recsys_rl.data.tables.events import make_log
from recsys_rl.data.tables.items import ItemFacts, catalogue_of_items
from recsys_rl.data.tables.read import parsing
from recsys_rl.logs.decision_table import DecisionTable, by_design, single_decisions
from recsys_rl.records import Source
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.types import InteractionLog, UserError, World
from recsys_rl.utils.download import cache_folder, has_member, read_member

FEATURES = ("user_features.ascii", "item_features.ascii", "item_features_map.txt")


@dataclass(frozen=True)
class Coat:
    """Ratings 1 to 5 of the same people and coats, without times; ids are rows and columns of the files."""

    chosen: InteractionLog  # coats of their own choice: missing not at random
    random: InteractionLog  # coats drawn uniformly: each pair of a user and a coat had the same probability


def load_coat(data_dir: str | Path | None = None, cache_dir: str | Path | None = None) -> Coat:
    """Load Coat from ``data_dir`` or the cache: the archive's folder, or coat.zip. Raises UserError."""
    location = find_folder(data_dir, cache_dir)
    source = f"coat ({location.name})"
    return Coat(
        _log(read_ratings(location, "train.ascii"), source),
        _log(read_ratings(location, "test.ascii"), f"{source}, random exposures"),
    )


def random_decisions(
    data_dir: str | Path | None = None, cache_dir: str | Path | None = None
) -> DecisionTable:
    """The random exposures of ``load_coat`` as decisions, rewarded by the rating, 1 to 5.

    Each coat had the same chance, so the propensity is 1 / (number of coats); coats of the user's own choice
    could be shown, too. Rows are ordered by user and coat. The features of people are the context, those of
    coats their genres, where the files stand beside the ratings. Raises UserError.
    """
    location = find_folder(data_dir, cache_dir)
    ratings = read_ratings(location, "test.ascii")
    users, items = (torch.from_numpy(numbers) for numbers in np.nonzero(ratings))
    people, names, coats = _features(location, *ratings.shape)
    number = ratings.shape[1]
    facts = ItemFacts(
        titles=_titles(number),
        genres={item: [names[k] for k in np.flatnonzero(row)] for item, row in enumerate(coats)},
    )
    shares = items.bincount(minlength=number).float() / len(items)
    source = f"coat ({location.name}, random exposures)"
    return single_decisions(
        users,
        items,
        torch.from_numpy(ratings)[users, items],
        torch.full((len(items),), 1 / number, dtype=torch.float64),
        signal="rating",
        logger=by_design(number, "coats"),
        catalogue=catalogue_of_items(range(number), facts, shares, source),
        ids=[str(item) for item in range(number)],
        context={"user": torch.from_numpy(people)[users]} if people.shape[1] else {},
    )


def find_folder(data_dir: str | Path | None, cache_dir: str | Path | None) -> Path:
    root = Path(data_dir) if data_dir is not None else cache_folder(cache_dir)
    for location in (root, root / "coat", root / "coat.zip"):
        if has_member(location, "train.ascii"):
            return location
    raise UserError(
        f"{root} holds no Coat data: give the folder of train.ascii and test.ascii, or coat.zip (--data-dir)."
    )


def read_ratings(location: Path, name: str) -> NDArray[np.float32]:
    """(U, I): 0 for a coat without a rating."""
    ratings = _matrix(location, name)
    with parsing(f"coat ({location.name}): {name}"):
        if not bool(((ratings >= 0) & (ratings <= 5)).all()):
            raise ValueError("a rating is outside 0 .. 5")
    return ratings


def _matrix(location: Path, name: str) -> NDArray[np.float32]:
    with parsing(f"coat ({location.name}): {name}"):
        lines = read_member(location, name).decode("ascii").splitlines()
        return np.loadtxt(lines, dtype=np.float32, ndmin=2)


def _features(
    location: Path, num_users: int, num_items: int
) -> tuple[NDArray[np.float32], list[str], NDArray[np.float32]]:
    """Those of people (U, F), and of coats the names (G,) and the values (I, G); F = G = 0 without files."""
    folder = location / "user_item_features" if location.is_dir() else location
    if not all(has_member(folder, name) for name in FEATURES):
        return np.zeros((num_users, 0), np.float32), [], np.zeros((num_items, 0), np.float32)
    people, coats = _matrix(folder, FEATURES[0]), _matrix(folder, FEATURES[1])
    names = read_member(folder, FEATURES[2]).decode("utf-8").split("\n")
    names = [name.strip() for name in names if name.strip()]
    if (len(people), len(coats), coats.shape[1]) != (num_users, num_items, len(names)):
        raise UserError(
            f"{folder} has not the features of {num_users} people and {num_items} coats: get it again."
        )
    return people, names, coats


def _titles(number: int) -> dict[int, str]:
    return {item: f"coat {item}" for item in range(number)}


def _log(ratings: NDArray[np.float32], source: str) -> InteractionLog:
    users, items = (numbers.astype(np.int64) for numbers in np.nonzero(ratings))
    return make_log(
        users,
        items,
        None,
        ratings[users, items],
        source=source,
        titles=_titles(ratings.shape[1]),
        rating_range=(1.0, 5.0),
    )


def _make_world(config: DatasetConfig, sizes: EnvConfig, seed: int) -> World:
    return world_of_log(load_coat(config.data_dir, config.cache_dir).chosen, config, sizes, seed)


SOURCE = Source(DatasetConfig, _make_world)
