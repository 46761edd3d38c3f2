"""Small synthetic logs, and the folder of real data if there is one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys_rl.types import InteractionLog, genres_and_year


def make_log(
    users: Sequence[int], items: Sequence[int], times: Sequence[int], ratings: Sequence[float]
) -> InteractionLog:
    """A log of rows 0..max whose source ids are 100 + user and 1000 + item, with two genres."""
    num_users, num_items = max(users) + 1, max(items) + 1
    return InteractionLog(
        users=torch.tensor(users),
        items=torch.tensor(items),
        times=torch.tensor(times),
        ratings=torch.tensor(ratings, dtype=torch.float32),
        user_ids=torch.arange(num_users) + 100,
        item_ids=torch.arange(num_items) + 1000,
        titles=tuple(f"title {item}" for item in range(num_items)),
        source="made up",
        rating_range=(1.0, 5.0),
        attributes={
            "genres": torch.nn.functional.one_hot(torch.arange(num_items) % 2, 2).float(),
            "year": torch.arange(num_items) + 1950.0,
        },
        features=genres_and_year(("even", "odd")),
    )


def two_camps(num_users: int = 60, num_items: int = 40, seed: int = 0) -> InteractionLog:
    """Each user rates 20 items in random order: those of the user's parity mostly 4 or 5, others 1 to 3."""
    rng = np.random.default_rng(seed)
    items = np.concatenate([rng.permutation(num_items)[:20] for _ in range(num_users)])
    users = np.repeat(np.arange(num_users), 20)
    liked = (users % 2 == items % 2) ^ (rng.random(len(users)) < 0.05)
    ratings = np.where(liked, rng.integers(4, 6, len(users)), rng.integers(1, 4, len(users)))
    return make_log(
        users.tolist(), items.tolist(), np.tile(np.arange(20), num_users).tolist(), ratings.tolist()
    )


def shared_data(name: str) -> Path:
    """The folder of a real dataset beside the checkout; skips the test where it is absent."""
    folder = Path(__file__).parents[2] / "shared" / "data" / name
    if not folder.is_dir():
        pytest.skip(f"no real data: ../shared/data/{name} is absent")
    return folder
