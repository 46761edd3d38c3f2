"""Expected rewards: the loss by hand, what it reaches, and a world whose best predictor is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.functional.returns import explained_variance
from recsys_rl.models.actor_critic import ActorCritic
from recsys_rl.models.expected import ExpectedReward
from recsys_rl.models.heads import TwoTowerHead
from recsys_rl.models.shapes import Shapes
from recsys_rl.settings.shared import ModelConfig
from recsys_rl.types import Obs
from tests.proofs import Proof

DIM, ITEMS = 4, 60


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features(seed: int = 0) -> Tensor:
    """Embeddings, a number, and the constant 1, as those of a catalogue."""
    embedding = torch.nn.functional.normalize(torch.randn(ITEMS, DIM, generator=rng(seed)), dim=1)
    return torch.cat([embedding, torch.randn(ITEMS, 1, generator=rng(seed + 1)), torch.ones(ITEMS, 1)], 1)


def network() -> ActorCritic:
    shapes = Shapes(DIM + 1, (ITEMS,), features(), embeddings=(slice(0, DIM),))
    return ActorCritic(shapes, ModelConfig(hidden_dims=(16, 8)), rng(2))


def observations(rows: int, seed: int) -> Obs:
    return Obs(torch.randn(rows, DIM + 1, generator=rng(seed)))


def test_rewards_are_standardised_and_come_back() -> None:
    expected = ExpectedReward(3, 0, DIM, rng(0))
    rewards = torch.tensor([[1.0, 3.0], [5.0, 7.0]])  # mean 4, deviation sqrt 5
    found = expected.standardise(rewards)
    assert_close(found, (rewards - 4) / 5**0.5)
    assert_close(expected.in_units_of_reward(found), rewards)
    assert expected.standardise(torch.full((3,), 2.0)).tolist() == [0.0, 0.0, 0.0]
    assert expected.in_units_of_reward(torch.tensor(1.0)).item() == 2.0  # no reward was another one


def test_minibatches_are_standardised_by_the_mean_and_the_deviation_of_all_of_them() -> None:
    """A minibatch without a click changes the mean from 1/2 to 1/4, and leaves a deviation."""
    expected = ExpectedReward(3, 0, DIM, rng(0))
    assert expected.standardise(torch.tensor([0.0, 1.0]), minibatch=True).tolist() == [-1.0, 1.0]
    found = expected.standardise(torch.zeros(2), minibatch=True)  # 0, 1, 0, 0: variance 1/4 - 1/16
    assert_close(found, torch.full((2,), -0.25 / (3 / 16) ** 0.5))
    assert_close(expected.scale, torch.tensor([0.25, (3 / 16) ** 0.5]))


def test_the_loss_of_a_slate_is_that_of_the_mean_of_its_items() -> None:
    expected, items = ExpectedReward(3, 0, DIM + 2, rng(0)), features()
    query = expected.query(torch.randn(2, 3, generator=rng(1)), [])
    shown = torch.tensor([[3, 5], [0, 7]])
    every = 4 * (expected.towers.of_all(query, items).sigmoid() - 0.5)  # (2, I)
    assert_close(expected.of(query, items, shown), every.gather(1, shown))
    means = every.gather(1, shown).mean(1)
    by_hand = ((means[0] - 1) ** 2 + (means[1] + 2) ** 2) / 2
    assert_close(expected.loss(query, items, shown, torch.tensor([1.0, -2.0])), by_hand)


def test_the_losses_of_policy_and_rewards_reach_other_weights() -> None:
    model, obs = network(), observations(8, 3)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng(4))
    distribution, value = model(obs)
    (distribution.logits[:, 0, 1].sum() + value.sum()).backward()
    of_policy = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    model.zero_grad()
    model.reward_loss(obs, torch.arange(8).unsqueeze(1), torch.arange(8.0)).backward()
    of_rewards = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    apart = {name for name, _ in model.named_parameters() if name.startswith("head.expected.")}
    assert of_rewards == apart and of_policy == {name for name, _ in model.named_parameters()} - apart


def test_expected_rewards_of_all_items_and_of_candidates_are_in_units_of_the_reward() -> None:
    model, obs = network(), observations(3, 5)
    head = model.head
    assert isinstance(head, TwoTowerHead) and model.expects_rewards
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng(4))
    head.expected.standardise(torch.tensor([1.0, 3.0, 5.0, 7.0]))
    with torch.no_grad():
        every = model.expected_rewards(obs)
        b = head.expected.towers.of_all(
            head.expected.query(obs.context, model._blocks(obs, None)), features()
        )
        middle, span = 5 * head.expected.span
        assert every is not None
        assert_close(every, 4 + 5**0.5 * (middle + span * (b.sigmoid() - 0.5)))
        some = torch.tensor([[4, 2, -1], [0, 59, 7], [1, 1, 3]])
        found = model.expected_rewards(obs.among(some))
        assert found is not None
        assert_close(found[some >= 0], every.gather(1, some.clamp_min(0))[some >= 0])
    dense = ActorCritic(Shapes(DIM + 1, (ITEMS,), features()), ModelConfig(head="dense"), rng(2))
    assert not dense.expects_rewards and dense.expected_rewards(obs) is None


@pytest.mark.proof
@pytest.mark.learning
def test_the_answers_of_a_logistic_world_are_recovered(proof: Proof) -> None:
    """Likes with probability s(3 u . e + number - mood): beta explains what the best predictor does."""
    model, items = network(), features()
    head = model.head
    assert isinstance(head, TwoTowerHead)

    def answers(rows: int, seed: int) -> tuple[Obs, Tensor, Tensor, Tensor]:
        obs, generator = observations(rows, seed), rng(seed + 1)
        shown = torch.randint(ITEMS, (rows, 1), generator=generator)
        of_items = items[shown[:, 0]]
        fit = 3 * (obs.context[:, :DIM] * of_items[:, :DIM]).sum(1) + of_items[:, DIM] - obs.context[:, DIM]
        chance = fit.sigmoid()
        return obs, shown, (torch.rand(rows, generator=generator) < chance).float(), chance

    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(800):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / 800)
        obs, shown, liked, _ = answers(512, 2 * step + 1000)
        optimizer.zero_grad()
        model.reward_loss(obs, shown, liked).backward()
        optimizer.step()
    obs, shown, liked, chance = answers(20_000, 7)
    with torch.no_grad():
        query = head.expected.query(obs.context, model._blocks(obs, None))
        found = head.expected.in_units_of_reward(head.expected.of(query, items, shown)).squeeze(1)
    best = explained_variance(chance, liked).item()
    proof(best - explained_variance(found, liked).item(), below=0.02)
