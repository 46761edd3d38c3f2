"""Numbers about an update: means over its gradient steps, and the values of first states."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from recsys_rl.types import Transitions


class StepMeans:
    """Means of named numbers over the gradient steps of an update. The device is read once, at its end."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.steps: list[Tensor] = []  # (number of names,) each

    def add(self, **numbers: Tensor) -> None:
        """Take the numbers, () each, of one gradient step. Each step has the same names."""
        self.names = tuple(numbers)
        self.steps.append(torch.stack([number.detach() for number in numbers.values()]))

    def means(self) -> dict[str, float]:
        """The means by name; empty without a step."""
        if not self.steps:
            return {}
        return dict(zip(self.names, torch.stack(self.steps).mean(0).tolist(), strict=True))


class StartValues:
    """The mean value of the first states of sessions, beside the mean return of the same sessions.

    A value far above any return means that values run away; docs/11_offline.md has an example.
    """

    def __init__(self) -> None:
        self.sums: list[Tensor] = []  # (3,) each: of values, of returns, number of first states

    def add(self, batch: Transitions, values: Callable[[Transitions], Tensor]) -> None:
        """Take the ``values`` (n,) of those n rows of ``batch`` that begin a session."""
        if batch.steps is None or batch.returns_to_go is None:
            return
        first = (batch.steps == 0).nonzero().squeeze(1)
        if len(first):
            with torch.no_grad():
                predicted = values(batch.rows(first))
            count = predicted.new_tensor(len(first))
            self.sums.append(torch.stack([predicted.sum(), batch.returns_to_go[first].sum(), count]))

    def means(self) -> dict[str, float]:
        """``value_start`` and ``return_start``; NaN without a first state."""
        if not self.sums:
            return {"value_start": math.nan, "return_start": math.nan}
        value, returns, count = torch.stack(self.sums).sum(0).tolist()
        return {"value_start": value / count, "return_start": returns / count}
