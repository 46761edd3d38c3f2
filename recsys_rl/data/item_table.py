"""Item embeddings too large to copy: a memory-mapped `.npy` file of (I, D) float32, row by row of norm 1.

Every reader of the file shares one copy of it, the operating system's; only the rows that are touched are
ever read. Users are made up around its items.
"""

from __future__ import annotations

import hashlib
import math
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_rl.data.catalogue import split_by_id
from recsys_rl.data.download import cache_folder
from recsys_rl.data.embeddings import unit_rows
from recsys_rl.types import Catalogue, Population, UserError

FILE_ENDING = ".npy"
SPREAD = 0.5  # norm of what sets an item of `clustered` apart from its cluster's centre, which has norm 1
USER_NOISE = 0.3  # norm of what sets a user apart from the two items that make up the taste
_FORMAT = 1  # of the cached table; raise it when the same settings would draw other items
_ROWS = 65_536  # drawn, checked or hashed at a time
_NORM_ERROR = 1e-3  # float32 rows scaled by anyone's code come much closer
# independent streams of the one seed; data/catalogue.py has 1 to 5
_CENTRE_STREAM, _TABLE_STREAM, _USER_STREAM, _POPULARITY_STREAM, _QUALITY_STREAM = 11, 12, 13, 14, 15

Floats = NDArray[np.float32]


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
    and two others one of about 0. Raises UserError where the folder can't be written.
    """
    key = f"{_FORMAT}-{num_items}x{embedding_dim}-{SPREAD:g}-{seed}"
    path = cache_folder(cache_dir) / f"clustered-{key}{FILE_ENDING}"
    if not _is_whole(path, (num_items, embedding_dim)):
        print(f"Drawing {num_items:,} items into {path}.", file=sys.stderr)
        write_table(path, clustered_items(num_items, embedding_dim, seed), (num_items, embedding_dim))
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
    popularity = 0.01 ** np.random.default_rng([_POPULARITY_STREAM, seed]).random(num_items)
    quality = np.random.default_rng([_QUALITY_STREAM, seed]).beta(5, 3, num_items)
    catalogue = Catalogue(
        embedding=embedding,
        item_ids=torch.arange(num_items),
        titles=(),
        genres=torch.zeros(num_items, 0),
        genre_names=(),
        popularity=torch.from_numpy(popularity).float(),
        quality=torch.from_numpy(quality).float(),
        year=torch.full((num_items,), torch.nan),
        available=torch.ones(num_items, dtype=torch.bool),
        source=source or f"{path}: {which} items, users made up with seed {seed}",
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


def write_table(path: Path, parts: Iterable[Floats], shape: tuple[int, int]) -> None:
    """Write blocks (b, D) of float32 as one `.npy` file, whole or not at all. Raises UserError."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for part in parts:
                file.write(np.ascontiguousarray(part, dtype="<f4").data)
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} can't be written ({error.strerror or error}): make room or give another --cache-dir."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def open_table(path: Path) -> Tensor:
    """Map the table (I, D) at ``path`` into memory: no copy, and no write ever reaches the file.

    Raises UserError where it is missing, truncated, not a `.npy` file of float32 in rows, or has a row
    whose norm is not 1.
    """
    array = _map(path)
    if array.dtype != np.dtype("<f4"):
        raise UserError(f"{path} holds {array.dtype}: save item embeddings as float32.")
    if array.ndim != 2 or 0 in array.shape:
        raise UserError(f"{path} has shape {array.shape}: item embeddings have two axes, (items, size).")
    if not array.flags.c_contiguous:
        raise UserError(f"{path} is stored column by column: save numpy.ascontiguousarray of it.")
    table = torch.from_numpy(array)  # (I, D)
    for start in range(0, len(table), _ROWS):
        norms = torch.linalg.vector_norm(table[start : start + _ROWS], dim=1)
        wrong = ~((norms - 1).abs() <= _NORM_ERROR)  # NaN compares with nothing, and is wrong, too
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise UserError(
                f"{path} has norm {norms[row].item():g} in row {start + row}: divide each row of the "
                "embeddings by its Euclidean norm, and leave out those that are zero or not finite."
            )
    return table


def table_sha256(path: Path) -> str:
    """sha256 (hex) of the whole file. Raises UserError where it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror or error}): mend that.") from error


def _map(path: Path) -> NDArray[Any]:
    try:
        # Copy-on-write: torch wants memory that it could write to, and the file must stay as it is.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except OSError as error:
        raise UserError(
            f"{path} can't be read ({error.strerror or error}): give a .npy file of item embeddings."
        ) from error
    except (EOFError, ValueError) as error:
        cause = "is truncated" if "greater than file size" in str(error) else "is not a whole .npy file"
        raise UserError(f"{path} {cause}: save the item embeddings again with numpy.save.") from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path} is an archive of arrays: save the item embeddings with numpy.save.")
    return array


def _is_whole(path: Path, shape: tuple[int, int]) -> bool:
    """Whether the table of that shape is there; a damaged one costs a line, and is drawn again."""
    if not path.is_file():
        return False
    try:
        if open_table(path).shape == shape:
            return True
    except UserError:
        pass
    print(f"The cache file {path} is damaged; made again.", file=sys.stderr)
    return False


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
