"""SLOPE, the choice of a clip that the published tables have."""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness.evidence import of_decisions
from benchmarks.harness.slope import by_slope
from recsys_rl.logs.ope.diagnostics import standard_error
from recsys_rl.logs.ope.estimators import ESTIMATORS, INFINITE

CLIPPED = ESTIMATORS["clipped-ips"]


def test_the_last_clip_that_agrees_with_all_before_it() -> None:
    light = of_decisions(torch.ones(50).double(), torch.rand(50).double())
    assert by_slope(CLIPPED, light) == 1.0  # all estimates agree: the most biased is as good
    heavy = of_decisions(torch.full((500,), 3.0).double(), torch.ones(500).double())
    assert by_slope(CLIPPED, heavy) == 5.0  # a smaller one would differ for sure


@pytest.mark.parametrize(("share", "chosen"), [(0.99, INFINITE), (1.01, 1.0)])
def test_slope_stops_where_two_estimates_differ_by_more_than_their_widths_allow(
    share: float, chosen: float
) -> None:
    """|theta_i - theta_j| against width_i + (sqrt 6 - 1) width_j: Su et al. 2020, section 3."""
    rng = torch.Generator().manual_seed(3)
    weights = (torch.randn(1000, generator=rng).double() - 0.5).exp()
    log = of_decisions(weights, (torch.rand(1000, generator=rng) < 0.5).double())
    i, j = CLIPPED.clipped(log, 1.0), CLIPPED.score(log)
    gap = abs(float(i.mean() - j.mean()))
    allowed = float(standard_error(i)) + 1.449489742783178 * float(standard_error(j))
    assert by_slope(CLIPPED, log, (1.0, INFINITE), spread=share * gap / allowed) == chosen
