"""Bounds that hold however often one looks: numbers by hand, of other implementations, and by simulation.

Numbers of `confseq` are those of test/uniform_boundaries_unittest.cpp of github.com/gostevehoward/confseq (a
reference in R); numbers of `ville` are by its version 0.1.0, with 400,001 candidates for the ends of bets.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.logs.ope.anytime import (
    TILTS,
    Capital,
    Shares,
    arm_terms,
    asymptotic,
    centred,
    radius,
)

TURN = torch.arange(1, 401)
EVEN = ((TURN * 37) % 101).double() / 100  # spread evenly over 0..1
SKEWED = torch.where((TURN - 1) % 3 == 0, EVEN, EVEN / 5)
TREATED = ((TURN - 1) * 7) % 10 < 3
MEANS = torch.tensor([0.1, 0.4, 0.5, 0.8], dtype=torch.float64)
MISTAKES = r"must|outside|don't fit"
Bounds = tuple[Tensor, Tensor]


def at(bounds: Bounds, *counts: int) -> list[tuple[float, float]]:
    """The intervals after these numbers of terms."""
    return [(float(bounds[0][count - 1]), float(bounds[1][count - 1])) for count in counts]


def log_capital(terms: Tensor, least: float | Tensor, most: float | Tensor, mean: float = 0.0) -> Bounds:
    """Of one mean, (n,) each."""
    above, below = Capital(torch.tensor([mean])).add(terms, least, most)
    return above[0], below[0]


def share_bound(of_challenger: Tensor, probability: Tensor, alpha: float) -> int | None:
    """The first row at which the shares are wrong."""
    found = (Shares().add(of_challenger, probability) >= -math.log(alpha)).nonzero()
    return int(found[0, 0]) if len(found) else None


def numbers(seed: int, *size: int) -> Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_radius_is_that_of_confseq() -> None:
    """`normal_mixture_bound(100, .05, 100, .05, false)` is 30.35209, the boundary of a sum of 100 terms."""
    assert 100 * float(radius(torch.tensor(100), 0.05, 100)) == pytest.approx(30.35209, abs=1e-5)


def test_asymptotic_intervals_are_those_of_ville() -> None:
    """`AsymptoticCS(t_opt=200, min_samples=20)`, which divides squares by n - 1 and tunes rho by search."""
    theirs = [(0.251975, 0.751025), (0.415683, 0.594317), (0.455828, 0.545072)]
    for mine, other, count in zip(
        at(asymptotic(EVEN, expected=200), 20, 100, 400), theirs, (20, 100, 400), strict=True
    ):
        widen = math.sqrt(count / (count - 1))
        half = (mine[1] - mine[0]) / 2 * widen
        assert half == pytest.approx((other[1] - other[0]) / 2, rel=1e-2)
        assert sum(mine) == pytest.approx(sum(other), abs=2e-6)


def test_bets_win_outside_the_intervals_of_ville() -> None:
    """The ends of `BettingCS(c=.75, grid=400001, intersect=False)`: a mean just outside is excluded."""
    even = [(0.154220, 0.834518), (0.324030, 0.675758), (0.413858, 0.590633), (0.433955, 0.568175)]
    skewed = [(0.0, 0.694965), (0.134763, 0.500308), (0.171883, 0.327478), (0.185163, 0.300400)]
    other = [(-1.959875, 1.211125), (-1.263525, 0.369325), (-1.106987, -0.389287), (-1.051338, -0.516575)]
    for terms, (least, most), alpha, ends in (
        (EVEN, (0, 1), 0.05, even),
        (SKEWED, (0, 1), 0.05, skewed),
        (5 * SKEWED - 2, (-2, 3), 0.1, other),
    ):
        for count, (low, high) in zip((5, 20, 100, 200), ends, strict=True):
            near = torch.tensor([low - 1e-4, low + 1e-4, high - 1e-4, high + 1e-4]).clamp(least, most)
            above, below = Capital(near, alpha).add(terms[:count], least, most)
            won = torch.maximum(above, below)[:, -1] >= math.log(2 / alpha)
            assert won.tolist() == [low > least, False, False, True]


def test_centred_terms_of_two_arms_are_those_of_ville() -> None:
    """`AsymptoticABTest(propensity=.3, t_opt=200, min_samples=20)`: each person is there once."""
    outcomes = SKEWED + 0.1 * TREATED
    terms = arm_terms(TREATED, torch.full((400,), 0.3), centred(outcomes, TURN))
    low, high = asymptotic(terms, expected=200)
    middle = ((low + high) / 2)[[19, 99, 399]]
    assert middle.tolist() == pytest.approx([0.118297680, 0.111974332, 0.068419180], abs=1e-8)
    assert at((low, high), 400)[0] == pytest.approx((-0.003508, 0.140346), abs=2e-4)


def test_first_steps_by_hand() -> None:
    """Terms 1, 3: mean 2, standard deviation 1; expected 10, so that one term would be enough."""
    rho = 10 / (2 * math.log(20) + math.log(1 + 2 * math.log(20)))
    half = math.sqrt((2 + rho) * math.log((2 + rho) / (rho * 0.0025))) / 2
    low, high = asymptotic(torch.tensor([1.0, 3.0]), expected=10)
    assert low.tolist() == pytest.approx([-math.inf, 2 - half])
    assert high.tolist() == pytest.approx([math.inf, 2 + half])


def test_capital_by_hand() -> None:
    """Terms 1 and 0 in [0, 1] against the mean 1/2: a bet is at most .75 / .5, so 1.75 and then .25 of it."""
    above, below = log_capital(torch.tensor([1.0, 0.0]), 0, 1, mean=0.5)
    assert above.tolist() == pytest.approx([math.log(1.75), math.log(1.75 * 0.25)])
    assert below.tolist() == pytest.approx([math.log(0.25), math.log(1.75 * 0.25)])


def test_bounds_of_each_term_by_hand() -> None:
    """Terms 1 and -3 against 0: the most that a bet loses is .75 of the capital, of bounds -1 and then -4.

    Without it the bets were sqrt(2 log 40 / (log 2 / 4)) / 2 = 3.26 at the variance of a coin, and then
    sqrt(2 log 40 / (.156 * 2 log 3)) / 8 = .579, at the variance (1 / 4 + (1 / 2 - 1 / 4)^2) / 2 of terms in
    units of their widths 2 and 8.
    """
    least, most = torch.tensor([-1.0, -4.0]), torch.tensor([1.0, 4.0])
    above, below = log_capital(torch.tensor([1.0, -3.0]), least, most)
    assert above.tolist() == pytest.approx([math.log(1.75), math.log(1.75 * (1 - 3 * 0.75 / 4))])
    assert below.tolist() == pytest.approx([math.log(0.25), math.log(0.25 * (1 + 3 * 0.75 / 4))])


def test_arm_terms_by_hand_with_a_growing_share() -> None:
    arms = torch.tensor([True, False, True])
    terms = arm_terms(arms, torch.tensor([0.1, 0.1, 0.5]), torch.tensor([2.0, 3.0, -1.0]))
    assert_close(terms, torch.tensor([20.0, -3 / 0.9, -2.0], dtype=torch.float64), atol=1e-6, rtol=1e-6)


def test_centring_by_hand() -> None:
    """Persons 7, 8, 7, 9, 8, 7: minus nothing, 7's 4, 7's 4, all (4 + 1 + 6) / 3, 8's 1, 7's (4 + 6) / 2."""
    outcomes = torch.tensor([4.0, 1.0, 6.0, 5.0, 3.0, 2.0])
    found = centred(outcomes, torch.tensor([7, 8, 7, 9, 8, 7]))
    assert found.tolist() == pytest.approx([4, 1 - 4, 6 - 4, 5 - 11 / 3, 3 - 1, 2 - 5])


def test_bets_are_the_same_however_terms_are_put_together() -> None:
    """Also with bounds that change from term to term: each is a function of earlier ones alone."""
    width = 1 + (TURN % 7).double()
    parts, whole, means = Capital(torch.tensor([0.1, 0.4])), Capital(torch.tensor([0.1, 0.4])), SKEWED
    found = [parts.add(means[at : at + 37], 0, width[at : at + 37]) for at in range(0, 400, 37)]
    for side, other in zip(zip(*found, strict=True), whole.add(means, 0, width), strict=True):
        assert_close(torch.cat(side, 1), other, atol=0, rtol=0)
    shares, all_at_once = Shares(), Shares().add(TREATED, torch.full((400,), 0.3))
    rows = [
        shares.add(TREATED[at : at + 37], torch.full((400,), 0.3)[at : at + 37]) for at in range(0, 400, 37)
    ]
    assert_close(torch.cat(rows), all_at_once)


def test_shares_by_hand() -> None:
    """All of five rows are of the challenger, who should get half."""
    arms, shares = torch.ones(5, dtype=torch.bool), torch.full((5,), 0.5)

    def wealth(rows: int) -> float:
        return sum((2 / (1 + math.exp(-tilt))) ** rows for tilt in TILTS) / len(TILTS)

    assert wealth(3) < 5 / 2 < wealth(4)
    assert share_bound(arms, shares, 2 / 5) == 3
    assert share_bound(arms, shares, 1e-6) is None


def test_a_wrong_share_is_found_and_a_right_one_is_not() -> None:
    drawn = numbers(0, 5_000)
    assert share_bound(drawn < 0.5, torch.full((5_000,), 0.5), 0.001) is None
    assert share_bound(drawn < 0.1, torch.full((5_000,), 0.1), 0.001) is None
    found = share_bound(drawn < 0.4, torch.full((5_000,), 0.5), 0.001)
    assert found is not None and found < 1_500


def test_a_smaller_alpha_is_wider() -> None:
    wide, narrow = asymptotic(SKEWED, 0.01), asymptotic(SKEWED, 0.1)
    assert bool((wide[0] <= narrow[0]).all() and (wide[1] >= narrow[1]).all())


@settings(max_examples=8, deadline=None)
@given(st.floats(-50, 50), st.floats(0.1, 20), st.integers(0, 5))
def test_intervals_move_with_the_terms(shift: float, scale: float, seed: int) -> None:
    """Also the last terms change nothing before them, and capital depends on the places within the bounds."""
    terms = numbers(seed, 120)
    moved = terms * scale + shift
    assert_close(torch.stack(asymptotic(moved)), torch.stack(asymptotic(terms)) * scale + shift)
    assert_close(torch.stack(asymptotic(terms[:90])), torch.stack(asymptotic(terms))[:, :90])
    theirs = Capital(shift + scale * MEANS).add(moved, shift, shift + scale)
    assert_close(torch.stack(theirs), torch.stack(Capital(MEANS).add(terms, 0, 1)), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_terms(value: float) -> None:
    """Bets win at means a fortieth away; without bounds the spread of such terms is not known."""
    terms, away = torch.full((2_000,), value), torch.tensor([value - 0.025, value, value + 0.025])
    above, below = Capital(away.clamp(0, 1)).add(terms, 0, 1)
    won = torch.maximum(above, below)[:, -1] >= math.log(40)
    assert won.tolist() == [value > 0, False, value < 1]
    low, high = asymptotic(terms)
    assert bool(low.isinf().all() and high.isinf().all())


@pytest.mark.parametrize("count", [0, 1])
def test_no_term_and_one_term(count: int) -> None:
    terms = torch.full((count,), 0.5)
    low, high = asymptotic(terms)
    assert low.shape == high.shape == (count,) and bool((low < high).all())
    assert centred(terms, torch.zeros(count, dtype=torch.int64)).tolist() == [0.5] * count
    assert share_bound(terms > 0, terms, 0.05) is None
    assert [part.shape for part in log_capital(terms, 0, 1, 0.5)] == [(count,)] * 2


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_infinite_values_are_refused(bad: float) -> None:
    terms = torch.tensor([0.5, bad, 0.5])
    arms = torch.tensor([True, False, True])
    for call in (
        lambda: asymptotic(terms),
        lambda: log_capital(terms, 0, 1),
        lambda: log_capital(terms.nan_to_num(0.1, 0.1, 0.1), 0, bad),
        lambda: centred(terms, torch.arange(3)),
        lambda: arm_terms(arms, torch.full((3,), 0.5), terms),
        lambda: share_bound(arms, terms, 0.05),
    ):
        with pytest.raises(ValueError, match=MISTAKES):
            call()


def test_terms_and_bounds_that_do_not_fit_are_refused() -> None:
    arms, half, terms = torch.tensor([True, False]), torch.full((2,), 0.5), torch.tensor([0.2, 1.2])
    for call in (
        lambda: log_capital(terms, 0, 1),
        lambda: log_capital(terms, 2, 0),
        lambda: Capital(MEANS, alpha=1.0),
        lambda: asymptotic(terms, alpha=0.0),
        lambda: asymptotic(terms, alpha=1.0),
        lambda: asymptotic(terms, expected=0),
        lambda: asymptotic(terms[None]),
        lambda: centred(terms, torch.zeros(3, dtype=torch.int64)),
        lambda: arm_terms(arms, half, terms[:1]),
        lambda: arm_terms(arms, torch.tensor([0.5, 1.0]), terms),
        lambda: arm_terms(arms.long(), half, terms),
        lambda: share_bound(arms, half[:1], 0.05),
    ):
        with pytest.raises(ValueError, match=MISTAKES):
            call()


def test_false_alarms_of_someone_who_always_looks() -> None:
    """200 sequences of 1,000 rare clicks at equal arms: at most alpha = 5 %, that is about 10; a t-interval
    that is looked at as often is wrong in a third of them."""
    wrong = dict.fromkeys(("t", "asymptotic", "bets"), 0)
    for seed in range(200):
        drawn = numbers(seed, 3, 1_000)
        arms, shares = drawn[0] < 0.3, torch.full((1_000,), 0.3, dtype=torch.float64)
        clicks = (drawn[1] < 0.1).double()
        terms = arm_terms(arms, shares, centred(clicks, (drawn[2] * 200).long()))
        count = torch.arange(1, 1_001)
        mean = terms.cumsum(0) / count
        half = 1.96 * ((terms.square().cumsum(0) / count - mean.square()).clamp(min=0) / count).sqrt()
        wrong["t"] += bool((mean.abs() > half)[30:].any())
        low, high = asymptotic(terms)
        wrong["asymptotic"] += bool(((low > 0) | (high < 0)).any())
        above, below = log_capital(terms, -1 / 0.3, 1 / 0.3)
        wrong["bets"] += bool((torch.maximum(above, below) >= math.log(40)).any())
    assert wrong["t"] > 50
    assert max(wrong["asymptotic"], wrong["bets"]) <= 18


def test_false_alarms_of_the_shares() -> None:
    alarms = sum(
        share_bound(numbers(seed, 2_000) < 0.2, torch.full((2_000,), 0.2), 0.05) is not None
        for seed in range(200)
    )
    assert alarms <= 18
