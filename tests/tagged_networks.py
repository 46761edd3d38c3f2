"""Small networks over items with tags, whose weights are all other than zero."""

from __future__ import annotations

from dataclasses import replace

import torch

from recsys_rl.models.actor_critic import ActorCritic, Shapes
from recsys_rl.models.features import SplitFeatures
from recsys_rl.models.item_columns import item_columns, item_features
from recsys_rl.settings.shared import ModelConfig
from recsys_rl.types import Catalogue, Obs
from tests.small_runs import settings
from tests.small_runs import world as made_up_world

OLD, NEW = ("a", "b", "c"), ("b", "d", "a", "e")
D = 3


def catalogue(names: tuple[str, ...]) -> Catalogue:
    """Twelve items with the genres a and b alone, whatever other names there are."""
    config = settings("ppo", "drift")
    made = made_up_world(
        replace(config, env_config=replace(config.env_config, num_items=12, embedding_dim=D))
    ).catalogue
    genres = torch.zeros(12, len(names))
    genres[::2, names.index("a")] = 1
    genres[::3, names.index("b")] = 1
    return replace(made, genres=genres, genre_names=names)


def network(names: tuple[str, ...], config: ModelConfig, seed: int) -> ActorCritic:
    return network_of(catalogue(names), config, seed)


def network_of(items: Catalogue, config: ModelConfig, seed: int) -> ActorCritic:
    features = (
        SplitFeatures(items.embedding, item_columns(items)) if config.candidates else item_features(items)
    )
    shapes = Shapes(2 * D, (12,), features, 5, 2, items.available, kinds=torch.arange(12) % 3)
    model = ActorCritic(shapes, config, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for parameter in model.parameters():  # no weight is zero
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    return model


def observations() -> Obs:
    rng = torch.Generator().manual_seed(1)
    history = torch.randint(12, (4, 5), generator=rng)
    history[0, :3] = -1
    return Obs(
        context=torch.randn(4, 2 * D, generator=rng),
        history=history,
        signals=torch.rand(4, 5, 2, generator=rng),
    )
