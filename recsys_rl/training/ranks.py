"""Collectives used by training, and their single-process version.

``distributed/group.py`` has the version for several processes. All ranks must call them in the same
order, so no call may depend on a condition that differs between ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor

from recsys_rl.utils.stopping import stop_signals


class Ranks:
    """A single process: rank 0 of 1."""

    rank: int = 0
    size: int = 1

    def gather(self, mine: Mapping[str, Tensor]) -> list[Mapping[str, Tensor]]:
        """The tensors of all ranks, in their order, on every rank. Names and shapes may differ."""
        return [mine]

    def average(self, x: Tensor) -> None:
        """Replace ``x`` by its mean over all ranks, in place."""

    def in_turn(self) -> AbstractContextManager[None]:
        """Run the block on one rank of each machine first, so that the other ranks find its files."""
        return nullcontext()

    def stop_requests(self) -> AbstractContextManager[list[int]]:
        """The list of the requests to stop that have reached this rank."""
        return stop_signals()


ALONE = Ranks()
