"""Logged experience: each batch is drawn uniformly from the decisions of a log."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from recsys_rl.decisions.log import DecisionLog, streams_by_name
from recsys_rl.decisions.transitions import TransitionTable
from recsys_rl.dials import LoggedConfig
from recsys_rl.errors import amount
from recsys_rl.objective.weighted import check_weights, stream_weights, weighted
from recsys_rl.protocols import UserModel
from recsys_rl.types import Batch, Interface, Stream


class Logged:
    """Batches of decisions, drawn with replacement, so that all decisions are equally likely."""

    def __init__(
        self, table: TransitionTable, interface: Interface, config: LoggedConfig, generator: torch.Generator
    ) -> None:
        """``generator`` draws the decisions of each batch."""
        self.table, self._interface, self.generator = table, interface, generator
        self.size = config.steps_per_update

    @property
    def interface(self) -> Interface:
        return self._interface

    def batch(self) -> Batch:
        drawn = torch.randint(self.table.num_rows, (self.size,), generator=self.generator)
        data = self.table.at(drawn)
        return Batch(data, {"reward_mean": data.rewards.mean().item()}, torch.zeros(2, 0))

    def describe(self) -> str:
        sessions = int((self.table.steps_left == 1).sum())
        return f"log: {amount(self.table.num_rows, 'decision')} of {amount(sessions, 'session')}"

    def state_dict(self, finished: bool = False) -> dict[str, Tensor]:
        return {}  # the run holds the generator

    def load_state_dict(self, state: Mapping[str, Tensor], finished: bool = False) -> None:
        pass


def log_rewards(
    log: DecisionLog, users: UserModel | None, weights: Mapping[str, float], field: str = "weights"
) -> Tensor:
    """The rewards (E,) of a log's decisions: the weighted sum of its reward streams.

    Args:
        users: the user model whose feedback the log holds; only its ``streams`` and ``rewards`` are used.
            None: each signal of the log is a stream with weight 0.
        weights: of the streams, in place of the platform's.
        field: the setting with the weights, for errors.

    Raises FieldError about ``field`` for a stream that does not exist.
    """
    if users is None:
        by_name = streams_by_name(log)
        streams = tuple(Stream(name, 0.0) for name in by_name)
        values = torch.stack(list(by_name.values()), 1)  # (E, M)
    else:
        streams, values = users.streams, users.rewards(log.feedback)
    check_weights(weights, streams, field)
    return weighted(values, stream_weights(streams, weights))
