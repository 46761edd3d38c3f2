"""The mean of each signal of each item in a log.

The mean of an item holds the answers that are to be predicted by it. A network would trust it too much, the
more so the seldomer the signal: one of two likes of an item may be the answer itself. So the sessions are
split into folds by user, and each learns with the means of the other folds. The means of all are for sessions
that nothing is learned from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.logs.users.session_table import SessionTable

SHRINK = 20
"""Answers of an average item that join those to each item in its mean."""
FOLDS = 5


@dataclass(frozen=True)
class ItemMeans:
    """Standardised means of the S signals of I items, from G sessions."""

    all: Tensor  # (I, S): of all sessions
    others: tuple[Tensor, ...]  # (I, S) each: of the sessions outside of a fold
    fold: Tensor  # (G,) int64: the fold of each session


def item_means(table: SessionTable, num_items: int, generator: torch.Generator) -> ItemMeans:
    """The means of the signals in these sessions; ``generator`` draws the fold of each user."""
    users, user = table.users.unique(return_inverse=True)
    number = min(FOLDS, len(users))
    fold = (torch.randperm(len(users), generator=generator) % number)[user]  # (G,)
    others = tuple(means_of(table.rows((fold != p).nonzero().squeeze(1)), num_items) for p in range(number))
    return ItemMeans(means_of(table, num_items), others, fold)


def means_of(table: SessionTable, num_items: int) -> Tensor:
    """(I, S): ``shrunk_means`` with SHRINK, standardised over the items."""
    means = shrunk_means(table, num_items, SHRINK)
    deviation = means.std(0, correction=0)
    return (means - means.mean(0)) / torch.where(deviation > 1e-6, deviation, torch.inf)


def shrunk_means(table: SessionTable, num_items: int, prior: float) -> Tensor:
    """(I, S): the mean of each signal of each item, as if ``prior`` more answers had been the mean of all.

    Without an answer in the table all means are 0.
    """
    shown = table.shown  # (G, T, K)
    items, signals = table.items[shown], table.signals[shown]  # (R,), (R, S)
    count = torch.bincount(items, minlength=num_items).unsqueeze(1)  # (I, 1)
    total = signals.new_zeros(num_items, signals.shape[1]).index_add_(0, items, signals)
    mean = signals.mean(0) if len(items) else total.mean(0)
    return (total + prior * mean) / (count + prior)
