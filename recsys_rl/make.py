"""Make a world, an environment and an agent from the settings of a run.

The functions here take the whole Config. Of what they make, each object gets only its own section.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint, restoring
from recsys_rl.data.catalogue import LikesConfig
from recsys_rl.data.new_users import in_place_of_heldout, new_users
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.errors import FieldError, amount
from recsys_rl.models.actor_critic import ActorCritic
from recsys_rl.models.features import SplitFeatures
from recsys_rl.models.heads import item_kinds, slate_layout
from recsys_rl.models.item_columns import item_features, network_columns, number_names
from recsys_rl.models.retrieval import check_candidates
from recsys_rl.models.shapes import Shapes
from recsys_rl.protocols import Env, UserModel
from recsys_rl.settings.config import Config
from recsys_rl.settings.names import source_of
from recsys_rl.settings.shared import ModelConfig
from recsys_rl.types import Catalogue, InteractionLog, Interface, Population, UserError, World, empty_world
from recsys_rl.user_columns import UserColumns
from recsys_rl.utils.seeding import generators as make_generators
from recsys_rl.utils.seeding import stream_seed


def make_world(config: Config) -> World:
    """Load the data and learn the embeddings (cached), or draw a synthetic world from the seed.

    The world is empty if the platform has its own. Raises UserError if the data can't be used.
    """
    if config.platform.users is None:
        return empty_world()
    brought = config.platform.brought(config)
    if brought is not None:
        return brought.world
    source, seed = source_of(config.data_config.data), config.train_config.seed
    world = source.make_world(config.data_config, config.env_config, seed)
    add_attributes = config.platform.add_attributes
    return world if add_attributes is None else add_attributes(world, seed)


def with_new_users(
    config: Config, world: World, log: InteractionLog, like_threshold: float | None = None
) -> World:
    """The world with the people of ``log`` in place of its held-out users.

    ``make_env(config, world, heldout=True)`` plays them. Items and training users stay. Profile and taste of
    the new users are folded in from their likes with the factors of the catalogue (data/new_users.py), with
    the ``profile_fraction`` and the like threshold of the settings. ``like_threshold`` replaces the latter;
    if both are None, the one that fits the log is taken. Attributes of users that the platform needs are
    drawn from the seed. The new population's ``source`` describes the log.

    Raises UserError for an empty world, a log of other items, and a log without users with enough likes.
    """
    if world.is_empty:
        raise UserError(
            f"{config.env} has its own world without items and users of a log: leave the log out."
        )
    data, seed = config.data_config, config.train_config.seed
    if like_threshold is None:
        like_threshold = getattr(data, "like_threshold", None)
    fraction = getattr(data, "profile_fraction", LikesConfig.profile_fraction)
    new = new_users(world.catalogue, log, like_threshold, fraction)
    add_attributes = config.platform.add_attributes
    if add_attributes is not None:
        new = add_attributes(World(world.catalogue, new), stream_seed(seed, "new users")).population
    return World(world.catalogue, in_place_of_heldout(world.population, new))


def make_user_model(config: Config, world: World) -> UserModel:
    """The platform's user model in this world.

    Raises UserError if a session could run out of items to show.
    """
    user_model: UserModel = config.platform.users(*world, config.env_config)
    available, length = int(world.catalogue.available.sum()), config.env_config.max_episode_steps
    most = 1 if user_model.repeats else length * user_model.slate_size
    if world.catalogue.own and most > available:
        raise _few_now(world.catalogue, available, most)
    if available == 0:
        raise UserError("No item of the catalogue is available: make at least one available.")
    if most > available:
        field = config.platform.slate_field
        raise FieldError(
            "env_config.max_episode_steps",
            f"is {length}: a session then shows {most} different items, but the catalogue has only "
            f"{available}; lower it{f' or {field}' if hasattr(config.env_config, field) else ''}, or use a "
            "larger catalogue.",
        )
    return user_model


def _few_now(catalogue: Catalogue, available: int, most: int) -> UserError:
    """The error of a team's place of whose items too few are there now; a session shows ``most``."""
    known = amount(len({catalogue.id_of(row) for row in range(catalogue.num_items)}), "item")
    are = "is" if available == 1 else "are"
    return UserError(
        f"Of the {known} that the policy knows {available} {are} there now, and a session shows {most}: give "
        "--items FILE with the items of now, or train on a log of these."
    )


def make_env(
    config: Config,
    world: World,
    num_envs: int | None = None,
    generator: torch.Generator | None = None,
    *,
    heldout: bool = False,
    training: bool = True,
    strangers: bool = False,
) -> Env:
    """The environment of a run: N sessions of training or held-out users.

    Args:
        num_envs: N; None for the number in the settings.
        generator: draws users and noise, or seeds the platform's own world; None for the stream "users".
        heldout: play held-out users instead of training users.
        training: False freezes the normalisation of a platform with its own world.
        strangers: withhold the profiles of all users, on a platform with a catalogue. Otherwise those of the
            share stranger_share of the training users are withheld, while a policy is trained.

    A module in the name of the environment is imported. The caller must make sure that the user typed it.
    """
    platform = config.platform
    if num_envs is None:
        num_envs = getattr(config.agent_config, "num_envs", 1)
    if generator is None:
        generator = make_generators(config.train_config.seed, "users")["users"]
    if platform.env is not None:
        gamma = config.agent_config.discount
        return platform.env(config.env, config.env_config, num_envs, generator, gamma, training)
    users = world.population.heldout if heldout else world.population.train
    user_model = make_user_model(config, world)
    return RecEnv(
        user_model,
        world.catalogue,
        config.env_config,
        users,
        num_envs,
        generator,
        strangers=_strangers(config, world.population, strangers, training and not heldout),
    )


def _strangers(config: Config, population: Population, everybody: bool, training: bool) -> Tensor | None:
    """(U,) bool: the users whose profiles are withheld; None if no profile is."""
    share = config.data_config.stranger_share if training else 0.0
    strangers = torch.full((len(population.user_ids),), everybody, device=population.profile.device)
    if not everybody:
        count = round(share * len(population.train))
        if count == 0:
            return None
        noise = make_generators(config.train_config.seed, "strangers")["strangers"]
        order = torch.randperm(len(population.train), generator=noise)[:count].to(strangers.device)
        strangers[population.train[order]] = True
    return strangers


def one_visit(config: Config) -> Config:
    """The same settings with one visit as an episode."""
    if getattr(config.env_config, "visits", 1) == 1:
        return config
    return dataclasses.replace(config, env_config=dataclasses.replace(config.env_config, visits=1))


def episodes(count: int, seed: int) -> Tensor:
    """(count,) int64: seeds of episodes, in place of users if the world has none."""
    return torch.from_numpy(np.random.SeedSequence(seed).generate_state(count).astype(np.int64))


def assumptions(config: Config, world: World) -> str:
    """The platform's assumption about missing data, as part of a sentence; "" if there is none."""
    return "" if world.is_empty else make_user_model(config, world).assumptions


def make_agent(
    config: Config,
    interface: Interface,
    catalogue: Catalogue,
    num_updates: int = 1,
    generators: Mapping[str, torch.Generator] | None = None,
    device: torch.device | None = None,
    average: Callable[[Tensor], None] | None = None,
    scaled_as: Catalogue | None = None,
) -> Any:
    """A new agent, a Learner of any algorithm, for environments with this interface.

    Args:
        num_updates: updates of the whole run; learning rate and entropy bonus are annealed over them.
        generators: the streams "model" (weights, on the CPU), "policy" and "shuffle"; None for new streams
            of the seed in the settings.
        device: None for the CPU.
        average: replaces a tensor in place by its mean over all processes of the run.
        scaled_as: the catalogue of the training if items have joined it since; the features of items are
            scaled as there.

    Raises UserError if the head has no items to score, or no kinds of items to choose from, and if the first
    stage can't fill its list.
    """
    if generators is None:
        generators = make_generators(config.train_config.seed, "model", "policy", "shuffle")
    _check_head(config, interface, catalogue)
    if catalogue.num_items and config.model_config.candidates:
        available = int(catalogue.available.sum())
        check_candidates(config.model_config, available, interface.most_shown, interface.slate_size)
    shapes = _shapes(config, interface, catalogue, scaled_as)
    network = config.algorithm.network or ActorCritic
    model = network(shapes, config.model_config, generators["model"]).to(device or torch.device("cpu"))
    return config.algorithm.agent(model, config.agent_config, num_updates, generators, average)


def _check_head(config: Config, interface: Interface, catalogue: Catalogue) -> None:
    """Raise UserError for a head that can't act with this interface."""
    head, slate_size = config.model_config.head, interface.slate_size
    gated, items = head == "gated", catalogue.num_items > 0
    chooses_places = gated and bool(interface.patterns)
    for reason, wrong in (
        ("it scores items, and there is no catalogue of them", not items and head != "dense"),
        (
            f"it chooses one item, and a step shows {slate_size}",
            gated and slate_size > 1 and not chooses_places,
        ),
        (
            "it draws a slate from all items, without --candidates",
            chooses_places and config.model_config.candidates > 0,
        ),
        ("it ranks by the profile, and there is none", items and head == "scorer" and not interface.profile),
    ):
        if wrong:
            raise UserError(f"--head {head} is not for {config.env} ({reason}): choose another --head.")


def _shapes(
    config: Config, interface: Interface, catalogue: Catalogue, scaled_as: Catalogue | None
) -> Shapes:
    """The sizes and tables from which the network is built."""
    items, gated = catalogue.num_items > 0, config.model_config.head == "gated"
    patterns = interface.patterns
    return Shapes(
        context_dim=interface.context_size,
        action_sizes=interface.action_sizes,
        item_features=_features(catalogue, config.model_config, scaled_as) if items else None,
        history_length=interface.history_length,
        num_signals=len(interface.signals),
        available=catalogue.available if items else None,
        slate_size=interface.slate_size,
        embeddings=interface.embeddings if items else (),
        candidates=interface if not items and interface.candidate_features else None,
        numbers=number_names(catalogue),
        kinds=item_kinds(catalogue, scaled_as) if gated and not patterns else None,
        layout=slate_layout(catalogue, patterns, scaled_as) if gated and patterns else None,
        user_columns=UserColumns.of(interface, catalogue) if items else None,
        profile=interface.profile,
    )


def agent_of(checkpoint: Checkpoint, scaled_as: Catalogue | None = None) -> Any:
    """The agent, a Learner, of a checkpoint on the CPU, made without an environment.

    ``scaled_as``: the catalogue of its training if items have joined that of the checkpoint since. Raises
    UserError if the saved state doesn't fit.
    """
    agent = make_agent(checkpoint.config, checkpoint.interface, checkpoint.catalogue, scaled_as=scaled_as)
    restore(agent, checkpoint.agent)
    return agent


def restore(agent: Any, state: Mapping[str, Tensor]) -> None:
    """Load the state of a checkpoint. Raises UserError if it doesn't fit.

    That of a policy which was laid over other items (checkpoint/stock.py) has nothing of the optimiser.
    """
    if not any(name.startswith("optimizer.") for name in state):
        own = {name: tensor for name, tensor in agent.state_dict().items() if name.startswith("optimizer.")}
        state = {**state, **own}
    with restoring():
        agent.load_state_dict(state)


def _features(
    catalogue: Catalogue, config: ModelConfig, scaled_as: Catalogue | None
) -> Tensor | SplitFeatures:
    """The item features: joined once if every item is scored, in two tables if only candidates are."""
    if config.candidates:
        return SplitFeatures(catalogue.embedding, network_columns(catalogue, scaled_as))
    return item_features(catalogue, scaled_as).cpu()
