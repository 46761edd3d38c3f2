"""Everything that decides, one file per algorithm; none imports another."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from recsys_rl.agents.a2c import A2C
from recsys_rl.agents.ppo import PPO
from recsys_rl.config import A2CConfig, Config, PPOConfig
from recsys_rl.models.actor import item_features
from recsys_rl.models.actor_critic import ActorCritic, Shapes
from recsys_rl.types import Catalogue, Env, UserError


def make_agent(
    config: Config,
    env: Env,
    catalogue: Catalogue | None,
    num_updates: int,
    generators: Mapping[str, torch.Generator],
    device: torch.device,
) -> PPO | A2C:
    """A new agent for ``env``; streams "model" (weights, on the CPU), "policy" and "shuffle".

    Raises UserError where the two-tower head has no items to score.
    """
    if catalogue is None and config.model_config.head == "two-tower":
        raise UserError(
            f"{config.env} has no catalogue of items for the two-tower head to score: choose --head dense."
        )
    shapes = Shapes(
        env.context_dim,
        env.action_sizes,
        None if catalogue is None else item_features(catalogue).cpu(),
        env.history_length,
        env.num_signals,
    )
    model = ActorCritic(shapes, config.model_config, generators["model"]).to(device)
    if isinstance(config.agent_config, PPOConfig):
        return PPO(model, config.agent_config, num_updates, generators)
    assert isinstance(config.agent_config, A2CConfig)
    return A2C(model, config.agent_config, num_updates, generators)
