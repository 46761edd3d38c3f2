"""`clustered`: any number of made-up items in clusters. Their embeddings are a table on disk."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from recsys_rl.data.catalogue import MadeUpConfig
from recsys_rl.data.item_table import FILE_ENDING, Floats, open_table, table_sha256, write_table
from recsys_rl.data.table import table_world, unit
from recsys_rl.records import Source
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.types import Catalogue, Population, UserError, World
from recsys_rl.utils.download import cache_folder
from recsys_rl.utils.files import write_text

SPREAD = 0.5  # norm of the random vector added to the cluster's centre (norm 1) to make an item
_FORMAT = 1  # of the cached table; raise it when the same settings draw other items
_ROWS = 16_384  # drawn at a time; another number draws other items
_CENTRE_STREAM, _TABLE_STREAM = 11, 12  # independent streams of the one seed


def clustered_world(
    num_items: int,
    num_users: int,
    embedding_dim: int,
    heldout_fraction: float,
    seed: int,
    cache_dir: str | Path | None,
) -> tuple[Catalogue, Population]:
    """Items in round(sqrt(I)) clusters on the unit sphere, written once into the cache folder, and users.

    Centres are uniform on the sphere. An item is the unit vector along its cluster's centre plus a random
    vector of norm SPREAD. So two items of one cluster have a cosine of about 1 / (1 + SPREAD**2) = 0.8, and
    two items of different clusters a cosine of about 0. A file beside the table holds its sha256; a damaged
    table is drawn again. Raises UserError if the folder can't be written.
    """
    key = f"{_FORMAT}-{num_items}x{embedding_dim}-{SPREAD:g}-{seed}"
    path = cache_folder(cache_dir) / f"clustered-{key}{FILE_ENDING}"
    if not _is_whole(path, (num_items, embedding_dim)):
        print(f"Drawing {num_items:,} items into {path}.", file=sys.stderr)
        write_table(path, clustered_items(num_items, embedding_dim, seed), (num_items, embedding_dim))
        write_text(_proof(path), f"{table_sha256(path)}  {path.name}\n")  # in the format of sha256sum
    return table_world(
        path,
        num_items=num_items,
        num_users=num_users,
        embedding_dim=embedding_dim,
        heldout_fraction=heldout_fraction,
        seed=seed,
        source=f"clustered: {num_items} items in {_num_clusters(num_items)} clusters, seed {seed}",
    )


def clustered_items(num_items: int, embedding_dim: int, seed: int) -> Iterator[Floats]:
    """The items of ``clustered_world`` in blocks (b, D). Every machine draws the same items."""
    centre_rng = np.random.default_rng([_CENTRE_STREAM, seed])
    centres = unit(centre_rng.standard_normal((_num_clusters(num_items), embedding_dim), dtype=np.float32))
    for start in range(0, num_items, _ROWS):
        rng = np.random.default_rng([_TABLE_STREAM, seed, start])
        rows = min(_ROWS, num_items - start)
        cluster = rng.integers(len(centres), size=rows)
        own = unit(rng.standard_normal((rows, embedding_dim), dtype=np.float32))
        yield unit(centres[cluster] + np.float32(SPREAD) * own)


def _is_whole(path: Path, shape: tuple[int, int]) -> bool:
    """True if a whole table of that shape exists. A line on stderr reports a damaged one."""
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


def _num_clusters(num_items: int) -> int:
    return max(1, round(math.sqrt(num_items)))


def _make_world(config: MadeUpConfig, sizes: EnvConfig, seed: int) -> World:
    return World(
        *clustered_world(
            sizes.num_items,
            config.num_users,
            sizes.embedding_dim,
            config.heldout_fraction,
            seed,
            config.cache_dir,
        )
    )


SOURCE = Source(MadeUpConfig, _make_world, made_up=True)
