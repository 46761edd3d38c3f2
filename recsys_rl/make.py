"""From settings to a world, an environment and an agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from recsys_rl.agents.a2c import A2C
from recsys_rl.agents.ppo import PPO
from recsys_rl.config import A2CConfig, Config, DataConfig, EnvConfig, ModelConfig, PPOConfig
from recsys_rl.data.catalogue import build_world, synthetic_world
from recsys_rl.data.clustered import clustered_world, table_world
from recsys_rl.data.item_table import FILE_ENDING
from recsys_rl.env.drift import Drift
from recsys_rl.env.foreign import GymEnv
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.env.satiation import Satiation
from recsys_rl.errors import FieldError
from recsys_rl.models.actor_critic import ActorCritic, Shapes
from recsys_rl.models.features import SplitFeatures
from recsys_rl.models.heads import item_columns, item_features
from recsys_rl.protocols import Env, UserModel
from recsys_rl.types import Catalogue, Population, UserError

PLATFORMS: dict[str, type[Drift] | type[Satiation]] = {"drift": Drift, "satiation": Satiation}


def make_world(
    env_name: str, data_config: DataConfig, env_config: EnvConfig, seed: int
) -> tuple[Catalogue, Population]:
    """Load the data and learn the embeddings (cached), or make a world up from ``seed``.

    Raises UserError for an unknown platform (before anything is read) and where the data don't serve.
    """
    _check(env_name)
    if data_config.data in ("synthetic", "clustered") or data_config.data.endswith(FILE_ENDING):
        return _made_up_world(data_config, env_config, seed)
    from recsys_rl.data.sources import load_log  # brings polars, 25 MB that made-up worlds need not

    log = load_log(
        data_config.data,
        data_config.data_dir,
        data_config.cache_dir,
        data_config.user_column,
        data_config.item_column,
        data_config.time_column,
        data_config.rating_column,
    )
    return build_world(
        log,
        num_items=env_config.num_items,
        embedding_dim=env_config.embedding_dim,
        like_threshold=data_config.like_threshold,
        min_item_likes=data_config.min_item_likes,
        heldout_fraction=data_config.heldout_fraction,
        profile_fraction=data_config.profile_fraction,
        seed=seed,
        cache_dir=data_config.cache_dir,
    )


def _made_up_world(data_config: DataConfig, env_config: EnvConfig, seed: int) -> tuple[Catalogue, Population]:
    """Users without a history, on made-up items or on those of anyone's table."""
    if data_config.data_dir is not None:
        raise UserError(
            f"--data-dir is for real datasets, and --data is {data_config.data}: leave one of them out."
        )
    num_items, num_users, dim = env_config.num_items, env_config.num_users, env_config.embedding_dim
    heldout_fraction = data_config.heldout_fraction
    if data_config.data == "synthetic":
        return synthetic_world(num_items, num_users, dim, heldout_fraction, seed)
    if data_config.data == "clustered":
        return clustered_world(num_items, num_users, dim, heldout_fraction, seed, data_config.cache_dir)
    return table_world(
        Path(data_config.data),
        num_items=num_items,
        num_users=num_users,
        embedding_dim=dim,
        heldout_fraction=heldout_fraction,
        seed=seed,
    )


def make_user_model(
    env_name: str, catalogue: Catalogue, population: Population, env_config: EnvConfig
) -> UserModel:
    """The platform of that name over this world.

    Raises UserError where there is none, and where a session could run out of items to show.
    """
    _check(env_name)
    user_model = PLATFORMS[env_name](catalogue, population, env_config)
    available = int(catalogue.available.sum())
    if available == 0:
        raise UserError("No item of the catalogue is available: make at least one available.")
    most = env_config.max_episode_steps * user_model.slate_size
    if not user_model.repeats and most > available:
        raise UserError(
            f"A session shows {most} items and none twice, but the catalogue has "
            f"only {available}: lower --max-episode-steps or bring more items."
        )
    return user_model


def _check(env_name: str) -> None:
    if env_name not in PLATFORMS:
        raise UserError(
            f"There is no environment named {env_name!r}: choose {', '.join(PLATFORMS)}, or gym:Id for one "
            "of Gymnasium's."
        )


def assumptions(config: Config, catalogue: Catalogue, population: Population) -> str:
    """The platform's assumption in place of what the data lack, as part of a sentence; "" for none."""
    return make_user_model(config.env, catalogue, population, config.env_config).assumptions


def make_env(
    config: Config,
    catalogue: Catalogue | None,
    population: Population | None,
    num_envs: int,
    generator: torch.Generator,
    *,
    heldout: bool = False,
    training: bool = True,
) -> Env:
    """The environment of a run: N sessions of training or held-out users, or of a ``gym:`` environment.

    ``training`` False freezes the normalisation of a ``gym:`` environment. A module that its name asks
    for is imported: callers make sure that the user typed it.
    """
    if catalogue is None or population is None:
        return GymEnv(
            config.env,
            num_envs,
            seed=generator.initial_seed(),
            gamma=config.agent_config.gamma,
            normalize_obs=config.env_config.normalize_obs,
            normalize_reward=config.env_config.normalize_reward,
            training=training,
            allow_module=True,
            device=generator.device,
        )
    user_model = make_user_model(config.env, catalogue, population, config.env_config)
    users = population.heldout if heldout else population.train
    return RecEnv(user_model, catalogue, config.env_config, users, num_envs, generator)


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
        env.interface.context_size,
        env.interface.action_sizes,
        None if catalogue is None else _features(catalogue, config.model_config),
        env.interface.history_length,
        len(env.interface.signals),
        None if catalogue is None else catalogue.available,
        env.interface.slate_size,
    )
    if catalogue is not None and config.model_config.candidates:
        check_candidates(config.model_config, int(catalogue.available.sum()), env.interface.most_shown)
    model = ActorCritic(shapes, config.model_config, generators["model"]).to(device)
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
