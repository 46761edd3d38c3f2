"""The choice of a clip c from a grid: by estimated mean squared error, or by SLOPE."""

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


# Su, Srinath and Krishnamurthy 2020, "Adaptive estimator selection for off-policy evaluation" (SLOPE): from
# the least biased to the most, the last c whose estimate agrees with all before it:
# |theta_i - theta_j| <= width_i + (sqrt 6 - 1) width_j for all j before i
def by_slope(
    estimator: Estimator,
    log: Evidence,
    users: Tensor | None = None,
    grid: Sequence[float] = (),
    spread: float = 2.0,
) -> float:
    """The c of the grid by SLOPE; an interval is ``spread`` standard errors wide to each side.

    ``users`` and ``grid``: as in ``by_error``.
    """
    assert estimator.clip is not None
    grid = grid or estimator.clip.grid
    known: list[tuple[float, float]] = []
    chosen = grid[-1]
    for clip in reversed(grid):  # from the least biased
        terms = estimator.clipped(log, clip)
        value, width = float(terms.mean()), spread * float(standard_error(terms, users))
        if any(abs(value - other) > width + (6**0.5 - 1) * theirs for other, theirs in known):
            break
        known.append((value, width))
        chosen = clip
    return chosen
