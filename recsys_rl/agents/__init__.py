"""Everything that decides, one file per algorithm; none imports another."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from recsys_rl.agents.a2c import A2C
from recsys_rl.agents.ppo import PPO
from recsys_rl.config import A2CConfig, Config, ModelConfig, PPOConfig
from recsys_rl.errors import FieldError
from recsys_rl.models.actor import item_columns, item_features
from recsys_rl.models.actor_critic import ActorCritic, Shapes
from recsys_rl.models.dense import DenseActorCritic
from recsys_rl.models.features import SplitFeatures
from recsys_rl.types import Catalogue, Env, UserError


def make_agent(
    config: Config,
    env: Env,
    catalogue: Catalogue | None,
    num_updates: int,
    generators: Mapping[str, torch.Generator],
    device: torch.device,
    average: Callable[[Tensor], None] | None = None,
) -> PPO | A2C:
    """A new agent for ``env``; streams "model" (weights, on the CPU), "policy" and "shuffle".

    ``average`` replaces a tensor by its mean over all processes that train together, in place.
    Raises UserError where the two-tower head has no items to score, or the first stage can't fill its list.
    """
    if catalogue is None and config.model_config.head == "two-tower":
        raise UserError(
            f"{config.env} has no catalogue of items for the two-tower head to score: choose --head dense."
        )
    shapes = Shapes(
        env.context_dim,
        env.action_sizes,
        None if catalogue is None else _features(catalogue, config.model_config),
        env.history_length,
        env.num_signals,
        None if catalogue is None else catalogue.available,
    )
    if catalogue is not None and config.model_config.candidates:
        check_candidates(config.model_config, int(catalogue.available.sum()), env.history_length)
    plain = config.model_config.head == "dense" and not env.history_length and len(env.action_sizes) == 1
    network = DenseActorCritic if plain else ActorCritic
    model = network(shapes, config.model_config, generators["model"]).to(device)
    if isinstance(config.agent_config, PPOConfig):
        return PPO(model, config.agent_config, num_updates, generators, average)
    assert isinstance(config.agent_config, A2CConfig)
    return A2C(model, config.agent_config, num_updates, generators, average)


def _features(catalogue: Catalogue, config: ModelConfig) -> Tensor | SplitFeatures:
    """Joined once where every item is scored, and left apart where only a few are."""
    if config.candidates:
        return SplitFeatures(catalogue.embedding, item_columns(catalogue))
    return item_features(catalogue).cpu()


def check_candidates(config: ModelConfig, available: int, history_length: int) -> None:
    """Raise FieldError where a first stage over ``available`` items can't fill its list of candidates."""
    if config.candidates > available:
        raise FieldError(
            "model_config.candidates",
            f"is {config.candidates}: the catalogue has only {available} items to propose; give fewer, or 0 "
            "to score them all.",
        )
    drawn = round(config.explore_rate * config.candidates)
    if config.explore_rate > 0 and drawn == 0:
        raise FieldError(
            "model_config.explore_rate",
            f"{config.explore_rate:g} of {config.candidates} candidates is none: give more candidates, a "
            "higher explore_rate, or 0 to explore nothing.",
        )
    sure = config.candidates - drawn
    if sure < history_length:  # of which the last is shown when nothing is asked any more
        raise FieldError(
            "model_config.candidates",
            f"is {config.candidates}, of which explore_rate {config.explore_rate:g} leaves {sure} to the "
            f"search, and {history_length - 1} of those may have been shown in the same session: give more "
            "candidates or a lower explore_rate.",
        )
