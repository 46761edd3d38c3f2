"""Collectives used by training, and their single-process version.

``distributed/group.py`` has the version of several processes. Every rank must call them in the same
order, so none may stand behind a condition that differs between ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor

from recsys_rl.utils.stopping import stop_signals


class Ranks:
    """One process alone: rank 0 of 1."""

    rank: int = 0
    size: int = 1

    def gather(self, mine: Mapping[str, Tensor]) -> list[Mapping[str, Tensor]]:
        """Everyone's tensors in the order of ranks, on every rank; names and shapes may differ."""
        return [mine]

    def average(self, x: Tensor) -> None:
        """Replace ``x`` by its mean over all ranks, in place."""

    def in_turn(self) -> AbstractContextManager[None]:
        """Within, one rank of each machine goes first, so that the others find its files."""
        return nullcontext()

    def stop_requests(self) -> AbstractContextManager[list[int]]:
        """The requests to stop that reached this rank so far."""
        return stop_signals()


ALONE = Ranks()
