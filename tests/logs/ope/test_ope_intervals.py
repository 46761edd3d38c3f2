"""Intervals, choices of the clip and diagnostics, by hand and against simulations."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks.harness.evidence import of_decisions
from recsys_rl.errors import UserError
from recsys_rl.logs.ope.clipping import by_error
from recsys_rl.logs.ope.compare import recommend
from recsys_rl.logs.ope.diagnostics import (
    MOST_MOVE,
    WeightReport,
    calibration,
    effective_sample_size,
    pareto_k,
    student_t,
    unsupported_mass,
    user_terms,
    weigh,
)
from recsys_rl.logs.ope.estimators import ESTIMATORS, GRID, Evidence
from recsys_rl.logs.ope.printing import about_mark
from recsys_rl.logs.ope.result import Estimate
from recsys_rl.logs.ope.rows import plain_row, warnings_for

F64 = torch.float64
CLIPPED = ESTIMATORS["clipped-ips"]
INFINITE = float("inf")


def test_t_interval_agrees_with_scipy() -> None:
    terms = torch.rand(30, generator=torch.Generator().manual_seed(0)).double()
    expected = stats.t.interval(0.95, 29, terms.mean(), stats.sem(terms))
    assert student_t(terms) == pytest.approx(expected)


def test_rows_of_one_user_count_once() -> None:
    """Ten copies of each user's row must not narrow the interval."""
    terms = torch.tensor([1.0, 2.0, 4.0, 9.0], dtype=F64)
    users = torch.arange(4)
    assert student_t(terms.repeat(10), users.repeat(10)) == pytest.approx(student_t(terms))
    # Users with 1 and 3 rows: (sum - mean n) / mean n, around the mean of the rows.
    mine = user_terms(torch.tensor([1.0, 2.0, 2.0, 3.0], dtype=F64), torch.tensor([0, 1, 1, 1]))
    assert mine.tolist() == pytest.approx([2 - 0.5, 2 + 0.5])


def test_one_user_is_refused() -> None:
    with pytest.raises(UserError):
        student_t(torch.ones(5).double(), torch.zeros(5, dtype=torch.int64))


def overlap(seed: int, scale: float) -> tuple[Evidence, float]:
    """1,000 rows whose log-weights are normal: ``scale`` is their spread. The value is 0.5."""
    rng = torch.Generator().manual_seed(seed)
    weights = (scale * torch.randn(1000, generator=rng).double() - scale**2 / 2).exp()
    return of_decisions(weights, (torch.rand(1000, generator=rng) < 0.5).double()), 0.5


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_clip_by_error_costs_little_on_easy_logs(scale: float) -> None:
    chosen, unclipped = 0.0, 0.0
    for seed in range(60):
        log, value = overlap(seed, scale)
        clip = by_error(CLIPPED, log)
        chosen += float((log.weights.clamp_max(clip) * log.rewards).mean() - value) ** 2
        unclipped += float((log.weights * log.rewards).mean() - value) ** 2
    assert chosen <= 1.25 * unclipped


def test_clip_by_error_halves_the_error_where_hardly_anything_overlaps() -> None:
    errors = {"chosen": 0.0, "unclipped": 0.0}
    for seed in range(100):
        log, value = overlap(seed, 3.0)
        clip = by_error(CLIPPED, log)
        errors["chosen"] += float((log.weights.clamp_max(clip) * log.rewards).mean() - value) ** 2
        errors["unclipped"] += float((log.weights * log.rewards).mean() - value) ** 2
    assert errors["chosen"] < 0.5 * errors["unclipped"]


def test_weights_that_need_no_clip_are_left_alone() -> None:
    log = of_decisions(torch.ones(50).double(), torch.rand(50).double())
    assert by_error(CLIPPED, log) == GRID[-1] == INFINITE


def test_effective_sample_size_and_lost_mass_by_hand() -> None:
    assert effective_sample_size(torch.tensor([1.0, 1.0, 2.0])) == pytest.approx(16 / 6)
    assert effective_sample_size(torch.zeros(3)) == 0
    huge = torch.tensor([1e190, 1e190, 2e190], dtype=torch.float64)
    assert effective_sample_size(huge) == pytest.approx(16 / 6)
    policy = torch.tensor([[0.5, 0.5], [0.2, 0.8]])
    assert unsupported_mass(policy, torch.tensor([[1.0, 0.0], [0.5, 0.5]])) == pytest.approx(0.25)


@pytest.mark.parametrize("shape", [0.2, 0.7, 1.2])
def test_pareto_k_finds_the_shape_of_pareto_weights(shape: float) -> None:
    uniform = torch.rand(100_000, generator=torch.Generator().manual_seed(0)).double()
    assert pareto_k(uniform**-shape) == pytest.approx(shape, abs=0.15)


def test_pareto_k_of_few_weights_is_drawn_towards_one_half() -> None:
    """Of 100 weights 20 are the tail; the prior counts as 10 more of k = 1/2 (Vehtari et al. 2024)."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        weights = rng.pareto(1.0, size=100) + 1
        over = np.sort(weights)[-20:] - np.sort(weights)[-21]
        alone = shape_of(over)
        expected = (20 * alone + 10 * 0.5) / 30
        assert abs(expected - alone) > 0.02
        assert pareto_k(torch.from_numpy(weights)) == pytest.approx(expected, abs=1e-9)


def shape_of(over: np.ndarray[Any, Any]) -> float:
    """The shape of a generalised Pareto distribution by Zhang and Stephens 2009, from ordered exceedances."""
    n = len(over)
    m = 30 + int(n**0.5)
    theta = 1 / over[-1] + (1 - np.sqrt(m / (np.arange(1, m + 1) - 0.5))) / (3 * over[int(n / 4 + 0.5) - 1])
    k = np.log1p(-theta[:, None] * over).mean(1)
    fit = n * (np.log(-theta / k) - k - 1)
    weight = np.exp(fit - fit.max())
    return float(np.log1p(-(weight @ theta / weight.sum()) * over).mean())


def test_pareto_k_of_bounded_and_of_constant_weights() -> None:
    bounded = torch.rand(10_000, generator=torch.Generator().manual_seed(0)).double()
    assert pareto_k(bounded) < 0
    assert pareto_k(torch.ones(100)) == -math.inf
    assert math.isnan(pareto_k(torch.ones(10)))


@pytest.mark.parametrize("values", [3, 40, 300])
def test_pareto_k_of_few_distinct_values_is_that_of_bounded_weights(values: int) -> None:
    """A catalogue of few items gives few distinct weights, which tie at the threshold of the tail."""
    rng = torch.Generator().manual_seed(0)
    each = 2 * torch.rand(values, generator=rng, dtype=torch.float64)
    for rows in (1000, 50_000, 200_000):
        assert pareto_k(each[torch.randint(values, (rows,), generator=rng)]) < 0.3
    lone = torch.zeros(1000, dtype=torch.float64)
    lone[7] = 1000.0  # one row that decides everything
    assert pareto_k(lone) > 0.7


def test_pareto_k_of_nearly_equal_weights_is_that_of_equal_ones() -> None:
    """Estimated propensities: four items, whose weights differ a little from user to user."""
    rng = torch.Generator().manual_seed(0)
    share = torch.tensor([0.2, 0.4, 1.0, 4.2], dtype=torch.float64)
    items = torch.randint(4, (2000,), generator=rng)
    nearly = share[items] * (1 + 1e-5 * torch.rand(2000, generator=rng, dtype=torch.float64).square())
    assert pareto_k(nearly) == pareto_k(share[items]) == -math.inf
    nearly[:7] = 4.25 + 0.01 * torch.rand(7, generator=rng, dtype=torch.float64)
    assert pareto_k(nearly) < 0.5


def test_calibration_by_hand() -> None:
    found = calibration(torch.tensor([0.0, 1.0]).double(), torch.tensor([0.25, 0.75]).double())
    assert (found.mean_reward, found.mean_q, found.slope) == pytest.approx((0.5, 0.5, 0.5))
    assert math.isnan(calibration(torch.ones(3).double(), torch.rand(3).double()).slope)


def test_reward_model_that_orders_worse_than_a_constant_is_warned_of() -> None:
    q, rewards = torch.tensor([0.0, 1.0, 2.0]).double(), torch.tensor([2.0, 1.0, 1.0]).double()
    (text,) = calibration(q, rewards).warnings
    assert "worse than a constant" in text and "q_slope -0.5" in text
    level = torch.tensor([1.0, 2.0, 1.0]).double()  # q says nothing about these rewards
    assert calibration(q, level).slope == 0 and calibration(q, level).warnings
    assert calibration(q, -rewards).warnings == ()
    assert calibration(torch.ones(3).double(), rewards).warnings == ()  # it orders nothing


def report(
    ess: float = 1000.0, k: float = 0.1, mean: float = 1.0, low: float = 0.9, high: float = 1.1
) -> WeightReport:
    return WeightReport(ess, mean, low, high, 3.0, 0.1, k)


def test_warnings_name_each_reason() -> None:
    assert warnings_for(report(), value=1.0, most=2.0) == []
    assert warnings_for(report(ess=200)) == []  # as many as are needed
    assert "worth 199 rows" in warnings_for(report(ess=199))[0]
    assert "worth 199 sessions" in warnings_for(report(ess=199), unit="sessions")[0]
    assert warnings_for(report(k=0.9), move=MOST_MOVE) == []  # k is a note
    assert "by 1.2 standard errors" in warnings_for(report(), move=1.2)[0]
    assert "30% of the policy's choices were impossible" in warnings_for(report(), unsupported=0.3)[0]
    assert "largest possible return, 2" in warnings_for(report(), value=2.0, most=2.0)[0]
    off = report(mean=0.8, low=0.7, high=0.9)
    assert warnings_for(off)[0].endswith("or the log lacks actions that the policy takes.")
    for heavy in (replace(off, ess=150.0), replace(off, pareto_k=0.6)):
        assert "or the rows are too few for weights as heavy as these" in warnings_for(heavy)[-1]


def test_rounded_propensities_are_no_wrong_ones() -> None:
    thirds = weigh(torch.full((900,), 1 / 3 / 0.3333, dtype=torch.float64))
    assert thirds.mean_low == pytest.approx(1.0001, abs=1e-5) and warnings_for(thirds) == []
    wrong = weigh(torch.full((900,), 1 / 3 / 0.332, dtype=torch.float64))
    assert "does not hold 1" in warnings_for(wrong)[0]


ITEMS = torch.tensor([0.4, 0.2, 0.2, 0.2]).double(), torch.tensor([0.1, 0.6, 0.2, 0.1]).double()


def weights_of_logs(logs: int, rows: int, seed: int, wrong: float = 1.0) -> torch.Tensor:
    """(logs, rows): of items drawn by the first policy of ITEMS, judged by the second.

    The propensity of the second item is logged as ``wrong`` times the right one.
    """
    logging, policy = ITEMS
    drawn = torch.multinomial(
        logging.expand(logs, -1), rows, True, generator=torch.Generator().manual_seed(seed)
    )
    stated = logging * torch.tensor([1, wrong, 1, 1])
    return (policy / stated)[drawn]


def test_right_propensities_are_hardly_ever_called_wrong() -> None:
    """At the level 0.9999 a tenth of a log is expected; at 0.95 it would be 50."""
    warned = [bool(warnings_for(weigh(w))) for w in weights_of_logs(1000, 1000, seed=0)]
    assert sum(warned) <= 2


@pytest.mark.parametrize("wrong", [0.8, 1.25])
def test_wrong_propensities_of_one_item_are_warned_of_in_every_log(wrong: float) -> None:
    for w in weights_of_logs(50, 4000, seed=1, wrong=wrong):
        assert "does not hold 1: the propensities are wrong" in warnings_for(weigh(w))[0]


def test_interval_of_the_mean_weight_is_that_of_one_in_ten_thousand() -> None:
    weights = weights_of_logs(1, 300, seed=2)[0]
    users = torch.arange(150).repeat_interleave(2)
    of = weigh(weights, users)
    assert (of.mean_low, of.mean_high) == pytest.approx(student_t(weights, users, 0.9999))


def row(
    policy: str, name: str, of: WeightReport | None, unsupported: float = 0.0, move: float = 0.1
) -> Estimate:
    return Estimate(policy, name, 1.0, 0.5, 1.5, "student-t", of, unsupported, move=move)


@pytest.mark.parametrize(
    ("other", "unsupported", "move", "name"),
    [
        (report(), 0.0, 0.1, "wdr"),
        (report(), 0.01, 0.1, "wdr"),
        (report(), 0.02, 0.1, "world"),
        (report(ess=200), 0.0, 0.1, "wdr"),
        (report(ess=199.9), 0.0, 0.1, "world"),
        (report(), 0.0, MOST_MOVE, "wdr"),
        (report(), 0.0, MOST_MOVE + 1e-6, "world"),
        (report(k=0.9), 0.0, 0.1, "wdr"),  # a note
        (report(mean=0.9, low=0.8, high=0.9995), 0.0, 0.1, "wdr"),  # 1 up to rounding
        (report(mean=0.9, low=0.8, high=0.998), 0.0, 0.1, "world"),
        (report(mean=1.1, low=1.0005, high=1.2), 0.0, 0.1, "wdr"),
        (report(mean=1.1, low=1.002, high=1.2), 0.0, 0.1, "world"),
    ],
)
def test_one_policy_that_the_log_does_not_cover_moves_the_recommendation_for_all(
    other: WeightReport, unsupported: float, move: float, name: str
) -> None:
    found = recommend(
        [
            *(row("a", "wdr", report()), row("a", "world", None)),
            *(row("b", "wdr", other, unsupported, move), row("b", "world", None)),
        ],
        trusted="wdr",
    )
    marked = [(x.policy, x.estimator) for x in found if x.recommended]
    assert marked == [("a", name), ("b", name)]
    said = f"<- marks one estimator, the same for all policies: {name}, as "
    why = (
        "its weights are good for each of them ("
        if name == "wdr"
        else "the weights of wdr are not good for b ("
    )
    assert about_mark(found).startswith(said + why + "ess at least 200, no row that could ")
    assert about_mark(found[:2]) == ""  # one policy


def test_estimate_has_every_number_of_its_json_row() -> None:
    weights = torch.rand(400, generator=torch.Generator().manual_seed(0)).double() * 2
    found = plain_row("a", "ips", weights * 0.5, weights=weights, most=1.0).row()
    assert found["value"] == pytest.approx(0.5, abs=0.05)
    assert found["low"] < found["value"] < found["high"]  # type: ignore[operator]
    assert found["ess"] == pytest.approx(effective_sample_size(weights))
    assert found["warning"] == ""


def test_terms_that_are_not_finite_are_refused_with_their_row() -> None:
    with pytest.raises(UserError):
        plain_row("a", "ips", torch.tensor([1.0, INFINITE]).double())
