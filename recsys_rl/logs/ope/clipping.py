"""The choice of a clip c from a grid by estimated mean squared error."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recsys_rl.logs.ope.diagnostics import standard_error
from recsys_rl.logs.ope.estimators import MODEL, Estimator, Evidence

WARNING = (
    "No promise of coverage: the clip was chosen on this log, and the interval does not cover the error that "
    "the clip makes."
)


# argmin_c  se(c)^2 + (mean (w_c - w)(r - q))^2, with q = 0 where the estimator has no reward model
def by_error(
    estimator: Estimator, log: Evidence, users: Tensor | None = None, grid: Sequence[float] = ()
) -> float:
    """The c of the grid with the smallest estimated mean squared error; of equal ones the least biased.

    ``users`` (N,): the error is estimated over users. ``grid``: another than the estimator's.
    """
    assert estimator.clip is not None
    residual = log.residual if MODEL in estimator.needs else log.rewards
    errors = []
    grid = grid or estimator.clip.grid
    for clip in grid:
        bias = ((estimator.clip.weight(log.weights, clip) - log.weights) * residual).mean()
        errors.append(standard_error(estimator.clipped(log, clip), users) ** 2 + bias**2)
    error = torch.stack(errors)
    return grid[int((error <= error.min() * (1 + 1e-12)).nonzero().max())]
