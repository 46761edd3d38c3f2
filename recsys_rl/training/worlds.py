"""A checkpoint in another world than that of its training, with the same items, users and interface.

A policy that was trained in users learned from a log is played with the simulator that made the log.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.checkpoint.home import config_at_home
from recsys_rl.errors import FieldError
from recsys_rl.make import make_env
from recsys_rl.settings.config import Config
from recsys_rl.settings.fields import check_used
from recsys_rl.settings.names import has_own_world, platform_of
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.types import Interface, UserError, World


def check_world(world: str | None) -> None:
    """Raise UserError for a platform that doesn't exist, or that has no items."""
    if world is None:
        return
    try:
        platform_of(world)
    except FieldError as error:
        raise FieldError("world", error.complaint) from None
    if has_own_world(world):
        raise FieldError(
            "world", f"is {world}: it brings its own world, without items; give a platform with a catalogue."
        )


def played_in(path: str | Path, checkpoint: Checkpoint, world: str) -> Checkpoint:
    """The checkpoint as if its environment was the platform ``world``, on the checkpoint's items and users.

    Another platform has the sizes of the training, and else the settings of its preset; the same platform
    keeps the settings of the training, and the platform behind the log of learned users has its own.
    Attributes of items and users that the platform needs and the checkpoint lacks are drawn from the seed of
    the training.

    Raises UserError for a checkpoint without a catalogue, and for a world whose observations, actions or
    features of items are other ones than those of the training.
    """
    home = checkpoint.info.get("home", {})
    moved, other = place_of(checkpoint.config, checkpoint.world, checkpoint.interface, world, str(path), home)
    return dataclasses.replace(checkpoint, config=moved, world=other)


def place_of(
    config: Config, of: World, interface: Interface, world: str, who: str, home: Mapping[str, Any]
) -> tuple[Config, World]:
    """The settings and the world of a run (``config``, ``of``, ``interface``) in the platform ``world``.

    As ``played_in``; ``who`` is the name of the policy in errors, ``home`` the platform behind the log of
    learned users (checkpoint/home.py), {} if there is none.
    """
    check_used(("world", of.is_empty, f"{who} is of {config.env}, which has no items and users of its own"))
    if home.get("env") == world:
        config = config_at_home(config, home)
    with _settings_named(world):
        settings, other = _settings_there(config, world), _with_attributes(config, of, world)
    if other.catalogue.features != of.catalogue.features:
        raise UserError(
            f"--world {world} has other features of items than {config.env}, where {who} was trained, and "
            "its network reads those: choose a world with the same ones."
        )
    with _settings_named(world):
        there = make_env(settings, other, 1, heldout=True, training=False).interface
    for name, mine in vars(interface).items():
        theirs = getattr(there, name)
        if mine != theirs:
            raise UserError(
                f"--world {world} has another interface than {config.env}, where {who} was trained: its "
                f"{name} is {theirs}, not {mine}; choose a world with the same one."
            )
    # What a run judges is of no use elsewhere.
    training = dataclasses.replace(config.train_config, judge_log=None, world=None)
    there_config = {**vars(config), "env": world, "env_config": settings.env_config, "train_config": training}
    return Config(**there_config), other


@contextlib.contextmanager
def _settings_named(world: str) -> Iterator[None]:
    """An error about a setting of the platform ``world`` names this platform: nobody gave it as an option."""
    try:
        yield
    except FieldError as error:
        name = error.field.rpartition(".")[2]
        raise UserError(f"--world {world}: its setting {name} {error.complaint}") from None


def _settings_there(config: Config, world: str) -> Config:
    """Settings of the platform ``world`` with the data of ``config``, for any algorithm.

    The algorithm stays out, as a network that doesn't fit is an interface that doesn't.
    """
    names = [f.name for f in dataclasses.fields(config.env_config if world == config.env else EnvConfig)]
    sizes = {name: getattr(config.env_config, name) for name in names}
    seed = config.train_config.seed
    return Config(env=world, data_config=config.data_config, env_config=sizes, seed=seed)


def _with_attributes(config: Config, of: World, world: str) -> World:
    """The items and users of a run with the attributes that ``world`` needs; their own ones stay."""
    catalogue, population = of
    add_attributes = platform_of(world).add_attributes
    if world == config.env or add_attributes is None:
        return of
    added, users = add_attributes(of, config.train_config.seed)
    return World(
        dataclasses.replace(added, attributes={**added.attributes, **catalogue.attributes}),
        dataclasses.replace(users, attributes={**users.attributes, **population.attributes}),
    )
