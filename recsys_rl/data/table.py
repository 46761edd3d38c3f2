"""Your own table of item embeddings (`.npy`), with made-up users near the items. There are no ratings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recsys_rl.data.catalogue import MadeUpConfig, split_by_id, unrated_items
from recsys_rl.data.embeddings import unit_rows
from recsys_rl.data.item_table import Floats, open_table, table_sha256
from recsys_rl.errors import one_line
from recsys_rl.records import Source
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.types import Catalogue, Population, UserError, World

USER_NOISE = 0.3  # norm of the noise that is added to the sum of two items to make a user's taste
_USER_STREAM, _POPULARITY_STREAM, _QUALITY_STREAM = 13, 14, 15  # independent streams of the seed


def table_world(
    path: Path,
    *,
    num_items: int,
    num_users: int,
    embedding_dim: int,
    heldout_fraction: float,
    seed: int,
    source: str = "",
) -> tuple[Catalogue, Population]:
    """The first ``num_items`` items of the table at ``path`` (all, if it has fewer), and made-up users.

    A user is the unit vector along the sum of two random items plus a random vector of norm USER_NOISE. The
    policy knows each user fully: taste and profile are the same. Popularity and quality are drawn as in
    `synthetic`. Raises UserError if the file is not such a table, or has another embedding size.
    """
    table = open_table(path)
    if table.shape[1] != embedding_dim:
        raise UserError(
            f"{path} has embeddings of size {table.shape[1]}, but the embedding size is set to "
            f"{embedding_dim}: give --embedding-dim {table.shape[1]}."
        )
    total, embedding = len(table), table[:num_items]
    num_items = len(embedding)
    which = f"all {total}" if num_items == total else f"the first {num_items} of {total}"
    catalogue = replace(
        unrated_items(
            embedding,
            (),
            source or f"{one_line(path)}: {which} items, users made up with seed {seed}",
            [_POPULARITY_STREAM, seed],
            [_QUALITY_STREAM, seed],
        ),
        table_file=str(path.resolve()),
        table_sha256=table_sha256(path),
    )
    taste = _users_between_items(embedding, num_users, seed)
    train, heldout = split_by_id(num_users, heldout_fraction, seed, f"users made up for {path}")
    return catalogue, Population(taste, taste.clone(), torch.arange(num_users), train, heldout)


def _users_between_items(embedding: Tensor, num_users: int, seed: int) -> Tensor:
    """(U, D) unit vectors: for each user the sum of two random items and noise."""
    rng = np.random.default_rng([_USER_STREAM, seed])
    liked = torch.from_numpy(rng.integers(len(embedding), size=(num_users, 2)))
    noise = rng.standard_normal((num_users, embedding.shape[1]), dtype=np.float32)
    # The sum of two opposite items is zero; the noise still gives it a direction.
    return unit_rows(embedding[liked].sum(1).numpy() + USER_NOISE * unit(noise))


def unit(rows: Floats) -> Floats:
    scaled: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


def _make_world(config: MadeUpConfig, sizes: EnvConfig, seed: int) -> World:
    return World(
        *table_world(
            Path(config.data),
            num_items=sizes.num_items,
            num_users=config.num_users,
            embedding_dim=sizes.embedding_dim,
            heldout_fraction=config.heldout_fraction,
            seed=seed,
        )
    )


SOURCE = Source(MadeUpConfig, _make_world, made_up=True)
