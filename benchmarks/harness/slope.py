"""SLOPE: another choice of a clip, that of the published table of Open Bandit."""

from __future__ import annotations

from collections.abc import Sequence

from recsys_rl.logs.ope.diagnostics import standard_error
from recsys_rl.logs.ope.estimators import GRID, Estimator, Evidence


# Su, Srinath and Krishnamurthy 2020, "Adaptive estimator selection for off-policy evaluation" (SLOPE): from
# the least biased to the most, the last c whose estimate agrees with all before it:
# |theta_i - theta_j| <= width_i + (sqrt 6 - 1) width_j for all j before i
def by_slope(
    estimator: Estimator,
    log: Evidence,
    grid: Sequence[float] = GRID,
    spread: float = 2.0,
) -> float:
    """The c of the grid by SLOPE; an interval is ``spread`` standard errors wide to each side."""
    known: list[tuple[float, float]] = []
    chosen = grid[-1]
    for clip in reversed(grid):  # from the least biased
        terms = estimator.clipped(log, clip)
        value, width = float(terms.mean()), spread * float(standard_error(terms))
        if any(abs(value - other) > width + (6**0.5 - 1) * theirs for other, theirs in known):
            break
        known.append((value, width))
        chosen = clip
    return chosen
