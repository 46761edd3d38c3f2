"""A policy of learned users as one of the platform behind their log, where it is served, recorded and judged.

The items, the users and the interface are the same ones, so that only the settings of the platform change,
and at a team's own place the policy draws with its chance. `train`, `evaluate` and a resumed run keep the
learned users, without this chance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from recsys_rl.checkpoint import Checkpoint, load
from recsys_rl.errors import UserError, one_line
from recsys_rl.settings.config import Config, to_dict
from recsys_rl.settings.names import names_a_module


def load_at_home(
    path: str | Path, env: str | None = None, platform: str = "", *, networks: bool = True
) -> Checkpoint:
    """The checkpoint at ``path``, of the platform behind the log if it was trained in learned users.

    Args:
        env, networks: as of ``load``; the platform of a log that imports a module must be the one of ``env``.
        platform: that of a log beside the checkpoint. One of learned users' own decisions keeps these users.

    Raises the errors of ``load``.
    """
    checkpoint = load(path, env, networks=networks)
    home = checkpoint.info.get("home")
    if not home or checkpoint.config.env == platform:
        return checkpoint
    name = home["env"]
    if names_a_module(name) and name != env:
        raise UserError(
            f"{path} was trained in users of a log of {one_line(name)}, which imports a module: type "
            f"--env {one_line(name)} to allow it."
        )
    config, agent = config_at_home(checkpoint.config, home), checkpoint.agent
    chance = checkpoint.info.get("chance_at_home", 0.0)  # of an earlier version: none
    if config.platform.tables is not None and chance:
        agent = {**agent, "chance": torch.tensor(chance, dtype=torch.float64)}
    return dataclasses.replace(checkpoint, config=config, agent=agent)


def settings_of_items(path: str | Path, env: str | None = None) -> dict[str, Any]:
    """The platform, the data and the sizes of a checkpoint, as sections of settings, for a run on its items.

    Where its log brought the items, it also brought the head that can score them: then the networks are those
    of the checkpoint too. The items themselves stand in the checkpoint, and a file of items is one of others.
    ``env`` and errors: as of ``load_at_home``.
    """
    config = load_at_home(path, env).config
    names = ["env", "data_config", "env_config"] + ["model_config"] * (not config.platform.simulates)
    settings = to_dict(config)
    if not config.platform.simulates:
        settings["data_config"] = {**settings["data_config"], "items": None}
    return {name: settings[name] for name in names}


def config_at_home(config: Config, home: Mapping[str, Any]) -> Config:
    """The settings of a run in learned users on the platform ``home`` of their log, {} if it has none."""
    return Config(**{**vars(config), **home})


def split_of(checkpoint: Checkpoint) -> tuple[float, int]:
    """The share and the seed by which strangers are held out from all that the policy has learned.

    The seed is that of the run, or for a policy of learned users that of their fit.
    """
    config = checkpoint.config
    seed = checkpoint.info.get("heldout_seed", config.train_config.seed)
    return config.data_config.heldout_fraction, int(seed)


def config_of_split(checkpoint: Checkpoint) -> Config:
    """The settings of the checkpoint with the seed of ``split_of``, for what learns from the same users."""
    return with_seed(checkpoint.config, split_of(checkpoint)[1])


def with_seed(config: Config, seed: int) -> Config:
    """The settings with another seed."""
    return Config(**{**vars(config), "train_config": dataclasses.replace(config.train_config, seed=seed)})
