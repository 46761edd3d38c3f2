"""`synthetic`: a world of random users and items, made without data."""

from __future__ import annotations

import numpy as np
import torch

from recsys_rl.data.catalogue import MadeUpConfig, split_by_id, unrated_items
from recsys_rl.data.embeddings import unit_rows
from recsys_rl.records import Source
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.types import Catalogue, Population, World

# Independent streams of the seed.
_ITEM_STREAM, _USER_STREAM, _POPULARITY_STREAM, _QUALITY_STREAM = 1, 2, 4, 5


def synthetic_world(
    num_items: int, num_users: int, embedding_dim: int, heldout_fraction: float, seed: int
) -> tuple[Catalogue, Population]:
    """Gaussian items and users, scaled to norm 1: a world without data.

    The policy knows each user fully: taste and profile are the same. There are no ratings, so popularity and
    quality are drawn, independent of each other and of the embeddings: ``popularity = 0.01**U(0, 1)``,
    log-uniform on 0.01..1 (a few hits, a long tail), and ``quality ~ Beta(5, 3)`` (mean 5/8, as ratings
    have). There are no genres (an (I, 0) tensor) and no year (NaN). Raises UserError if one side of the
    split is empty.
    """
    items, users = (
        unit_rows(np.random.default_rng([stream, seed]).standard_normal((count, embedding_dim)))
        for stream, count in ((_ITEM_STREAM, num_items), (_USER_STREAM, num_users))
    )
    train, heldout = split_by_id(num_users, heldout_fraction, seed, "synthetic users")
    catalogue = unrated_items(
        items,
        tuple(f"item {i}" for i in range(num_items)),
        f"synthetic: {num_items} unit-norm Gaussian items, seed {seed}",
        [_POPULARITY_STREAM, seed],
        [_QUALITY_STREAM, seed],
    )
    population = Population(
        taste=users,
        profile=users.clone(),
        user_ids=torch.arange(num_users),
        train=train,
        heldout=heldout,
    )
    return catalogue, population


def _make_world(config: MadeUpConfig, sizes: EnvConfig, seed: int) -> World:
    return World(
        *synthetic_world(
            sizes.num_items, config.num_users, sizes.embedding_dim, config.heldout_fraction, seed
        )
    )


SOURCE = Source(MadeUpConfig, _make_world, made_up=True)
