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
from recsys_rl.models.fast.kept import Kept
from recsys_rl.models.towers import RATE
from recsys_rl.types import tree_map

STOCKS = 8  # compiled/deep_sets.c has the number, too
LOUD = 4.0  # hidden layers learn sooner from larger numbers, and stocks are few
FIRST_GAIN = 0.2 / RATE  # of V: a dozen first entries don't fill a stock
FIRST_KEEP = (1.5, 6.0)  # logits of the first and the last stock's keep: .82 and .998


@dataclass(frozen=True)
class Units:
    """The units of the last L entries of N users, the latest last; 0 at padding."""

    units: Tensor  # (N, L, H): h
    pushes: Tensor  # (N, L, STOCKS): w


class DeepSets(nn.Module):
    """Adds up hidden units of the entries. Without an entry the summary is 0."""

    products, reads_profile, expects_signals = False, True, False
    profile: slice | None = None

    def __init__(self, num_inputs: int, length: int, generator: torch.Generator, size: int = 64) -> None:
        """``length``: L, entries of the window. ``num_inputs``: X, numbers of an entry. ``size``: H."""
        super().__init__()
        self.out_features, self.length = size + STOCKS, length
        self.layer = Linear(num_inputs, size, 2**0.5, generator)
        self.push = Linear(size, STOCKS, FIRST_GAIN, generator)
        self.keep = nn.Parameter(torch.linspace(*FIRST_KEEP, STOCKS) / RATE)
        self.kept = Kept()

    def start(self, n: int) -> Units:
        """The state of ``n`` users before their first entry."""
        zeros = self.layer.bias.new_zeros
        return Units(*(zeros(n, self.length, part.bias.shape[0]) for part in (self.layer, self.push)))

    def encode(self, entries: Tensor, shown: Tensor) -> Units:
        """The state after the entries (N, L, X) where ``shown`` (N, L); the others stand before them."""
        of_entries, there = self._of(entries.flatten(0, 1)), shown.unsqueeze(2)
        return tree_map(lambda numbers: numbers.unflatten(0, shown.shape) * there, of_entries)

    def step(self, state: Units, entry: Tensor, shown: Tensor | None) -> Units:
        """The state after one more entry (N, X) of the users where ``shown`` (N,)."""

        def moved(old: Tensor, new: Tensor) -> Tensor:
            later = torch.cat([old[:, 1:], new.unsqueeze(1)], 1)
            return later if shown is None else torch.where(shown.view(-1, 1, 1), later, old)

        return tree_map(moved, state, self._of(entry))

    def read(self, state: Units) -> Tensor:
        """The summary (N, H + STOCKS) of each history."""
        return self.summary(state.units.mean(1), state.pushes)

    def summary(self, mean: Tensor, pushes: Tensor) -> Tensor:
        """The summary (N, H + STOCKS) from the mean (N, H) and w (N, L, STOCKS), 0 at padding."""
        left = self.kept.of(self._left, self.keep)
        sums = (pushes * left).cumsum(1)  # (N, L, STOCKS): x
        stocks = sums[:, -1] - (sums - left).max(1).values.relu()
        return torch.cat([mean, LOUD * stocks], 1)

    def _left(self, keep: Tensor) -> Tensor:
        """keep^(L - t), (L, STOCKS)."""
        age = torch.arange(self.length - 1, -1, -1, device=keep.device).unsqueeze(1)  # (L, 1)
        return (RATE * keep).sigmoid() ** age

    def _of(self, entries: Tensor) -> Units:
        """h (n, H) and w (n, STOCKS) of n entries (n, X)."""
        units, (weight, bias) = self.layer(entries).relu_(), self.to_stocks
        return Units(units, torch.addmm(bias, units, weight))

    @property
    def to_stocks(self) -> tuple[Tensor, Tensor]:
        """RATE V (H, STOCKS) and RATE c (STOCKS,)."""
        return RATE * self.push.weight, RATE * self.push.bias
