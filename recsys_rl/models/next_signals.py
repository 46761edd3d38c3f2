"""The auxiliary loss of an encoder: the error of the signals that it expects of the next entry of a history.

For an item with the features f, the signal y_s is expected to be::

    E[(y_s - mean_s) / deviation_s] = q_s . f        [q_1, ..., q_S] = [context, summary] W + c
    loss = mean over known entries and signals of (q_s . f - (y_s - mean_s) / deviation_s)^2

with mean and deviation over the known entries of the rollout (of each process alone). The return tells an
encoder little of what a history means; the signals tell it at each step. This is an auxiliary task (Jaderberg
et al. 2017, arXiv:1611.05397). The vectors q_s lie in the space of item features, so a head can let them vote
for the items whose signals are expected to be high.

The reaction that ends a session is not in the history of a later observation, so it is not learned: the
signals are expected of sessions that go on.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from recsys_rl.models.encoders import Linear
from recsys_rl.types import Obs


class Entries(NamedTuple):
    """The newest entry that each step of a rollout adds to the history, (B, ...) for B = T N steps.

    Of a slate it is the last place. Where the history holds events, it is an event that ended in this step.
    """

    items: Tensor  # (B,) int64; any item where none is known
    signals: Tensor  # (B, S), standardised over the known ones; a signal that doesn't vary is 0
    known: Tensor  # (B,) bool

    def rows(self, index: Tensor) -> Entries:
        return Entries(*(tensor.index_select(0, index) for tensor in self))

    def split(self, size: int) -> list[Entries]:
        """Views of ``size`` rows each; the last may have fewer."""
        return [Entries(*pieces) for pieces in zip(*(tensor.split(size) for tensor in self), strict=True)]


def next_entries(obs: Obs, done: Tensor) -> Entries:
    """The newest entries of the next observations of ``obs`` (T, N, ...), a rollout.

    An entry is not known after a step that ended the session (``done``, (T, N)), after one that added none,
    and after the last step, whose next observation the rollout doesn't hold.
    """
    history, signals = obs.history, obs.signals  # (T, N, L), (T, N, L, S)
    assert history is not None and signals is not None
    known = torch.zeros_like(done)
    same = (history[:-1] == history[1:]).all(-1) & (signals[:-1] == signals[1:]).flatten(2).all(-1)
    known[:-1] = ~same & (history[1:, :, -1] >= 0) & ~done[:-1]
    seen, each = signals[:, :, -1].roll(-1, 0), known.unsqueeze(-1)  # (T, N, S), (T, N, 1)
    number = known.sum().clamp_min(1)
    around = seen - (seen * each).sum((0, 1)) / number
    deviation = ((around.square() * each).sum((0, 1)) / number).sqrt().clamp_min(1e-3)
    items = history[..., -1].roll(-1, 0).clamp_min(0)  # (T, N)
    return Entries(*(tensor.flatten(0, 1) for tensor in (items, around / deviation, known)))


class NextSignals(nn.Module):
    """The vectors q of the S signals, from the context (F numbers) and an encoder's summary (H)."""

    def __init__(
        self, num_inputs: int, num_item_features: int, num_signals: int, generator: torch.Generator
    ) -> None:
        """``num_inputs``: F + H."""
        super().__init__()
        self.layer = Linear(num_inputs, num_signals * num_item_features, 0.01, generator)
        self.num_signals = num_signals

    def forward(self, context: Tensor, summary: Tensor) -> Tensor:
        """``context`` (N, F), ``summary`` (N, H) -> q (N, S, F_i)."""
        flat: Tensor = self.layer(torch.cat([context, summary], 1))
        queries: Tensor = flat.unflatten(1, (self.num_signals, -1))
        return queries


def signal_loss(queries: Tensor, features: Tensor, entries: Entries) -> Tensor:
    """The loss of B samples, from ``queries`` (B, S, F_i) and the ``features`` (B, F_i) of the items.

    Returns: a scalar, 0 if no entry is known.
    """
    expected = (queries @ features.unsqueeze(2)).squeeze(2)  # (B, S)
    error = (expected - entries.signals).square().mean(1)  # (B,)
    loss: Tensor = error.masked_fill(~entries.known, 0.0).sum() / entries.known.sum().clamp_min(1)
    return loss
