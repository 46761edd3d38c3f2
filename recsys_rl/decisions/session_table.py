"""From a DecisionLog to a SessionTable: whole sessions as padded tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_rl.decisions.log import DecisionLog
from recsys_rl.types import SessionTable


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
    kept = log.signals if signals is None else log.signals[..., signals]  # (E, K, S)
    items = log.items.new_full((*shape, log.items.shape[1]), -1)
    outcomes = kept.new_zeros(*shape, *kept.shape[1:])
    earned = torch.zeros(shape)
    items[session, log.steps] = log.items
    outcomes[session, log.steps] = kept
    earned[session, log.steps] = rewards.float()
    return SessionTable(
        users=log.users[first],
        times=log.times[first],
        given={name: x[first] for name, x in log.given.items()},
        items=items,
        signals=outcomes,
        rewards=earned,
        lengths=lengths,
        left=log.terminated[first + lengths - 1],
    )
