"""Hidden units of each entry of a history, their mean (Deep Sets, Zaheer et al. 2017, arXiv:1703.06114), and
stocks with a cap that the entries fill and empty.

With the features f_k of the item shown at place k, its signals s_k, and the user's profile u::

    h_k = relu([f_k, s_k, u . e_k] W + b)        mean = sum_k h_k / L
    w_k = RATE (h_k V + c)                       m <- min(1, keep m + w_k), from m = 0 before the first entry

The summary is the mean, and LOUD times the STOCKS numbers m. ``SessionSum`` is linear in the features, so it
can't add up what an item did to the user: how satisfied they were is a curved function of their reaction, the
item and the taste. Here each item has its own hidden units. In recommenders, deep interest networks (Zhou et
al. 2018, arXiv:1706.06978) read a history in this way. The mean is a sum divided by the length L of the
window, and not by the number of entries, so it grows with them.

A sum can't be full: after ten good items, the eleventh adds as much as the first. What a user has of patience
or trust has an end at which more adds nothing, and from which one bad item takes away. So each stock stops at
1, and keeps a learned share. All steps of m over a window are one expression::

    x_t = sum_(k <= t) keep^(L - k) w_k        m = x_L - max(0, max_t (x_t - keep^(L - t)))        t = 1 .. L

as what the cap has taken away is the largest excess over it so far (the reflection of a walk at a wall).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys_rl.models.encoders import Linear
from recsys_rl.models.towers import RATE
from recsys_rl.types import tree_map

STOCKS = 8
LOUD = 4.0  # hidden layers learn sooner from larger numbers, and stocks are few
FIRST_GAIN = 0.2 / RATE  # of V: a dozen first entries don't fill a stock
FIRST_KEEP = (1.5, 6.0)  # logits of the first and the last stock's keep: .82 and .998


@dataclass(frozen=True)
class Units:
    """What the last L entries of N users have, the latest last; 0 or any number at padding."""

    units: Tensor  # (N, L, H): h
    pushes: Tensor  # (N, L, STOCKS): h V + c
    shown: Tensor  # (N, L): 1 of an entry, 0 of padding


class DeepSets(nn.Module):
    """Adds up hidden units of the entries. Without an entry the summary is 0."""

    products, reads_profile = False, True
    profile: slice | None = None

    def __init__(self, num_inputs: int, length: int, generator: torch.Generator, size: int = 64) -> None:
        """``length``: L, entries of the window. ``num_inputs``: X, numbers of an entry. ``size``: H."""
        super().__init__()
        self.out_features, self.length = size + STOCKS, length
        self.layer = Linear(num_inputs, size, 2**0.5, generator)
        self.push = Linear(size, STOCKS, FIRST_GAIN, generator)
        self.keep = nn.Parameter(torch.linspace(*FIRST_KEEP, STOCKS) / RATE)

    def start(self, n: int) -> Units:
        """The state of ``n`` users before their first entry."""
        zeros, shape = self.layer.bias.new_zeros, (n, self.length)
        return Units(zeros(*shape, self.layer.bias.shape[0]), zeros(*shape, STOCKS), zeros(shape))

    def encode(self, entries: Tensor, shown: Tensor) -> Units:
        """The state after the entries (N, L, X) where ``shown`` (N, L); the others stand before them."""
        units, pushes = self._of(entries.flatten(0, 1))
        return Units(units.unflatten(0, shown.shape), pushes.unflatten(0, shown.shape), shown.to(units.dtype))

    def step(self, state: Units, entry: Tensor, shown: Tensor | None) -> Units:
        """The state after one more entry (N, X) of the users where ``shown`` (N,)."""
        fresh = Units(*self._of(entry), torch.ones_like(state.shown[:, 0]))
        return tree_map(lambda old, new: _moved(old, new, shown), state, fresh)

    def read(self, state: Units) -> Tensor:
        """The summary (N, H + STOCKS) of each history."""
        mean = ((state.shown / self.length).unsqueeze(1) @ state.units).squeeze(1)
        return self.summary(mean, state.pushes, state.shown)

    def summary(self, mean: Tensor, pushes: Tensor, shown: Tensor) -> Tensor:
        """The summary (N, H + STOCKS) from the mean (N, H), h V + c (N, L, STOCKS) and ``shown`` (N, L)."""
        age = torch.arange(self.length - 1, -1, -1, device=mean.device).unsqueeze(1)  # (L, 1)
        left = (RATE * self.keep).sigmoid() ** age  # (L, STOCKS): keep^(L - t)
        sums = (pushes * (shown.unsqueeze(2) * (RATE * left))).cumsum(1)  # (N, L, STOCKS): x
        stocks = sums[:, -1] - (sums - left).max(1).values.relu()
        return torch.cat([mean, LOUD * stocks], 1)

    def _of(self, entries: Tensor) -> tuple[Tensor, Tensor]:
        """h (n, H), and h V + c (n, STOCKS), of n entries (n, X)."""
        units = self.layer(entries).relu_()
        return units, self.push(units)


def _moved(old: Tensor, new: Tensor, shown: Tensor | None) -> Tensor:
    """The window ``old`` (N, L, ...) with ``new`` (N, ...) at its end, where ``shown`` (N,)."""
    moved = torch.cat([old[:, 1:], new.unsqueeze(1)], 1)
    return moved if shown is None else torch.where(shown.view(-1, *[1] * (old.ndim - 1)), moved, old)
