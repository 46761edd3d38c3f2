"""Make a world, an environment and an agent from the settings of a run.

The functions here take the whole Config. Of what they make, each object gets only its own section.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recsys_rl.checkpoint.users import LearnedFile, load_users
from recsys_rl.data.catalogue import LikesConfig, split_users
from recsys_rl.data.new_users import in_place_of_heldout, new_users
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.errors import FieldError
from recsys_rl.experience.on_policy import OnPolicy
from recsys_rl.experience.replay import Replay
from recsys_rl.models.actor_critic import ActorCritic, Shapes
from recsys_rl.models.features import SplitFeatures
from recsys_rl.models.heads import item_kinds
from recsys_rl.models.item_columns import NUMBERS, feature_names, item_columns, item_features
from recsys_rl.objective.objectives import make_objectives
from recsys_rl.objective.weighted import FIELD, parse_weights
from recsys_rl.protocols import Env, Experience, Learner, UserModel
from recsys_rl.settings.config import Config
from recsys_rl.settings.names import source_of
from recsys_rl.settings.shared import LoggedConfig, ModelConfig, OnPolicyConfig, ReplayConfig
from recsys_rl.types import Catalogue, InteractionLog, Interface, Population, UserError, World, empty_world
from recsys_rl.user_columns import UserColumns
from recsys_rl.utils.seeding import generators as make_generators
from recsys_rl.utils.seeding import stream_seed
from recsys_rl.utils.user_hashes import number_of

if TYPE_CHECKING:
    from recsys_rl.experience.logged import Logged
    from recsys_rl.experience.recorder import Recorder
    from recsys_rl.tables.decision_log import DecisionLog
    from recsys_rl.tables.transitions import TransitionTable


def make_world(config: Config) -> World:
    """Load the data and learn the embeddings (cached), or draw a synthetic world from the seed.

    The world is empty if the platform has its own. Raises UserError if the data can't be used.
    """
    if config.platform.users is None:
        return empty_world()
    if config.platform.user_file:
        return learned_file(config).world
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
    more: tuple[Any, ...] = ()
    if config.platform.user_file:
        file = learned_file(config)
        _check_played(config, file, world)
        more = (file.facts, file.network.to(world.catalogue.embedding.device))
    user_model: UserModel = config.platform.users(*world, config.env_config, *more)
    available, length = int(world.catalogue.available.sum()), config.env_config.max_episode_steps
    if available == 0:
        raise UserError("No item of the catalogue is available: make at least one available.")
    most = length * user_model.slate_size
    if not user_model.repeats and most > available:
        field = config.platform.slate_field
        raise FieldError(
            "env_config.max_episode_steps",
            f"is {length}: a session then shows {most} different items, but the catalogue has only "
            f"{available}; lower it{f' or {field}' if hasattr(config.env_config, field) else ''}, or use a "
            "larger catalogue.",
        )
    return user_model


def learned_file(config: Config) -> LearnedFile:
    """The learned users of the settings. Raises UserError if the file is missing or can't be used."""
    path = getattr(config.env_config, config.platform.user_file)
    if path is None:
        option = f"--{config.platform.user_file.replace('_', '-')}"
        raise UserError(f"{config.env} needs its users: give {option} FILE of recsys-rl fit-users.")
    return load_users(path)


def _check_played(config: Config, file: LearnedFile, world: World) -> None:
    """Raise UserError if these users were learned on other items, or in sessions of another length."""
    from recsys_rl.tables.decision_log import catalogue_hash

    path = getattr(config.env_config, config.platform.user_file)
    if catalogue_hash(world.catalogue) != file.facts.catalogue:
        raise UserError(
            f"{path} holds users who were learned on another catalogue than that of this world: give the "
            "users, or the checkpoint, of the same items."
        )
    steps, own = config.env_config.max_episode_steps, file.facts.interface.session_length
    if steps != own:
        raise FieldError(
            "env_config.max_episode_steps",
            f"is {steps}: the users of {path} were learned in sessions of {own} steps; give {own}.",
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
    found = torch.full((len(population.user_ids),), everybody, device=population.profile.device)
    if not everybody:
        count = round(share * len(population.train))
        if count == 0:
            return None
        noise = make_generators(config.train_config.seed, "strangers")["strangers"]
        order = torch.randperm(len(population.train), generator=noise)[:count].to(found.device)
        found[population.train[order]] = True
    return found


def make_experience(
    config: Config,
    world: World,
    generators: Mapping[str, torch.Generator],
    agent_for: Callable[[Interface], Learner],
    num_updates: int = 1,
    average: Callable[[Tensor], None] | None = None,
) -> tuple[Env | None, Experience, Learner]:
    """The environment of a run (None: a log is its experience), the source of its batches, and its agent.

    Args:
        generators: the streams "users" and "shuffle".
        agent_for: makes the agent for an interface.
        num_updates: updates of the whole run.
        average: replaces a tensor in place by its mean over all processes of the run.

    Raises UserError if the algorithm can't learn there, and for a log that can't be used.
    """
    kind, settings = config.algorithm.experience, config.agent_config
    weights = parse_weights(config.train_config.weights)
    if kind == "logged":
        assert isinstance(settings, LoggedConfig)
        logged = make_logged(config, world, weights, generators["shuffle"])
        return None, logged, agent_for(logged.interface)
    env = make_env(config, world, generator=generators["users"])
    agent: Any = agent_for(env.interface)
    if kind == "replay":
        assert isinstance(settings, ReplayConfig)
        return env, Replay(env, agent, settings, weights, generators["shuffle"]), agent
    assert isinstance(settings, OnPolicyConfig)
    cells = make_generators(config.train_config.seed, "cells")["cells"]
    objectives = make_objectives(
        config.train_config, env.streams, world.catalogue, num_updates, cells, average
    )
    return env, OnPolicy(env, agent, settings.n_steps, objectives), agent


def make_logged(
    config: Config, world: World, weights: Mapping[str, float], generator: torch.Generator
) -> Logged:
    """The log of a run as its experience: the decisions of users who aren't held out.

    Raises UserError if the log is missing, of other items, of other sessions than the platform's, or without
    training users.
    """
    # polars is loaded for logs only
    from recsys_rl.experience.log_facts import best_sessions, check_facts, facts_of
    from recsys_rl.experience.logged import MOST_ROWS, Logged, has_signals, log_rewards
    from recsys_rl.tables.checks import check_catalogue
    from recsys_rl.tables.parts import gathered
    from recsys_rl.tables.read import files_of, has_header
    from recsys_rl.tables.reader import fingerprint, num_rows, read_header
    from recsys_rl.tables.transitions import transition_table

    settings = config.agent_config
    assert isinstance(settings, LoggedConfig)
    if settings.log is None:
        raise UserError(f"{config.algo} learns from a log of decisions: give --log FILE.parquet.")
    if world.is_empty:
        raise UserError(f"{config.env} has no catalogue, and a log is of one: choose a platform with items.")
    data, seed, users = config.data_config, config.train_config.seed, make_user_model(config, world)
    if data.stranger_share:
        raise FieldError(
            "data_config.stranger_share",
            f"is {data.stranger_share:g}: the profiles of a log are in the log; leave it out.",
        )
    path = Path(settings.log)
    if not has_header(path):
        raise UserError(
            f"{settings.log} is not a log of `recsys-rl record`, from which {config.algo} learns: give one "
            "(`recsys-rl ope` also judges policies on tables of other kinds)."
        )
    header = read_header(files_of(path)[0]).header
    check_catalogue(settings.log, header, world.catalogue, f"--data {data.data} --seed {seed}")
    env = RecEnv(users, world.catalogue, config.env_config, world.population.train, 1, torch.Generator())
    if header.interface != env.interface or not has_signals(header, users):
        raise UserError(
            f"{settings.log} is of other sessions than those of {config.env} (platform, length, or pieces of "
            "the context): give the settings with which it was recorded."
        )

    def training() -> Iterator[tuple[DecisionLog, Tensor]]:
        """The decisions of training users with their rewards, a part of the log at a time."""
        for log in gathered(path, MOST_ROWS):
            part = log.rows(~heldout_rows(log, world.population, data.heldout_fraction, seed))
            if part.num_rows:
                yield part, log_rewards(part, users, weights, FIELD)

    whole = sum(map(num_rows, files_of(path))) <= MOST_ROWS
    held = [*training()] if whole else None  # else it is read once more, part by part
    facts = facts_of(training() if held is None else held)
    check_facts(settings.log, config.algo, facts, config.algorithm.needs)
    endless, share = (getattr(settings, name, 0) for name in ("bootstrap_time_limit", "best_sessions"))

    def tables() -> Iterator[TransitionTable]:
        for part, rewards in training() if held is None else held:
            if 0 < share < 1:
                best = best_sessions(part, rewards, facts.least_of_best(share))
                part, rewards = part.rows(best), rewards[best]
            if part.num_rows:
                yield transition_table(
                    part, world.catalogue, rewards, settings.discount, facts.span, bool(endless)
                )

    return Logged(settings.log, tables, whole, header.interface, settings, generator, fingerprint(path))


def heldout_rows(log: DecisionLog, population: Population, heldout_fraction: float, seed: int) -> Tensor:
    """(E,) bool: decisions for held-out users.

    They are those of the population, and of the users that it lacks those whose hash says so
    (``split_users``). Of data with text for ids, a log may know a user by the number of the text
    (``number_of``).
    """
    ids, of_heldout = population.user_ids, population.heldout
    if population.user_names:
        ids = torch.cat([ids, torch.tensor([number_of(name) for name in population.user_names])])
        of_heldout = torch.cat([of_heldout, of_heldout + len(population.user_names)])
    heldout = torch.isin(log.users, ids[of_heldout])
    strange = ~torch.isin(log.users, ids)
    others, place = log.users[strange].unique(return_inverse=True)
    if len(others):
        heldout[strange] = torch.from_numpy(split_users(others.tolist(), heldout_fraction, seed))[place]
    return heldout


def make_recorder(config: Config, world: World, env: Any) -> Recorder:
    """The writer of the run's decisions, for ``record`` of train_config.

    Raises UserError where no log can hold them.
    """
    from recsys_rl.experience.recorder import Recorder
    from recsys_rl.tables.decision_log import DecisionHeader, catalogue_hash

    settings, model = config.train_config, config.model_config
    assert settings.record is not None
    if not isinstance(env, RecEnv):
        raise UserError("--record needs a platform with a catalogue, in which the run acts: leave it out.")
    if env.interface.visits > 1:
        raise UserError("--record: a log holds sessions of one visit, so train with --visits 1.")
    header = DecisionHeader(
        loggers=(config.algo,),
        interface=env.interface,
        signals=tuple(signal.name for signal in env.signals),
        discount=config.agent_config.discount,
        platform=config.env,
        catalogue=catalogue_hash(world.catalogue),
        candidates=f"{model.candidates} candidates of the policy in training" if model.candidates else "",
    )
    return Recorder(Path(settings.record), env, world.population.user_ids, header)


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
    has_items = catalogue.num_items > 0
    if not has_items and config.model_config.head != "dense":
        raise UserError(
            f"{config.env} has no catalogue of items for the {config.model_config.head} head to score: "
            "choose --head dense."
        )
    gated = config.model_config.head == "gated"
    if gated and interface.slate_size > 1:
        raise UserError(
            f"The gated head chooses one item at a time, and each step of {config.env} shows "
            f"{interface.slate_size}: choose another --head, or a slate of one item."
        )
    if has_items and config.model_config.head == "scorer" and not interface.profile:
        raise UserError(
            f"The scorer head starts as a ranking by profile, and observations of {config.env} hold no "
            "profile: choose another --head."
        )
    shapes = Shapes(
        interface.context_size,
        interface.action_sizes,
        _features(catalogue, config.model_config, scaled_as) if has_items else None,
        interface.history_length,
        len(interface.signals),
        catalogue.available if has_items else None,
        interface.slate_size,
        interface.embeddings if has_items else (),
        interface if not has_items and interface.candidate_features else None,
        (*NUMBERS, *feature_names(catalogue)),
        item_kinds(catalogue, scaled_as) if gated else None,
        UserColumns.of(interface, catalogue) if has_items else None,
        interface.profile,
    )
    if has_items and config.model_config.candidates:
        available = int(catalogue.available.sum())
        check_candidates(config.model_config, available, interface.most_shown, interface.slate_size)
    network = config.algorithm.network or ActorCritic
    model = network(shapes, config.model_config, generators["model"]).to(device or torch.device("cpu"))
    return config.algorithm.agent(model, config.agent_config, num_updates, generators, average)


def _features(
    catalogue: Catalogue, config: ModelConfig, scaled_as: Catalogue | None
) -> Tensor | SplitFeatures:
    """The item features: joined once if every item is scored, in two tables if only candidates are."""
    if config.candidates:
        return SplitFeatures(catalogue.embedding, item_columns(catalogue, scaled_as))
    return item_features(catalogue, scaled_as).cpu()


def slate_size_of(config: Config) -> int:
    """K as far as it is known before the world is made: of the settings or of the class of users, else 1."""
    of_class = getattr(config.platform.users, "slate_size", 1)
    size = getattr(config.env_config, config.platform.slate_field, of_class)
    return size if isinstance(size, int) else 1


def check_candidates(config: ModelConfig, available: int, most_shown: int, slate_size: int = 1) -> None:
    """Raise FieldError where a first stage over ``available`` items can't fill its list of candidates.

    ``most_shown``: T K items that may not be shown again at the end of a session; 0 where items repeat.
    """
    if config.candidates > available:
        raise FieldError(
            "model_config.candidates",
            f"is {config.candidates}: the catalogue has only {available} available items; give fewer "
            "candidates, or 0 to score all items.",
        )
    drawn = round(config.explore_rate * config.candidates)
    if config.explore_rate > 0 and drawn == 0:
        raise FieldError(
            "model_config.explore_rate",
            f"{config.explore_rate:g} of {config.candidates} candidates is less than one: give more "
            "candidates, a higher explore_rate, or 0 for no exploration.",
        )
    sure = config.candidates - drawn
    left = (
        f"is {config.candidates}, of which explore_rate {config.explore_rate:g} leaves {sure} to the search"
    )
    if slate_size > 1 and sure < slate_size:
        raise FieldError(
            "model_config.candidates",
            f"{left}, and a slate shows {slate_size} different items: give more candidates or a lower "
            "explore_rate.",
        )
    if sure < most_shown:  # Before the last step, all but one slate have been shown.
        raise FieldError(
            "model_config.candidates",
            f"{left}, and {most_shown - slate_size} of those may have been shown in the same session: give "
            "more candidates or a lower explore_rate.",
        )


def part_of_rank(config: Config, size: int) -> Config:
    """The settings of one of ``size`` ranks, with its share of the users, of each minibatch and buffer."""
    agent = config.agent_config
    divided = ("num_envs", "batch_size", "buffer_size", "learning_starts")
    shares = {name: -(-getattr(agent, name) // size) for name in divided if hasattr(agent, name)}
    return dataclasses.replace(
        config,
        agent_config=dataclasses.replace(agent, **shares),
        train_config=dataclasses.replace(config.train_config, num_processes=1),
    )
