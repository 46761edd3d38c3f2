"""Coat shopping: 290 people rated 24 coats of their own choice, and 16 that were drawn at random.

Schnabel, Swaminathan, Singh, Chandak and Joachims 2016, "Recommendations as Treatments: Debiasing Learning
and Evaluation", ICML. Non-commercial use only. This package contains none of the data, and the archive has no
published size, so it is not downloaded: give the folder of train.ascii with --data-dir.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys_rl.data.catalogue import DatasetConfig, world_of_log
from recsys_rl.data.download import cache_folder, has_member, read_member
from recsys_rl.data.log import make_log
from recsys_rl.data.read import parsing
from recsys_rl.dials import EnvConfig
from recsys_rl.protocols import Source
from recsys_rl.types import InteractionLog, UserError, World


@dataclass(frozen=True)
class Coat:
    """Ratings 1 to 5 of the same people and coats, without times; ids are rows and columns of the files."""

    chosen: InteractionLog  # coats of their own choice: missing not at random
    random: InteractionLog  # coats drawn uniformly: each pair of a user and a coat had the same probability


def load_coat(data_dir: str | Path | None = None, cache_dir: str | Path | None = None) -> Coat:
    """Load Coat from ``data_dir`` or the cache: the archive's folder, or coat.zip. Raises UserError."""
    roots = [Path(data_dir)] if data_dir is not None else [cache_folder(cache_dir)]
    places = [place for root in roots for place in (root, root / "coat", root / "coat.zip")]
    place = next((place for place in places if has_member(place, "train.ascii")), None)
    if place is None:
        raise UserError(
            f"{roots[0]} holds no Coat data: give the folder of train.ascii and test.ascii, or coat.zip "
            "(--data-dir)."
        )
    source = f"coat ({place.name})"
    return Coat(_log(place, "train.ascii", source), _log(place, "test.ascii", f"{source}, random exposures"))


def _log(place: Path, name: str, source: str) -> InteractionLog:
    with parsing(f"{source}: {name}"):
        ratings = np.loadtxt(read_member(place, name).decode("ascii").splitlines(), dtype=np.float32, ndmin=2)
        if not bool(((ratings >= 0) & (ratings <= 5)).all()):
            raise ValueError("a rating is outside 0 .. 5")
    users, items = (part.astype(np.int64) for part in np.nonzero(ratings))
    values: NDArray[np.float32] = ratings[users, items]
    titles = {item: f"coat {item}" for item in range(ratings.shape[1])}
    return make_log(users, items, None, values, source=source, titles=titles, rating_range=(1.0, 5.0))


def _make_world(config: DatasetConfig, sizes: EnvConfig, seed: int) -> World:
    return world_of_log(load_coat(config.data_dir, config.cache_dir).chosen, config, sizes, seed)


SOURCE = Source(DatasetConfig, _make_world)
