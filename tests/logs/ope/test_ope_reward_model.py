"""Regressions against closed forms and scipy, and cross-fitting that leaks nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from recsys_rl.errors import UserError
from recsys_rl.logs.ope import networks
from recsys_rl.logs.ope.networks import mlp
from recsys_rl.logs.ope.reward_model import (
    Predict,
    cross_fit,
    folds_by_user,
    logistic,
    logistic_coefficients,
    predict,
    ridge,
)
from tests.proofs import Proof


def data(rows: int = 200, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 3, generator=rng).double()
    p = (x @ torch.tensor([1.0, -2.0, 0.5]).double()).sigmoid()
    return x, (torch.rand(rows, generator=rng).double() < p).double()


def test_network_of_shares_keeps_the_weights_of_its_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """With wild steps every epoch is worse than the start, which predicts the mean everywhere."""
    monkeypatch.setattr(networks, "LR", 30.0)
    monkeypatch.setattr(networks, "LEAST_STEPS", 1)
    x, _ = data()
    y = torch.arange(200).remainder(2).double()
    found = networks.mlp_of_shares(torch.Generator().manual_seed(0))(x, y)(x)
    assert found.tolist() == pytest.approx([0.5] * 200, abs=1e-4)


def test_ridge_fits_a_line_and_shrinks_it() -> None:
    x = torch.tensor([[-1.0], [1.0]])
    y = torch.tensor([1.0, 5.0])
    assert ridge(0.0)(x, y)(torch.tensor([[2.0]])).item() == pytest.approx(7)
    # slope 4 / (2 + 2) = 1 around the mean 3
    assert ridge(2.0)(x, y)(torch.tensor([[2.0]])).item() == pytest.approx(5)


def test_logistic_regression_is_the_optimum_that_scipy_finds() -> None:
    x, y = data()
    ones, labels = np.c_[x.numpy(), np.ones(len(x))], y.numpy()

    def loss(beta: Any) -> float:
        score = ones @ beta
        return float(np.logaddexp(0, score).sum() - labels @ score + 0.5 / 3.0 * (beta[:3] ** 2).sum())

    best = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-9}).x
    assert logistic_coefficients(x, y, 3.0).tolist() == pytest.approx(best, abs=1e-5)


def test_logistic_regression_survives_separable_rows_and_rows_of_one_kind() -> None:
    x = torch.tensor([[-1.0], [1.0]]).double()
    assert torch.isfinite(logistic_coefficients(x, torch.tensor([0.0, 1.0]), 1e6)).all()
    constant = logistic()(x, torch.zeros(2))(x)
    assert constant.tolist() == pytest.approx([0.25, 0.25])


@pytest.mark.learning
def test_mlp_learns_a_curve_that_a_line_misses(proof: Proof) -> None:
    x = torch.linspace(-2, 2, 512).unsqueeze(1)
    y = x.squeeze(1) ** 2
    fit = mlp(torch.Generator().manual_seed(0), epochs=30, batch=64)
    proof(float((fit(x, y)(x) - y).square().mean()), below=0.1)
    assert float((ridge()(x, y)(x) - y).square().mean()) > 1.0


def test_mlp_is_the_same_for_the_same_seed_whatever_was_drawn_before() -> None:
    x, y = data(64)

    def predictions() -> Tensor:
        return mlp(torch.Generator().manual_seed(1), epochs=2)(x, y)(x)

    first = predictions()
    torch.rand(3)
    assert torch.equal(predictions(), first)


def test_all_rows_of_a_user_are_in_one_fold() -> None:
    users = torch.tensor([7, 3, 7, 9, 3, 11, 7])
    folds = folds_by_user(users, torch.Generator().manual_seed(0))
    for user in users.unique():
        assert len(folds[users == user].unique()) == 1
    assert set(folds.tolist()) == {0, 1, 2}
    with pytest.raises(UserError):
        folds_by_user(torch.tensor([0, 1, 1]), torch.Generator())


def test_rows_of_a_user_never_train_the_model_that_values_them() -> None:
    rng = torch.Generator().manual_seed(0)
    users = torch.arange(30).repeat_interleave(4)
    folds = folds_by_user(users, rng)
    x, y = data(120)
    before = predict(cross_fit(ridge(), x, y, folds), x, folds)
    changed = y.clone()
    changed[users == 5] += 100.0
    after = predict(cross_fit(ridge(), x, changed, folds), x, folds)
    same_fold = folds == folds[users == 5][0]
    assert torch.equal(before[same_fold], after[same_fold])
    assert (before[~same_fold] != after[~same_fold]).all()


def test_predictions_for_every_action_agree_with_those_for_one() -> None:
    folds = torch.tensor([0, 1, 0, 1])
    x = torch.randn(4, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    models: list[Predict] = [lambda rows: rows[:, 0], lambda rows: -rows[:, 1]]
    found = predict(models, x, folds)
    assert torch.equal(found[0], x[0, :, 0]) and torch.equal(found[1], -x[1, :, 1])
    assert torch.equal(predict(models, x[:, 2], folds), found[:, 2])


def test_missing_rewards_and_empty_logs_are_refused() -> None:
    x = torch.zeros(3, 1)
    with pytest.raises(UserError):
        cross_fit(ridge(), x, torch.tensor([1.0, float("nan"), 0.0]), torch.arange(3))
    with pytest.raises(UserError):
        cross_fit(ridge(), x[:0], torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(UserError):
        cross_fit(ridge(), x, torch.ones(3), torch.zeros(3, dtype=torch.int64))


def test_mlp_of_one_row_predicts_its_target() -> None:
    x = torch.tensor([[0.3, 2.0]])
    model = mlp(torch.Generator().manual_seed(0), epochs=1)(x, torch.tensor([0.7]))
    assert model(x).item() == pytest.approx(0.7, abs=1e-3)


def test_mlp_ignores_a_feature_that_never_varied() -> None:
    x, y = data()
    x[:, 2] = 1.0
    model = mlp(torch.Generator().manual_seed(0), epochs=1)(x, y)
    other = x.clone()
    other[:, 2] = 0.0
    assert torch.equal(model(other), model(x))
