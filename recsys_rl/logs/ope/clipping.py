"""The choice of a clip c from a grid by estimated mean squared error."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_rl.logs.ope.diagnostics import standard_error
from recsys_rl.logs.ope.estimators import GRID, MODEL, Estimator, Evidence

WARNING = (
    "No promise of coverage: the clip was chosen on this log, and the interval does not cover the error that "
    "the clip makes."
)


# argmin_c  se(c)^2 + (mean (w_c - w)(r - q))^2, with q = 0 where the estimator has no reward model
def by_error(estimator: Estimator, log: Evidence, users: Tensor | None = None) -> float:
    """The c of ``GRID`` with the smallest estimated mean squared error; of equal ones the least biased.

    ``users`` (N,): the error is estimated over users.
    """
    assert estimator.clip is not None
    residual = log.residual if MODEL in estimator.needs else log.rewards
    errors = []
    for clip in GRID:
        bias = ((estimator.clip(log.weights, clip) - log.weights) * residual).mean()
        errors.append(standard_error(estimator.clipped(log, clip), users) ** 2 + bias**2)
    error = torch.stack(errors)
    return GRID[int((error <= error.min() * (1 + 1e-12)).nonzero().max())]
