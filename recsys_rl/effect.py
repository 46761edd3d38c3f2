"""Dials that would do nothing in the run that they are given to: better told than ignored.

A Config may hold them, as checkpoints and files of other platforms do; a new run refuses to begin.
"""

from __future__ import annotations

import dataclasses
from pathlib import PurePath

from recsys_rl.config import Config
from recsys_rl.errors import FieldError
from recsys_rl.schema import shown

MADE_UP = ("synthetic", "clustered", ".npy")  # data without a history of likes

PLATFORM_DIALS = {
    "drift": ("reward_decay", "user_drift"),
    "satiation": (
        "affinity_gain",
        "affinity_midpoint",
        "satiation_strength",
        "satiation_recovery",
        "catchiness_gain",
        "patience_cost",
        "patience_start",
        "patience_gain",
        "noise",
    ),
    "gym": ("normalize_obs", "normalize_reward"),
}
CATALOGUE_DIALS = ("num_items", "num_users", "embedding_dim", "max_episode_steps")
COLUMNS = ("user_column", "item_column", "time_column", "rating_column")
DATA_DIALS = ("data", "heldout_fraction", "like_threshold", "min_item_likes", "profile_fraction", *COLUMNS)
LIKES = ("like_threshold", "min_item_likes", "profile_fraction")


def check_effect(config: Config) -> None:
    """Raise FieldError for the first dial that is not at its default and acts on something else."""
    env, platform = config.env, config.env.partition(":")[0]
    for other, names in PLATFORM_DIALS.items():
        if other != platform:
            where = "gym: environments" if other == "gym" else other
            _refuse(config, "env_config", names, f"it acts on {where} alone, and env is {env}")
    if platform == "gym":
        _refuse(config, "env_config", CATALOGUE_DIALS, f"{env} is a world of its own")
        _refuse(config, "data_config", DATA_DIALS, f"{env} is a world of its own")
    else:
        _check_data(config)
    if platform != "satiation":
        _refuse(config, "model_config", ("encoder",), f"it reads a session's history, and {env} shows none")
    if not config.model_config.candidates:
        why = "it acts on the choice of candidates alone, and candidates is 0"
        _refuse(config, "model_config", ("explore_rate", "index"), why, "leave it out, or give candidates")


def _check_data(config: Config) -> None:
    data = config.data_config.data
    ending = PurePath(data).suffix
    made_up = data in MADE_UP or ending in MADE_UP
    if made_up or not ending:
        why = f"it acts on a CSV or Parquet log alone, and data is {data}"
        _refuse(config, "data_config", COLUMNS, why)
    if made_up:
        _refuse(config, "data_config", LIKES, f"it acts on real likes alone, and data is {data}")
    else:
        _refuse(
            config, "env_config", ("num_users",), f"it acts on made-up users alone, and {data} has its own"
        )


def _refuse(
    config: Config, section: str, names: tuple[str, ...], why: str, mend: str = "leave it out"
) -> None:
    part = getattr(config, section)
    defaults = {f.name: f.default for f in dataclasses.fields(part)}
    for name in names:
        value = getattr(part, name)
        if value != defaults[name]:
            raise FieldError(f"{section}.{name}", f"is {shown(value)}: {why}; {mend}.")
