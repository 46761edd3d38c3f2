"""Estimators of one step, against the expectation over all logs of a bandit that can be enumerated."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import permutations

import pytest
import torch
from torch import Tensor

from benchmarks.harness.evidence import of_decisions, rows_at
from recsys_rl.errors import UserError
from recsys_rl.logs.ope import estimators
from recsys_rl.logs.ope.diagnostics import NO_PROMISE
from recsys_rl.logs.ope.estimators import CLUSTERS, ESTIMATORS, ONE_STEP, SLATE, Evidence
from recsys_rl.logs.ope.estimators import MODEL as NEEDS_MODEL
from recsys_rl.logs.ope.result import Estimate
from recsys_rl.logs.ope.reward_model import Predict, cross_fit, predict
from recsys_rl.logs.ope.rows import score
from tests.tiny_bandits import CONTEXTS, LOGGING, MODEL, POLICY, REWARD, VALUE, WEIGHT, Log, expectation

CLIP = 1.4  # between the weights of this bandit
INFINITE = float("inf")
CLIPPED = [name for name, x in ESTIMATORS.items() if x.clip is not None]
BANDIT = [
    name
    for name, x in ESTIMATORS.items()
    if ONE_STEP in x.needs and x.clip is None and not {CLUSTERS, SLATE} & {*x.needs}
]


def decisions(log: Log, q: Tensor = MODEL) -> Evidence:
    x, a = log.contexts, log.actions
    return of_decisions(WEIGHT[x, a], log.rewards, q[x, a], (POLICY[x] * q[x]).sum(1))


def expected(name: str, clip: float | None = None) -> float:
    """The expected estimate over all logs of two rows."""

    def estimate(log: Log) -> float:
        of = ESTIMATORS[name]
        terms = of.score(decisions(log)) if clip is None else of.clipped(decisions(log), clip)
        return float(terms.mean())

    return expectation(estimate)


def average(values: Tensor) -> float:
    """The mean of ``values`` (2, 3) over contexts and logged actions."""
    return float((CONTEXTS.unsqueeze(1) * LOGGING * values).sum())


MEAN_MODEL = float((CONTEXTS.unsqueeze(1) * POLICY * MODEL).sum())
GAP = REWARD - MODEL


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        ("ips", None),
        ("dr", None),
        ("clipped-ips", INFINITE),
        ("dros", INFINITE),
    ],
)
def test_unbiased_estimators_have_the_value_as_expectation(name: str, clip: float | None) -> None:
    assert expected(name, clip) == pytest.approx(VALUE, abs=1e-10)


def test_each_biased_estimator_has_the_expectation_of_its_own_formula() -> None:
    assert expected("dm") == pytest.approx(MEAN_MODEL, abs=1e-10)
    assert expected("clipped-ips", CLIP) == pytest.approx(average(WEIGHT.clamp_max(CLIP) * REWARD), abs=1e-10)
    shrunk = CLIP * WEIGHT / (WEIGHT**2 + CLIP)
    assert expected("dros", CLIP) == pytest.approx(MEAN_MODEL + average(shrunk * GAP), abs=1e-10)


@pytest.mark.parametrize(("name", "doubly"), [("snips", False), ("sndr", True)])
def test_self_normalised_estimators_have_the_expectation_of_the_ratio(name: str, doubly: bool) -> None:
    def ratio(log: Log) -> float:
        top = bottom = model = 0.0
        for x, a, r in zip(log.contexts.tolist(), log.actions.tolist(), log.rewards.tolist(), strict=True):
            w = float(POLICY[x, a] / LOGGING[x, a])
            top += w * (r - (float(MODEL[x, a]) if doubly else 0.0))
            bottom += w
            if doubly:
                model += sum(float(POLICY[x, b] * MODEL[x, b]) for b in range(3)) / len(log.rewards)
        return model + (top / bottom if bottom else 0.0)

    assert expected(name) == pytest.approx(expectation(ratio), abs=1e-10)


def test_dr_with_the_true_model_has_no_error_but_the_rewards_own() -> None:
    log = Log(1.0, torch.tensor([0, 1]), torch.tensor([2, 0]), REWARD[[0, 1], [2, 0]])
    terms = ESTIMATORS["dr"].score(decisions(log, REWARD))
    assert terms.tolist() == pytest.approx([float(POLICY[x] @ REWARD[x]) for x in (0, 1)])


def test_dr_with_a_cross_fitted_model_is_unbiased() -> None:
    """The model of each row is the mean reward of the other rows: fitted on the row itself, it is biased."""

    def tabular(features: Tensor, targets: Tensor) -> Predict:
        # Mean reward of each pair seen; 0 elsewhere. Features are one-hot pairs.
        mean = (features.T @ targets) / features.sum(0).clamp_min(1)
        return lambda x: x @ mean

    def estimate(log: Log, folds: Tensor) -> float:
        pair = torch.eye(6, dtype=torch.float64)
        features = pair[log.contexts * 3 + log.actions]  # (n, 6)
        every = pair[log.contexts.unsqueeze(1) * 3 + torch.arange(3)]  # (n, 3, 6)
        if int(folds.max()):
            models = cross_fit(tabular, features, log.rewards, folds)
        else:
            models = [tabular(features, log.rewards)]  # it has seen the row that it values
        q = predict(models, every, folds)  # (n, 3)
        row = torch.arange(len(q))
        logged = of_decisions(
            WEIGHT[log.contexts, log.actions],
            log.rewards,
            q[row, log.actions],
            (POLICY[log.contexts] * q).sum(1),
        )
        return float(ESTIMATORS["dr"].score(logged).mean())

    apart = expectation(lambda log: estimate(log, torch.arange(2)))
    together = expectation(lambda log: estimate(log, torch.zeros(2, dtype=torch.int64)))
    assert apart == pytest.approx(VALUE, abs=1e-10)
    assert abs(together - VALUE) > 0.01


def test_estimates_do_not_depend_on_the_order_of_rows_and_average_over_parts_of_a_log() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(2, (40,), generator=rng)
    log = Log(
        1.0, x, torch.multinomial(LOGGING[x], 1, generator=rng)[:, 0], torch.rand(40, generator=rng).double()
    )
    whole = decisions(log)
    order = torch.randperm(40, generator=rng)
    for name in (*BANDIT, *CLIPPED):
        of = ESTIMATORS[name]
        estimate: Callable[[Evidence], Tensor] = of.score
        if of.clip is not None:
            estimate = partial(of.clipped, clip=0.8)
        value = float(estimate(whole).mean())
        assert float(estimate(rows_at(whole, order)).mean()) == pytest.approx(value, rel=1e-12), name
        if name not in ("snips", "sndr"):
            parts = [float(estimate(rows_at(whole, part)).sum()) for part in torch.arange(40).split(13)]
            assert sum(parts) / 40 == pytest.approx(value, rel=1e-12), name


def test_self_normalised_terms_have_the_spread_of_the_jackknife() -> None:
    rng = torch.Generator().manual_seed(3)
    weights, rewards = torch.rand(500, generator=rng).double() * 3, torch.rand(500, generator=rng).double()
    terms = ESTIMATORS["snips"].score(of_decisions(weights, rewards))
    without = (weights @ rewards - weights * rewards) / (weights.sum() - weights)  # (500,)
    jackknife = float(((without - without.mean()) ** 2).sum() * 499 / 500) ** 0.5
    assert float(terms.std() / 500**0.5) == pytest.approx(jackknife, rel=0.01)


def test_a_log_without_weight_gives_zero_and_an_estimator_without_model_is_refused() -> None:
    none = of_decisions(torch.zeros(3).double(), torch.ones(3).double())
    assert ESTIMATORS["snips"].score(none).tolist() == [0, 0, 0]
    with pytest.raises(UserError):
        ESTIMATORS["dr"].score(none)


def test_rows_with_a_clip_or_a_model_alone_promise_nothing() -> None:
    found = rows_of(q=REWARD)
    kinds = dict.fromkeys(("ips", "snips", "dr", "sndr"), "student-t")
    assert {x: row.interval for x, row in found.items()} == kinds | dict.fromkeys(CLIPPED, "clip") | {
        "dm": "model"
    }
    for row in found.values():
        assert row.promise.startswith("no promise") == (row.interval in NO_PROMISE) == bool(row.warnings)


def test_model_that_orders_worse_than_a_constant_is_named_in_the_rows_that_use_it() -> None:
    for name, row in rows_of(q=1 - REWARD).items():
        assert ("worse than a constant" in row.warning) == (NEEDS_MODEL in ESTIMATORS[name].needs), name
    assert all("constant" not in row.warning for row in rows_of(q=REWARD).values())


def rows_of(q: Tensor) -> dict[str, Estimate]:
    """The rows of 900 decisions by the model ``q`` (2, 3)."""
    rng = torch.Generator().manual_seed(0)
    x = torch.multinomial(CONTEXTS, 900, True, generator=rng)
    a = torch.multinomial(LOGGING[x], 1, generator=rng)[:, 0]
    r = (torch.rand(900, generator=rng) < REWARD[x, a]).double()
    v = (POLICY[x] * q[x]).sum(1)
    log = of_decisions(WEIGHT[x, a], r, q[x, a], v)
    return {row.estimator: row for row in score("a", log, torch.arange(900)).rows}


def test_clipped_weights_lie_under_the_weights_and_reach_them_without_a_clip() -> None:
    weights = torch.tensor([0.0, 0.3, 1.0, 2.0, 50.0], dtype=torch.float64)
    for a, b in permutations([1.0, 2.0, 10.0], 2):
        if a < b:
            assert (estimators.clipped(weights, a) <= estimators.clipped(weights, b)).all()
            assert (estimators.shrunk(weights, a) <= estimators.shrunk(weights, b)).all()
    assert estimators.shrunk(weights, INFINITE).tolist() == weights.tolist()
