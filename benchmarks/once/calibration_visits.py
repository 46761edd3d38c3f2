"""Days on which users are active: of KuaiRand's users, and of simulated lives under the popularity policy."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from recsys_rl.env.rec_env import RecEnv
from recsys_rl.env.visits import DAYS
from recsys_rl.evaluation.rivals.baselines import FixedList, most_popular
from recsys_rl.experience.rollout import play
from recsys_rl.make import make_env
from recsys_rl.settings.config import Config
from recsys_rl.types import World

Array = NDArray[Any]
LOGGED_DAYS = 14  # of the real log
TOP = 0.1  # share of the simulated users who count as heavy: those with the most videos in these days


def simulate_days(config: Config, world: World, seed: int = 0) -> Array:
    """(U, DAYS) int64: videos that each user of the world watches on each day of one life.

    Each visit shows the most popular videos, best first.
    """
    lives = dataclasses.replace(config, env_config=dataclasses.replace(config.env_config, visits=DAYS))
    everyone = torch.arange(len(world.population.user_ids))
    env = make_env(lives, world, len(everyone), torch.Generator().manual_seed(seed))
    assert isinstance(env, RecEnv)
    env.users = everyone
    listed = FixedList(most_popular(world.catalogue, config.env_config.max_episode_steps), 1)
    days = play(env, listed, everyone).days
    assert days is not None
    counts = torch.zeros(len(everyone), DAYS + 1, dtype=torch.int64)
    counts.scatter_add_(1, days.T % (DAYS + 1), torch.ones_like(days.T))  # -1 goes to the last column
    return np.asarray(counts[:, :DAYS].numpy())


def heavy_users(counts: Array) -> Array:
    """The rows of the TOP share of users by videos in the first LOGGED_DAYS days."""
    watched = counts[:, :LOGGED_DAYS].sum(1)
    return np.asarray(counts[np.argsort(-watched, kind="stable")[: max(1, round(TOP * len(counts)))]])


def gaps_of(counts: Array) -> Array:
    """Days between consecutive active days of each user, in the first LOGGED_DAYS days."""
    gaps = [np.diff(np.flatnonzero(user)) for user in counts[:, :LOGGED_DAYS]]
    return np.concatenate([*gaps, np.zeros(0, np.int64)])


def real_gaps(views: pl.DataFrame) -> Array:
    """The same of a log with the columns user_id and date (20220408)."""
    days = views.select("user_id", pl.col("date").cast(pl.String).str.to_date("%Y%m%d")).unique()
    before = pl.col("date").shift(1).over("user_id")
    gaps = days.sort("user_id", "date").select((pl.col("date") - before).dt.total_days())
    return gaps.to_series().drop_nulls().to_numpy()


def gap_shares(gaps: Array) -> Array:
    """(4,): shares of gaps of 1, 2, 3 and more days."""
    return np.bincount(np.minimum(gaps, 4).astype(np.int64), minlength=5)[1:] / max(1, len(gaps))


def retention(counts: Array, day: int) -> float:
    """Share of the users who are active on this day after the first."""
    return float((counts[:, day] > 0).mean())
