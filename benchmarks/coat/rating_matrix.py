"""A world from a whole matrix of ratings (U, I), for users whose rating of every item is known.

Your own: ``--data benchmarks.coat.rating_matrix:SOURCE --matrix ratings.csv``. A file of numbers without a
header, a row for each user and a column for each item: text with commas or spaces, .npy, or .npz with one
array.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.coat.factorise import MOST_CELLS, factorise
from benchmarks.coat.matrix import read_matrix
from recsys_rl.data.catalogue import split_by_id
from recsys_rl.errors import one_line
from recsys_rl.records import Source
from recsys_rl.settings.shared import DataConfig, EnvConfig
from recsys_rl.types import Catalogue, Population, UserError, World, genres_and_year


@dataclass(frozen=True)
class MatrixDataConfig(DataConfig):
    """The users and the items of a matrix of ratings."""

    everyone: bool = False
    """Train and test with all users, in place of held-out ones. A test is then only new in its ratings, so
    that it needs a true matrix."""


@dataclass(frozen=True)
class RatingMatrixConfig(MatrixDataConfig):
    """Files with matrices of numbers: text with commas or spaces, .npy, or .npz with one array."""

    matrix: str | None = None
    """File of the ratings, a row for each user and a column for each item, without gaps."""
    true_matrix: str | None = None
    """File of the true ratings of the same users and items, if those of --matrix are estimates. The distances
    between items are then those of its columns."""
    item_tags: str | None = None
    """File of the items' tags, a row for each item and a column for each tag, 0 or 1."""


def matrix_world(
    ratings: Tensor,
    embedding: Tensor,
    taste: Tensor,
    *,
    source: str,
    heldout_fraction: float,
    everyone: bool,
    seed: int,
    num_items: int,
    true: Tensor | None = None,
    tags: tuple[tuple[str, ...], Tensor] = ((), torch.zeros(0, 0)),
    popularity: Tensor | None = None,
    quality: Tensor | None = None,
    titles: tuple[str, ...] = (),
) -> World:
    """The world of the first ``num_items`` items of a matrix.

    The attributes are ``ratings`` and, if they are given, ``true_ratings`` of the users, (U, I); and
    ``distance`` of the items, (I, I): the Euclidean distance between columns of the true matrix, or of
    ``ratings`` without one.

    Args:
        ratings: (U, I), estimated if there is a ``true`` matrix of the same shape.
        embedding, taste: (I, D) and (U, D), whose rows become unit vectors. The profile is the taste.
        everyone: training and held-out users are all users.
        tags: names (G,) and values (I, G), 0 or 1.
        popularity: (I,) in [0, 1]; None: the share of training users whose rating lies in the upper quarter
            of the scale.
        quality: (I,) in [0, 1]; None: the mean rating by training users, as a place on the scale.

    Raises UserError for shapes that don't fit, matrices of more than MOST_CELLS, and if one side of the split
    is empty.
    """
    users, items = ratings.shape
    number = min(num_items, items)
    names, values = tags
    _check(source, ratings, true, number, len(values) if names else None)
    low, high = float(ratings.min()), float(ratings.max())
    span = max(high - low, 1e-6)
    rows = torch.arange(users)
    train, heldout = split_rows(users, everyone, heldout_fraction, seed, source)
    # A policy sees both, so held-out users have no part in them.
    if popularity is None:
        popularity = (ratings[train] >= low + 0.75 * span).float().mean(0)
    if quality is None:
        quality = ((ratings[train].mean(0) - low) / span).clamp(0, 1)
    first = slice(0, number)
    columns = (ratings if true is None else true)[:, first].T.contiguous()  # (I, U)
    which = f"all {items} items" if number == items else f"the first {number} of {items} items"
    catalogue = Catalogue(
        embedding=_unit(embedding[first]),
        item_ids=torch.arange(number),
        titles=titles[first] or tuple(f"item {item}" for item in range(number)),
        popularity=popularity[first],
        quality=quality[first],
        available=torch.ones(number, dtype=torch.bool),
        source=f"{source}: {which}",
        attributes={
            "genres": values[first].float() if names else torch.zeros(number, 0),
            "year": torch.full((number,), torch.nan),
            "distance": torch.cdist(columns, columns, compute_mode="donot_use_mm_for_euclid_dist"),
        },
        features=genres_and_year(names),
    )
    matrices = {"ratings": ratings[:, first].contiguous()}
    if true is not None:
        matrices["true_ratings"] = true[:, first].contiguous()
    unit = _unit(taste)
    about = (
        f"{users} users, with {'estimated and true' if true is not None else 'known'} ratings of all items"
    )
    if everyone:
        about += "; all of them for training and test"
    population = Population(unit, unit.clone(), rows, train, heldout, about, matrices)
    return World(catalogue, population)


def _check(source: str, ratings: Tensor, true: Tensor | None, number: int, tagged: int | None) -> None:
    """Raise UserError for matrices of other shapes, of too many cells, and for tags of other items.

    Args:
        number: of the items that are played with.
        tagged: items with tags; None without tags.
    """
    users, items = ratings.shape
    if true is not None and true.shape != ratings.shape:
        raise UserError(
            f"{source}: the true matrix is of {_shape(true)} users x items, and the estimated one of "
            f"{_shape(ratings)}: give two matrices of the same users and items."
        )
    cells = max(users, number) * number
    if cells > MOST_CELLS:
        raise UserError(
            f"{source}: a matrix of ratings of {users:,} users and {number:,} items, and one of distances "
            f"between items, need too much memory ({cells:,} cells, at most {MOST_CELLS:,}): give fewer "
            "--num-items."
        )
    if tagged is not None and tagged != items:
        raise UserError(
            f"{source}: the tags are of {tagged} items, and the matrix is of {items}: give a row of tags for "
            "each item."
        )


def split_rows(
    users: int, everyone: bool, heldout_fraction: float, seed: int, source: str
) -> tuple[Tensor, Tensor]:
    """Rows of the training and of the held-out users; ``everyone``: all users, twice.

    Raises UserError if one side is empty.
    """
    if everyone:
        return torch.arange(users), torch.arange(users)
    return split_by_id(users, heldout_fraction, seed, f"users of {source}")


def _unit(rows: Tensor) -> Tensor:
    """``rows`` with norm 1; a zero row becomes the first axis."""
    first = torch.zeros_like(rows)
    first[:, 0] = 1
    norm = rows.norm(dim=1, keepdim=True)
    return torch.where(norm > 0, rows / norm.clamp_min(1e-30), first)


def _shape(matrix: Tensor) -> str:
    return " x ".join(map(str, matrix.shape))


def _make_world(config: RatingMatrixConfig, sizes: EnvConfig, seed: int) -> World:
    if config.matrix is None:
        raise UserError("The file of the ratings is missing: give --matrix FILE.")
    ratings = read_matrix(config.matrix)
    true = None if config.true_matrix is None else read_matrix(config.true_matrix)
    names: tuple[str, ...] = ()
    values = torch.zeros(0, 0)
    if config.item_tags is not None:
        values = read_matrix(config.item_tags)
        if not bool(((values == 0) | (values == 1)).all()):
            raise UserError(f"{one_line(config.item_tags)} has a value other than 0 and 1: tags are 0 or 1.")
        names = tuple(f"tag {number}" for number in range(1, values.shape[1] + 1))
    known = torch.ones_like(ratings, dtype=torch.bool)
    if config.everyone and true is None:
        print(
            "warning: --everyone without --true-matrix trains and tests with the same ratings of the same "
            "users, so a test tells nothing of others: give --true-matrix FILE, or leave --everyone out.",
            file=sys.stderr,
        )
    source = one_line(config.matrix)
    train, _ = split_rows(len(ratings), config.everyone, config.heldout_fraction, seed, source)
    # What is of items has no part of held-out users.
    factorised = factorise(ratings, known, sizes.embedding_dim, seed, None if config.everyone else train)
    return matrix_world(
        ratings,
        factorised.items,
        factorised.users,
        source=source,
        heldout_fraction=config.heldout_fraction,
        everyone=config.everyone,
        seed=seed,
        num_items=sizes.num_items,
        true=true,
        tags=(names, values),
    )


SOURCE = Source(RatingMatrixConfig, _make_world)
