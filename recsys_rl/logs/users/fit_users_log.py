"""The log from which users are learned: of `recsys-rl record`, or a table of a team's own with sessions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recsys_rl.checkpoint.home import config_of_split, load_at_home
from recsys_rl.data.tables.read import files_of, is_own
from recsys_rl.env import OF_TABLES
from recsys_rl.errors import one_line
from recsys_rl.logs.checks import check_catalogue
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.source import Place, open_log, over_log, sample_of
from recsys_rl.logs.users.fit_users_config import FitUsersConfig
from recsys_rl.logs.users.from_log import check_learnable, pieces_of_users
from recsys_rl.make import make_user_model, make_world, one_visit
from recsys_rl.objective.weighted import parse_weights
from recsys_rl.protocols import UserModel
from recsys_rl.settings.config import Config, brought_settings, overlay, to_dict
from recsys_rl.settings.fields import check_used, hints
from recsys_rl.settings.names import names_a_module
from recsys_rl.settings.shared import DataConfig
from recsys_rl.training.latest import print_latest
from recsys_rl.types import Population, UserError, World
from recsys_rl.utils.seeding import generators

_STAYS = (
    "no session of the log is terminated, so the learned users never leave before the last step: give a "
    "column terminated, true where a user left"
)


class LogToFit(NamedTuple):
    """A log that has been read, and the world of its items and users."""

    log: DecisionLog
    world: World
    data_config: Mapping[str, Any]  # the settings of the world's data
    known: Tensor  # (E,) bool: decisions for training users; sessions of others are held out
    users: UserModel | None = None  # the user model of the log's platform; None: no simulator made the log
    weights: Mapping[str, float] = {}  # of the signals, where there is no user model
    fingerprint: bytes = b""


Read = tuple[LogToFit, Config, str]


def log_to_fit(options: FitUsersConfig, most_rows: int) -> Read:
    """The log with its items and users, the settings of its platform, and a note. Raises UserError.

    ``most_rows``: of a log with more rows, whole sessions are drawn.
    """
    if not options.log:
        raise UserError("The log is missing: give --log FILE.")
    own = is_own(options.log)
    if own:
        config, world = _of_table(options)
        source = open_log(options.log, Place.of_run(config, world))
    else:
        given = [*options.given, *(["items"] if options.items is not None else [])]
        check_used(*((name, True, "only for a log of your own") for name in given))
        source = open_log(options.log)
        config, world = _world(options, source.header.platform)
        source = source.at(Place.of_run(config, world))
    log, note = sample_of(source, most_rows, generators(options.seed, "rows")["rows"])
    check_learnable(source.name, log)
    if not own:
        data = f"--data {config.data_config.data} --seed {config.train_config.seed}"
        check_catalogue(source.name, log.header, world.catalogue, data)
    known = ~source.heldout(log)
    if not bool(known.any()):
        raise UserError(
            "All users of the log are held out from training: record training users (--users train, or all)."
        )
    read = LogToFit(
        log=log,
        world=_with_people(world, log, known) if own else world,
        data_config=_data_of(config, options.log[0]) if own else to_dict(config)["data_config"],
        known=known,
        users=None if own else _users_of(options, log, config, world),
        weights=config.env_config.weights if own else parse_weights(options.weights, "weights"),
        fingerprint=source.fingerprint(),
    )
    stays = "" if not own or bool(log.terminated.any()) else _STAYS
    return read, config, "\n".join(filter(None, [note, stays]))


def _data_of(config: Config, path: str) -> dict[str, Any]:
    """The settings that all sources of data have, of a table at ``path``."""
    shared = {name: getattr(config.data_config, name) for name in hints(DataConfig)}
    return {**shared, "data": str(files_of(Path(path))[0])}


def _of_table(options: FitUsersConfig) -> tuple[Config, World]:
    """The settings and the items of a table: its own, or those of the checkpoint."""
    brought, named = options.checkpoint is not None, ("data", "env")
    check_used(
        *((x, getattr(options, x) is not None, f"{options.source} brings its own items") for x in named),
        ("items", brought and options.items is not None, "--checkpoint has its items"),
        ("weights", brought and bool(options.weights), "--checkpoint has its weights"),
    )
    if options.checkpoint is None:
        given: dict[str, Any] = {"log": options.log, "items": options.items, "weights": options.weights}
        given |= {**options.given, "seed": options.seed}
        sections = overlay(brought_settings(OF_TABLES, given), {"algo": "bc", "env": OF_TABLES})
        config = Config(**{**sections, **given})
        return _with_sessions(config, options.log), make_world(config)
    checkpoint = over_log(load_at_home(options.checkpoint), options.log)
    config = config_of_split(checkpoint)
    data = dataclasses.replace(config.data_config, **options.given)
    return _with_sessions(dataclasses.replace(config, data_config=data), options.log), checkpoint.world


def _with_sessions(config: Config, log: Sequence[str]) -> Config:
    """The settings. Raises UserError for those of single decisions."""
    if config.env_config.max_episode_steps == 1:
        raise UserError(
            f"{' + '.join(map(one_line, log))} holds single decisions, and learned users answer through a "
            "session: name the column of sessions (--session-column), or learn a policy from the log itself, "
            f"as with recsys-rl train --algo reinforce --log {' '.join(map(one_line, log))}."
        )
    return config


def _with_people(world: World, log: DecisionLog, known: Tensor) -> World:
    """The world with the users of a table, whose profiles are in the log if it has any.

    ``known`` (E,) bool: decisions for training users. Raises UserError if nobody is held out.
    """
    ids, given = pieces_of_users(log)
    size = world.catalogue.embedding.shape[1]
    profile = given.get("profile", torch.zeros(0, 0))
    if profile.shape != (len(ids), size):
        profile = torch.zeros(len(ids), size)
    training = torch.isin(ids, log.users[known])
    if bool(training.all()):
        raise UserError(
            f"No user of the log is held out, as it has only {len(ids):,} of them: give a log of more users, "
            "or another --seed."
        )
    people = Population(
        taste=profile,
        profile=profile,
        user_ids=ids,
        train=training.nonzero().squeeze(1),
        heldout=(~training).nonzero().squeeze(1),
    )
    return World(world.catalogue, people)


def _world(options: FitUsersConfig, platform: str) -> tuple[Config, World]:
    """The settings and the world of the checkpoint, or of --data and the log's platform."""
    if options.checkpoint is not None:
        check_used(("data", options.data is not None, "--checkpoint has its items"))
        checkpoint = load_at_home(options.checkpoint, options.env, platform)
        if checkpoint.world.is_empty:
            raise UserError(f"{options.checkpoint} has no catalogue, and a log is of one: give another one.")
        if not options.quiet:
            print_latest(options.checkpoint, checkpoint)
        return one_visit(config_of_split(checkpoint)), checkpoint.world
    if options.env is None and options.data is None:
        raise UserError("The items are missing: give --checkpoint FILE, or --data SOURCE of the log's items.")
    env = options.env or platform
    if not env or (options.env is None and names_a_module(env)):  # a file may name no module to import
        what = f"is of {env}, which imports a module" if env else "names no platform"
        raise UserError(f"{options.source} {what}: give --env NAME beside --data.")
    given: dict[str, Any] = {} if options.data is None else {"data": options.data}
    config = Config(env=env, seed=options.seed, **given)
    return config, make_world(config)


def _users_of(options: FitUsersConfig, log: DecisionLog, config: Config, world: World) -> UserModel | None:
    """The user model of the log's platform; None if people made the log."""
    platform = log.header.platform
    if not platform:
        return None
    if platform != config.env:
        what = options.checkpoint if options.checkpoint is not None else f"--env {config.env}"
        raise UserError(
            f"{options.source} is a log of {platform}, and {what} is of {config.env}: give the platform of "
            "the log."
        )
    return make_user_model(config, world)
