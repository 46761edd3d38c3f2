"""Frustration f and boredom g of learners, each 0 .. 1: they leave when one of them reaches 1.

After an item with a ``strain`` (a wrong answer, or a lesson too early), an ``ease`` (the probability of a
right answer) and the share m of its skill among the last items::

    tedium = max(0, ease - easy) / (1 - easy) + m
    f     <- kept f + steps[0] strain;       g <- kept g + steps[1] tedium
    f, g  <- at_night f, at_night g     after the last item of a day
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Feelings:
    """The equation of the moods of learners. A mood (N, 2) holds f and g."""

    kept: float  # share that remains after one item
    at_night: float  # share that remains overnight
    easy: float  # probability of a right answer above which an item bores
    steps: tuple[float, float]  # of frustration and of boredom

    def tedium(self, ease: Tensor, recent: Tensor) -> Tensor:
        """The tedium of an item; ``recent`` is the share m. Shapes broadcast."""
        return (ease - self.easy).clamp_min(0) / (1 - self.easy) + recent

    def changes(self, strain: Tensor, tedium: Tensor) -> Tensor:
        """Changes (..., 2) of frustration and boredom by an item, from ``strain`` and ``tedium`` (...)."""
        return torch.stack([self.steps[0] * strain, self.steps[1] * tedium], -1)

    def after(self, mood: Tensor, strain: Tensor, tedium: Tensor) -> Tensor:
        """The mood (N, 2) after an item, before the night."""
        return self.kept * mood + self.changes(strain, tedium)

    def rested(self, mood: Tensor, night: Tensor) -> Tensor:
        """The mood (N, 2), rested where ``night`` (N,) follows."""
        return torch.where(night.unsqueeze(1), self.at_night * mood, mood)
