"""The empirical Bernstein sequence of the benchmark: numbers of another implementation, and by simulation.

Numbers of `confseq` are those of test/uniform_boundaries_unittest.cpp of github.com/gostevehoward/confseq (a
reference in R).
"""

from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import brentq
from scipy.special import gammaincc, gammaln, hyp1f1
from torch.testing import assert_close

from benchmarks.harness.bernstein import empirical_bernstein, gamma_exponential


def numbers(seed: int, *size: int) -> torch.Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_gamma_boundary_is_that_of_confseq() -> None:
    """`gamma_exponential_mixture_bound(100, .05, 100, 2)` is 33.02017: in units of the scale 2, V is 25."""
    bound = gamma_exponential(torch.tensor([25.0]), 0.05, 25)
    assert 2 * float(bound) == pytest.approx(33.02017, abs=1e-5)


def test_the_gamma_boundary_solves_the_equation_of_the_paper() -> None:
    """arXiv:2210.10768, theorem 2, in its own form with a hypergeometric function, and another solver."""
    rho = 30 / (2 * math.log(1 / 0.05) + math.log(1 + 2 * math.log(1 / 0.05)))

    def log_mixture(total: float, spread: float) -> float:
        known = rho * math.log(rho) - rho - gammaln(rho) - math.log(1 - gammaincc(rho, rho))
        return float(
            known - math.log(spread + rho) + math.log(hyp1f1(1, spread + rho + 1, total + spread + rho))
        )

    spreads = [0.01, 1.0, 12.5, 80.0]
    found = [brentq(lambda s, v=v: log_mixture(s, v) - math.log(40), 0, 100) for v in spreads]
    assert gamma_exponential(torch.tensor(spreads), 0.025).tolist() == pytest.approx(found, rel=1e-8)


def test_ends_mirror_each_other_and_widen_with_a_smaller_alpha() -> None:
    terms = numbers(0, 120)
    found = torch.stack(empirical_bernstein(terms, 0, 1))
    assert_close(found, -torch.stack(empirical_bernstein(-terms, -1, 0)[::-1]))
    assert_close(found[:, :90], torch.stack(empirical_bernstein(terms[:90], 0, 1)))
    wide = torch.stack(empirical_bernstein(terms, 0, 1, 0.01))
    assert bool((wide[0] <= found[0]).all() and (wide[1] >= found[1]).all())


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_terms_narrow_down_to_their_value(value: float) -> None:
    low, high = empirical_bernstein(torch.full((2_000,), value), 0, 1)
    assert float(low[-1]) <= value <= float(high[-1]) and float(high[-1] - low[-1]) < 0.05


def test_false_alarms() -> None:
    """100 sequences of 1,000 rare clicks at two equal arms, looked at after each: at most 5 are expected."""
    alarms = 0
    for seed in range(100):
        drawn = numbers(seed, 2, 1_000)
        terms = torch.where(drawn[0] < 0.3, 1 / 0.3, -1 / 0.7) * (drawn[1] < 0.1).double()
        low, high = empirical_bernstein(terms, -1 / 0.7, 1 / 0.3)
        alarms += bool(((low > 0) | (high < 0)).any())
    assert alarms <= 12
