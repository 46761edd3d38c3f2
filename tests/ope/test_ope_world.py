"""The network of `world`: right on average for rare rewards, no worse than the mean, still able to learn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from recsys_rl.ope.networks import WorldModel, held_out, shares, shift
from recsys_rl.ope.reward_model import folds_by_user
from tests.proofs import Proof

ROWS, USERS, ITEMS = 20_000, 4_000, 50


def rare_clicks(seed: int, liking: float = 0.6, base: float = -5.7) -> tuple[Tensor, Tensor, Tensor]:
    """Features (E, 40), clicks (E,) at a rate of about 0.5 %, users (E,)."""
    rng = torch.Generator().manual_seed(seed)
    users = torch.randint(USERS, (ROWS,), generator=rng)
    items = torch.randint(ITEMS, (ROWS,), generator=rng)
    groups = torch.nn.functional.one_hot(torch.arange(USERS) % 25).float()  # as a file has them: one-hot
    of_user = torch.cat([groups, torch.randn(USERS, 5, generator=rng)], 1)
    of_item = torch.randn(ITEMS, 10, generator=rng)
    features = torch.cat([of_user[users], of_item[items]], 1)
    score = liking * features[:, 25] + 0.6 * features[:, 30] * features[:, 26] + base
    return features, torch.bernoulli(score.sigmoid(), generator=rng), users


def heldout(features: Tensor, rewards: Tensor, users: Tensor) -> Tensor:
    """(E,) the predicted reward of each row, by the model that its user did not train."""
    rng = torch.Generator().manual_seed(0)
    folds = folds_by_user(users, rng)
    stayed = torch.zeros(len(users), dtype=torch.bool)
    found = torch.zeros(len(users))
    for fold in range(3):
        of, rest = folds == fold, folds != fold
        model = WorldModel(features[rest], rewards[rest].unsqueeze(1), stayed[rest], users[rest], rng)
        found[of] = model(features[of], 1).reward
    return found


def log_loss(shares: Tensor, clicks: Tensor) -> float:
    return float(torch.nn.functional.binary_cross_entropy(shares.clamp(1e-6, 1 - 1e-6), clicks))


@pytest.mark.learning
@pytest.mark.parametrize(("seed", "liking", "base"), [(0, 0.6, -5.7), (2, 1.3, -6.6)])
def test_mean_prediction_of_rare_clicks_on_other_users_is_their_rate(
    seed: int, liking: float, base: float, proof: Proof
) -> None:
    features, clicks, users = rare_clicks(seed, liking, base)
    assert 0.004 < float(clicks.mean()) < 0.007
    found = heldout(features, clicks, users)
    # 0.1 is about the standard error of the rate itself; a least-squares output cut at 0 gives 1.5 times it
    proof(abs(float(found.mean() / clicks.mean()) - 1), below=0.1, what="rate")
    constant = log_loss(clicks.mean().expand(ROWS), clicks)
    proof(log_loss(found, clicks) / constant, below=1.02)  # a network that overfits has 1.4


@pytest.mark.learning
@pytest.mark.parametrize(
    "amount",
    [
        pytest.param(lambda u: 100 * u.sqrt(), id="amounts"),  # most rewards are 0, the others up to 100
        pytest.param(lambda u: -u, id="losses"),
        pytest.param(lambda u: torch.full_like(u, 7.0), id="one amount"),
    ],
)
def test_mean_prediction_is_right_for_rewards_that_pile_up_at_zero(
    amount: Callable[[Tensor], Tensor], proof: Proof
) -> None:
    features, clicks, users = rare_clicks(2)
    rewards = clicks * amount(torch.rand(ROWS, generator=torch.Generator().manual_seed(3)))
    proof(abs(float(heldout(features, rewards, users).mean() / rewards.mean()) - 1), below=0.05)


@pytest.mark.learning
def test_model_learns_reward_signal_and_leaving(proof: Proof) -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(6_000, 4, generator=rng)
    reward = 3 * (x[:, 0] * x[:, 1]).sigmoid() - 1
    signal = 0.01 * (x[:, 2] - x[:, 0]).sigmoid()  # of a scale of its own
    chance = (2 * x[:, 3]).sigmoid()
    left = torch.bernoulli(chance, generator=rng).bool()
    fit = slice(0, 5_000)
    model = WorldModel(x[fit], torch.stack([reward, signal], 1)[fit], left[fit], torch.arange(5_000), rng)
    found = model(x[5_000:], 1)
    assert found.signals.shape == (1_000, 1, 1)
    guesses = {"reward": found.reward, "signal": found.signals[:, 0, 0], "leaving": found.leave}
    for (name, guess), true in zip(guesses.items(), (reward, signal, chance), strict=True):
        proof(float((guess - true[5_000:]).square().mean() / true.var()), below=0.1, what=name)


def test_feature_that_never_varied_in_the_fitted_rows_changes_nothing() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(600, 3, generator=rng)
    x[:, 2] = 0.0
    reward = (x[:, 0] > 0).float().unsqueeze(1)
    model = WorldModel(x, reward, torch.zeros(600).bool(), torch.arange(600), rng)
    other = x.clone()
    other[:, 2] = 1.0
    assert torch.equal(model(other, 1).reward, model(x, 1).reward)
    assert float((model(x, 1).reward - reward[:, 0]).abs().mean()) < 0.1


def test_constant_targets_are_predicted_exactly_and_nobody_leaves_where_nobody_left() -> None:
    rng = torch.Generator().manual_seed(0)
    x, users = torch.randn(40, 2, generator=rng), torch.arange(40)
    targets = torch.stack([torch.full((40,), 2.5), x[:, 0]], 1)
    stayed = WorldModel(x, targets, torch.zeros(40).bool(), users, rng)(x, 1)
    assert stayed.reward.tolist() == [2.5] * 40 and stayed.leave.tolist() == [0.0] * 40
    assert WorldModel(x, targets, torch.ones(40).bool(), users, rng)(x, 1).leave.tolist() == [1.0] * 40


@pytest.mark.parametrize(("users", "number"), [(50, 10), (5, 1), (4, 0), (1, 0)])
def test_a_fifth_of_the_users_is_held_out_with_all_their_rows(users: int, number: int) -> None:
    of = torch.arange(users).repeat(3)
    held = held_out(of, torch.Generator().manual_seed(0))
    assert len(of[held].unique()) == number and int(held.sum()) == 3 * number


def test_model_of_one_user_is_fitted() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(200, 2, generator=rng)
    reward = x[:, :1].sigmoid()
    model = WorldModel(x, reward, torch.zeros(200).bool(), torch.zeros(200, dtype=torch.int64), rng)
    assert float((model(x, 1).reward - reward[:, 0]).square().mean()) < 0.1 * float(reward.var())


def test_weights_and_shifts_of_outputs_by_hand() -> None:
    targets = torch.tensor([[0.0, 0.25, 0.0], [1.0, 0.75, 0.0]])
    found = shares(targets, torch.tensor([0.5, 0.5, 1e-6]))
    # log 2 for 0 and 1; log 2 less the entropy of 1/4, 0.5623, for 1/4 and 3/4; a constant counts nothing
    assert found.tolist() == pytest.approx([1 / 0.693147, 1 / (0.693147 - 0.562335), 0.0], rel=1e-4)
    logits = torch.tensor([[1.0], [1.0]])
    assert float(shift(logits, torch.tensor([0.5]))[0]) == pytest.approx(-1.0, abs=1e-5)


@pytest.mark.learning
def test_rare_signals_that_cannot_be_learned_leave_reward_and_leaving_as_they_are(
    proof: Proof,
) -> None:
    """40 signals of pure noise beside a reward and a leaving that follow from the features."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(5_000, 20, generator=rng)
    reward, left = (x[:, 0] > 0).float(), x[:, 1] > 0.5
    noise = (torch.rand(5_000, 40, generator=rng) < 0.02).float()
    users = torch.arange(5_000) // 5
    fit, new = slice(0, 4_000), slice(4_000, None)
    targets = torch.cat([reward.unsqueeze(1), noise], 1)
    found = WorldModel(x[fit], targets[fit], left[fit], users[fit], rng)(x[new], 40)
    found_of = {"reward": (found.reward, reward[new]), "leaving": (found.leave, left[new].float())}
    for name, (guess, true) in found_of.items():
        proof(float((guess - true).square().mean() / true.var()), below=0.2, what=name)  # it was 1.0 for both
