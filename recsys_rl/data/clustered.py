"""Worlds of many items, whose embeddings are a table on disk: made-up clusters, or anyone's own file.

Nobody has rated anything: users are made up around the items.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recsys_rl.data.catalogue import split_by_id, unrated_items
from recsys_rl.data.download import cache_folder
from recsys_rl.data.embeddings import unit_rows
from recsys_rl.data.item_table import FILE_ENDING, Floats, open_table, table_sha256, write_table
from recsys_rl.errors import one_line
from recsys_rl.types import Catalogue, Population, UserError
from recsys_rl.utils.files import write_text

SPREAD = 0.5  # norm of what sets an item of `clustered` apart from its cluster's centre, which has norm 1
USER_NOISE = 0.3  # norm of what sets a user apart from the two items that make up the taste
_FORMAT = 1  # of the cached table; raise it when the same settings would draw other items
_ROWS = 16_384  # drawn at a time; another number would draw other items
# independent streams of the one seed; data/catalogue.py has 1 to 5
_CENTRE_STREAM, _TABLE_STREAM, _USER_STREAM, _POPULARITY_STREAM, _QUALITY_STREAM = 11, 12, 13, 14, 15


def clustered_world(
    num_items: int,
    num_users: int,
    embedding_dim: int,
    heldout_fraction: float,
    seed: int,
    cache_dir: str | Path | None,
) -> tuple[Catalogue, Population]:
    """Items in round(sqrt(I)) clusters on the unit sphere, written once into the cache folder, and users.

    Centres are uniform on the sphere; an item is the unit vector along its cluster's centre plus a random
    vector of norm SPREAD, so that two items of one cluster have a cosine of about 1 / (1 + SPREAD**2) = 0.8
    and two others one of about 0. The sha256 of the file lies beside it; a damaged one is drawn again. Raises
    UserError where the folder can't be written.
    """
    key = f"{_FORMAT}-{num_items}x{embedding_dim}-{SPREAD:g}-{seed}"
    path = cache_folder(cache_dir) / f"clustered-{key}{FILE_ENDING}"
    if not _is_whole(path, (num_items, embedding_dim)):
        print(f"Drawing {num_items:,} items into {path}.", file=sys.stderr)
        write_table(path, clustered_items(num_items, embedding_dim, seed), (num_items, embedding_dim))
        write_text(_proof(path), f"{table_sha256(path)}  {path.name}\n")  # as sha256sum writes it
    return table_world(
        path,
        num_items=num_items,
        num_users=num_users,
        embedding_dim=embedding_dim,
        heldout_fraction=heldout_fraction,
        seed=seed,
        source=f"clustered: {num_items} items in {_num_clusters(num_items)} clusters, seed {seed}",
    )


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
    """The first ``num_items`` items of the table at ``path`` (all, where it has fewer), and made-up users.

    A user is the unit vector along the sum of two random items plus a random vector of norm USER_NOISE,
    fully known (taste and profile are the same). Popularity and quality are drawn as in `synthetic`. Raises
    UserError where the file is no such table.
    """
    table = open_table(path)
    if table.shape[1] != embedding_dim:
        raise UserError(
            f"{path} has embeddings of size {table.shape[1]}, and the settings say {embedding_dim}: give "
            f"--embedding-dim {table.shape[1]}."
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
    train, heldout = split_by_id(np.arange(num_users), heldout_fraction, seed, f"users made up for {path}")
    return catalogue, Population(taste, taste.clone(), torch.arange(num_users), train, heldout)


def clustered_items(num_items: int, embedding_dim: int, seed: int) -> Iterator[Floats]:
    """The items of ``clustered_world`` in blocks (b, D); the same whatever machine draws them."""
    centre_rng = np.random.default_rng([_CENTRE_STREAM, seed])
    centres = _unit(centre_rng.standard_normal((_num_clusters(num_items), embedding_dim), dtype=np.float32))
    for start in range(0, num_items, _ROWS):
        rng = np.random.default_rng([_TABLE_STREAM, seed, start])
        rows = min(_ROWS, num_items - start)
        cluster = rng.integers(len(centres), size=rows)
        own = _unit(rng.standard_normal((rows, embedding_dim), dtype=np.float32))
        yield _unit(centres[cluster] + np.float32(SPREAD) * own)


def _is_whole(path: Path, shape: tuple[int, int]) -> bool:
    """True where the table of that shape is there; a damaged one costs a line, and is drawn again."""
    if not path.is_file():
        return False
    with contextlib.suppress(UserError, OSError, ValueError):
        known = _proof(path).read_text("utf-8").split()[:1] == [table_sha256(path)]
        if known and open_table(path).shape == shape:
            return True
    print(f"The cache file {path} is damaged; made again.", file=sys.stderr)
    return False


def _proof(path: Path) -> Path:
    """The file that holds the sha256 of the table."""
    return path.with_name(f"{path.name}.sha256")


def _users_between_items(embedding: Tensor, num_users: int, seed: int) -> Tensor:
    """(U, D) unit vectors: two random items each, and noise."""
    rng = np.random.default_rng([_USER_STREAM, seed])
    liked = torch.from_numpy(rng.integers(len(embedding), size=(num_users, 2)))
    noise = rng.standard_normal((num_users, embedding.shape[1]), dtype=np.float32)
    # Two opposite items cancel out; the noise still points somewhere.
    return unit_rows(embedding[liked].sum(1).numpy() + USER_NOISE * _unit(noise))


def _num_clusters(num_items: int) -> int:
    return max(1, round(math.sqrt(num_items)))


def _unit(rows: Floats) -> Floats:
    scaled: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled
