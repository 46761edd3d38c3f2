"""Collectives used by training, and their single-process version.

``distributed/group.py`` has the version for several processes. All ranks must call them in the same
order, so no call may depend on a condition that differs between ranks.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor

from recsys_rl.errors import UserError
from recsys_rl.settings.config import Config
from recsys_rl.utils.stopping import stop_signals


def is_first() -> bool:
    """True in rank 0, which alone prints, and in a single process."""
    return os.environ.get("RANK", "0") == "0"


def size_of_run() -> int:
    """The number of processes that torchrun started; 1 for a single process."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"WORLD_SIZE is {text!r}: start several processes with torchrun, or unset it.")
    return int(text)


class Ranks:
    """A single process: rank 0 of 1."""

    rank: int = 0
    size: int = 1

    def gather(self, mine: Mapping[str, Tensor]) -> list[Mapping[str, Tensor]]:
        """The tensors of all ranks, in their order, on every rank. Names and shapes may differ."""
        return [mine]

    def average(self, values: Tensor) -> None:
        """Replace ``values`` by their mean over all ranks, in place."""

    def in_turn(self) -> AbstractContextManager[None]:
        """Run the block on one rank of each machine first, so that the other ranks find its files."""
        return nullcontext()

    def stop_requests(self) -> AbstractContextManager[list[int]]:
        """The list of the requests to stop that have reached this rank."""
        return stop_signals()


ALONE = Ranks()


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
