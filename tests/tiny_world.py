"""Three items in the plane, few users, round numbers: worlds for calculations by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from recsys_rl.env.drift import Drift, DriftConfig
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.env.satiation import Satiation, SatiationConfig
from recsys_rl.protocols import UserModel
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.types import Catalogue, Population, genres_and_year

DRIFT = DriftConfig(num_items=3, embedding_dim=2, max_episode_steps=3, reward_decay=0.9, user_drift=0.1)
SATIATION = SatiationConfig(
    num_items=3,
    embedding_dim=2,
    max_episode_steps=3,
    affinity_gain=4.0,
    affinity_midpoint=0.5,
    satiation_strength=1.0,
    satiation_recovery=0.5,
    catchiness_gain=1.0,
    patience_cost=0.5,
    patience_start=1.0,
    patience_gain=0.0,
    noise=0.0,
)


def tiny_catalogue() -> Catalogue:
    """Item 0 points east (genre "a"), 1 north ("b"), 2 between (both); only item 0 is catchy, by sqrt(3).

    The logarithms of popularity are 0, -1, -2 and the qualities 0, 1/2, 1, so that the z-scores are
    sqrt(3/2) * (1, 0, -1) and the reverse, and catch is (sqrt(3), 0, 0).
    """
    return Catalogue(
        embedding=torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]),
        item_ids=torch.tensor([10, 11, 12]),
        titles=("east", "north", "between"),
        popularity=torch.tensor([math.exp(-k) - 1e-3 for k in range(3)]),
        quality=torch.tensor([0.0, 0.5, 1.0]),
        available=torch.ones(3, dtype=torch.bool),
        source="made up",
        attributes={
            "genres": torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
            "year": torch.full((3,), torch.nan),
        },
        features=genres_and_year(("a", "b")),
    )


def with_genres(catalogue: Catalogue, genres: torch.Tensor, names: Sequence[str] = ()) -> Catalogue:
    """The catalogue with the genres (I, G), and without other features than these and the year."""
    attributes = {**catalogue.attributes, "genres": genres}
    return replace(catalogue, attributes=attributes, features=genres_and_year(names))


def population(tastes: Sequence[Sequence[float]] | torch.Tensor) -> Population:
    """Users of these tastes (U, D), fully known, who are training and held-out users alike."""
    taste = torch.as_tensor(tastes)
    rows = torch.arange(len(taste))
    return Population(taste=taste, profile=taste, user_ids=rows, train=rows, heldout=rows)


def tiny_drift(tastes: Sequence[Sequence[float]]) -> Drift:
    return Drift(tiny_catalogue(), population(tastes), DRIFT)


def tiny_satiation(tastes: Sequence[Sequence[float]], config: SatiationConfig = SATIATION) -> Satiation:
    return Satiation(tiny_catalogue(), population(tastes), config)


def env_of(user_model: UserModel, catalogue: Catalogue, config: EnvConfig, users: torch.Tensor) -> RecEnv:
    """An environment in which each of ``users`` has begun a session."""
    env = RecEnv(user_model, catalogue, config, users, len(users), torch.Generator().manual_seed(0))
    env.reset(users)
    return env
