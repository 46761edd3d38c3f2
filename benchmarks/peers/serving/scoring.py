"""The scoring function of our server, for others: the first item of a visit, and its probability."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

import torch

from recsys_rl.recommender.visit import NOON
from recsys_rl.serving.draw.draw_request import DrawRequest, draw
from recsys_rl.serving.draw.versions import open_version

CHECKPOINT = "CHECKPOINT"
"""The environment variable that names the policy."""
MOST = 64  # people of a batch, as in our server
COMPANY = 1e-3  # seconds that a batch waits for more


class Scoring:
    """The policy of a checkpoint."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.version = open_version(Path(os.environ[CHECKPOINT]), 1)
        self.rng = random.Random(0)
        self(["0"])  # the first call of a network takes longer than the others

    def __call__(self, users: Sequence[str]) -> list[tuple[str, str, float]]:
        """Item, title and probability for each of these people."""
        version, title = self.version, self.version.checkpoint.catalogue.title
        rows, rng = version.row_of_user, self.rng
        requests = [
            DrawRequest(0, version, rows.get(user, -1), (), NOON, None, (), NOON, (rng.random(),))
            for user in users
        ]
        results = draw(requests)
        chances = torch.tensor([result.logprobs[0] for result in results], dtype=torch.float64).exp().tolist()
        items = [result.items[0] for result in results]
        return [
            (version.item_ids[item], title(item), chance) for item, chance in zip(items, chances, strict=True)
        ]
