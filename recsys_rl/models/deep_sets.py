"""The mean over a history of a small network of each entry (Deep Sets, Zaheer et al. 2017, arXiv:1703.06114).

With the features f_k of the item shown k places ago, its signals s_k, and the user's profile u::

    h_k = relu([f_k, s_k, u . e_k] W + b)        summary = sum_k h_k / L

``SessionSum`` is linear in the features, so it can't add up what an item did to the user: how satisfied they
were is a curved function of their reaction, the item and the taste. Here each item has its own hidden units,
and their sum can follow a hidden stock such as patience. In recommenders, deep interest networks (Zhou et al.
2018, arXiv:1706.06978) read a history in this way.

The sum is divided by the length L of the window, and not by the number of entries: a stock grows with them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys_rl.models.encoders import Linear


@dataclass(frozen=True)
class Units:
    """The hidden units of the last L entries of N users, the latest last, and which of them are entries."""

    units: Tensor  # (N, L, H)
    shares: Tensor  # (N, L): 1 / L of an entry, 0 of padding


class DeepSets(nn.Module):
    """Adds up hidden units of the entries. Without an entry the summary is 0."""

    products, reads_profile, expects_signals = False, True, False
    profile: slice | None = None

    def __init__(self, num_inputs: int, length: int, generator: torch.Generator, size: int = 32) -> None:
        """``length``: L, entries of the window. ``num_inputs``: X, numbers of an entry."""
        super().__init__()
        self.out_features, self.length = size, length
        self.layer = Linear(num_inputs, size, 2**0.5, generator)

    def start(self, n: int) -> Units:
        """The state of ``n`` users before their first entry."""
        zeros = self.layer.bias.new_zeros
        return Units(zeros(n, self.length, self.out_features), zeros(n, self.length))

    def encode(self, entries: Tensor, shown: Tensor) -> Units:
        """The state after the entries (N, L, X) where ``shown`` (N, L); the others stand before them."""
        units = self.layer(entries.flatten(0, 1)).relu_()  # (N L, H)
        return Units(units.unflatten(0, shown.shape), shown.to(units.dtype) / self.length)

    def step(self, state: Units, entry: Tensor, shown: Tensor | None) -> Units:
        """The state after one more entry (N, X) of the users where ``shown`` (N,)."""
        units = torch.cat([state.units[:, 1:], self.layer(entry).relu_().unsqueeze(1)], 1)
        share = torch.full_like(state.shares[:, :1], 1 / self.length)
        shares = torch.cat([state.shares[:, 1:], share], 1)
        if shown is not None:
            units = torch.where(shown.view(-1, 1, 1), units, state.units)
            shares = torch.where(shown.unsqueeze(1), shares, state.shares)
        return Units(units, shares)

    def read(self, state: Units) -> Tensor:
        """The summary (N, H) of each history."""
        return (state.shares.unsqueeze(1) @ state.units).squeeze(1)
