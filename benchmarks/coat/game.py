"""Coat as a game, with estimated ratings to train in and the pseudo-true ones for the test.

The ratings of all 300 coats by all 290 people are estimated from train.ascii alone, 24 ratings of each person
(factorise.py): biases and the items' factors by least squares, and each user's factors by a draw from
their posterior, so that the users of the game differ as much as people do. This fit uses all people, held-out
ones too; embeddings, popularity and quality, which a policy sees, are of training users alone. The true
matrix is coat_pseudoGT_ratingM.ascii, which published simulators test on. The distances between coats, which
decide when a session ends, are those of the true matrix in both, as published. So a policy that trains under
this rule learns something of the true ratings: coats with many close ones are worse than their estimates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from benchmarks.coat import dataset
from benchmarks.coat.factorise import draw_users, factorise
from benchmarks.coat.rating_matrix import MatrixDataConfig, matrix_world, split_rows
from recsys_rl.records import Source
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.types import UserError, World
from recsys_rl.utils.download import has_member

TRUE = "coat_pseudoGT_ratingM.ascii"
FACTORS = 8
"""Numbers of a factor; of 2, 4 and 8 with the penalties of factorise.py the error on held-out ratings is
the same within 1 %."""


@dataclass(frozen=True)
class CoatGameConfig(MatrixDataConfig):
    """The users and the items of Coat, with their estimated and their true ratings."""

    data_dir: str | None = None
    """Folder of the dataset's own files."""


def _make_world(config: CoatGameConfig, sizes: EnvConfig, seed: int) -> World:
    location = dataset.find_folder(config.data_dir, config.cache_dir)
    if not has_member(location, TRUE):
        raise UserError(
            f"{location} has no {TRUE}, the true ratings: get it from the folder data/ of "
            "github.com/BetsyHJ/RL4Rec (docs/data.md)."
        )
    rated = torch.from_numpy(dataset.read_ratings(location, "train.ascii"))  # (U, I), 0 for none
    true = torch.from_numpy(dataset.read_ratings(location, TRUE))
    known = rated > 0
    if not bool((true > 0).all()):
        raise UserError(f"{location}: {TRUE} has a coat without a rating: get the whole file again.")
    if not bool(known.any()):
        raise UserError(f"{location}: train.ascii holds no ratings: get the whole file again.")
    factorised = factorise(rated, known, FACTORS, seed)
    drawn, size = draw_users(factorised, rated, known, seed), sizes.embedding_dim
    train, _ = split_rows(len(rated), config.everyone, config.heldout_fraction, seed, "the game of Coat")
    if not bool(known[train].any()):
        raise UserError(
            f"{location}: train.ascii holds no ratings of training users: get the whole file again."
        )
    factors = factorise(rated, known, size, seed, None if config.everyone else train)
    quality = None
    if not config.everyone:
        mean, given = factors.ratings[train].mean(0), rated[train][known[train]]  # (I,), (R,)
        quality = (mean - given.min()) / (given.max() - given.min()).clamp_min(1e-6)
    return matrix_world(
        drawn,
        factors.items,
        factors.users,
        source=f"coat-game ({location.name}), ratings estimated from train.ascii with seed {seed}",
        heldout_fraction=config.heldout_fraction,
        everyone=config.everyone,
        seed=seed,
        num_items=sizes.num_items,
        true=true,
        popularity=known[train].float().mean(0),
        quality=quality,
        titles=tuple(f"coat {item}" for item in range(rated.shape[1])),
    )


SOURCE = Source(CoatGameConfig, _make_world)
