"""SessionTable: the whole sessions of a DecisionLog as padded tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from recsys_rl.logs.decision_log import DecisionLog


@dataclass(frozen=True)
class SessionTable:
    """G whole sessions of a log, padded to T steps, from which a model of users is fitted."""

    users: Tensor  # (G,) int64: the ids of the source
    times: Tensor  # (G,) int64: of the first decision
    given: Mapping[str, Tensor]  # (G, size) each: the pieces of the context that no session derives, at first
    items: Tensor  # (G, T, K) int64, -1 at empty places and after the end
    signals: Tensor  # (G, T, K, S) float32, 0 there
    rewards: Tensor  # (G, T) float32: by the platform's weights, 0 after the end
    lengths: Tensor  # (G,) int64: steps, at least 1
    left: Tensor  # (G,) bool: the user left after the last step

    @property
    def num_sessions(self) -> int:
        """G"""
        return len(self.users)

    @property
    def shown(self) -> Tensor:
        """(G, T, K) bool: places that are not empty."""
        return self.items >= 0

    @property
    def under_way(self) -> Tensor:
        """(G, T) bool: the session has this step."""
        return self._steps < self.lengths.unsqueeze(1)

    @property
    def left_after(self) -> Tensor:
        """(G, T) bool: the user left after this step."""
        return (self._steps == self.lengths.unsqueeze(1) - 1) & self.left.unsqueeze(1)

    @property
    def _steps(self) -> Tensor:
        """(T,) int64"""
        return torch.arange(self.items.shape[1], device=self.items.device)

    def rows(self, index: Tensor) -> Self:
        """The sessions at ``index`` (B,) int64, cut to the steps of the longest."""
        longest = int(self.lengths[index].max()) if len(index) else 0
        steps = ("items", "signals", "rewards")
        cut = {name: getattr(self, name)[index, :longest] for name in steps}
        rest = {name: getattr(self, name)[index] for name in ("users", "times", "lengths", "left")}
        return dataclasses.replace(
            self, given={name: values[index] for name, values in self.given.items()}, **cut, **rest
        )


def session_table(log: DecisionLog, rewards: Tensor, signals: Tensor | None = None) -> SessionTable:
    """The sessions of a log of whole sessions, in its order.

    Args:
        rewards: (E,) of its rows.
        signals: (S',) int64, places of the signals to keep; None: all.
    """
    first = (log.steps == 0).nonzero().squeeze(1)  # (G,)
    lengths = torch.diff(first, append=torch.tensor([log.num_rows]))
    session = torch.arange(len(first)).repeat_interleave(lengths)  # (E,)
    shape = (len(first), int(lengths.max()))
    responses = log.signals if signals is None else log.signals[..., signals]  # (E, K, S)
    items = log.items.new_full((*shape, log.items.shape[1]), -1)
    outcomes = responses.new_zeros(*shape, *responses.shape[1:])
    earned = torch.zeros(shape)
    items[session, log.steps] = log.items
    outcomes[session, log.steps] = responses
    earned[session, log.steps] = rewards.float()
    return SessionTable(
        users=log.users[first],
        times=log.times[first],
        given={name: values[first] for name, values in log.given.items()},
        items=items,
        signals=outcomes,
        rewards=earned,
        lengths=lengths,
        left=log.terminated[first + lengths - 1],
    )
