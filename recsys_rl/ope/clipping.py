"""The choice of a clip c from a grid: by estimated mean squared error, or by SLOPE. Never by the answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recsys_rl.ope.bandit import CLIPPED, Decisions
from recsys_rl.ope.intervals import standard_error

WARNING = (
    "No promise of coverage: the clip was chosen on this log, and the interval does not cover the error that "
    "the clip makes."
)
INFINITE = float("inf")
GRID = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0, 1000.0, INFINITE)
"""Clips of weights, from the smallest to none."""
SUBGAUSSIAN_GRID = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.0)
"""c of ``sg``, in the same order: from the largest bias to none."""


def grid_of(estimator: str) -> tuple[float, ...]:
    return SUBGAUSSIAN_GRID if estimator == "sg" else GRID


# argmin_c  se(c)^2 + (mean (w_c - w)(r - q))^2, with q = 0 where the estimator has no reward model
def by_error(estimator: str, log: Decisions, grid: Sequence[float], users: Tensor | None = None) -> float:
    """The c of ``grid`` with the smallest estimated mean squared error; of equal ones the least biased."""
    estimate, weight = CLIPPED[estimator]
    residual = log.residual if estimator in ("switch-dr", "dros") else log.rewards
    errors = []
    for clip in grid:
        bias = ((weight(log.weights, clip) - log.weights) * residual).mean()
        errors.append(standard_error(estimate(log, clip), users) ** 2 + bias**2)
    error = torch.stack(errors)
    return grid[int((error <= error.min() * (1 + 1e-12)).nonzero().max())]


# Su, Srinath and Krishnamurthy 2020, "Adaptive estimator selection for off-policy evaluation" (SLOPE): from
# the least biased to the most, the last c whose estimate agrees with all before it:
# |theta_i - theta_j| <= width_i + (sqrt 6 - 1) width_j for all j before i
def by_slope(
    estimator: str, log: Decisions, grid: Sequence[float], users: Tensor | None = None, spread: float = 2.0
) -> float:
    """The c of ``grid`` by SLOPE; an interval is ``spread`` standard errors wide to each side."""
    estimate, _ = CLIPPED[estimator]
    known: list[tuple[float, float]] = []
    chosen = grid[-1]
    for clip in reversed(grid):  # from the least biased
        terms = estimate(log, clip)
        value, width = float(terms.mean()), spread * float(standard_error(terms, users))
        if any(abs(value - other) > width + (6**0.5 - 1) * theirs for other, theirs in known):
            break
        known.append((value, width))
        chosen = clip
    return chosen
