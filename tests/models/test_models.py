"""The networks: shapes, masks, invariance to the catalogue's order and to padding, and first weights."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from recsys_rl.functional.plackett_luce import PlackettLuce
from recsys_rl.models.actor_critic import ActorCritic
from recsys_rl.models.encoders import Linear, SessionSum, TwinMLP
from recsys_rl.models.fast import dense
from recsys_rl.models.fast.item_scores import by_torch, item_scores
from recsys_rl.models.heads import DenseHead, TwoTowerHead
from recsys_rl.models.item_columns import item_features
from recsys_rl.models.next_signals import Entries
from recsys_rl.models.shapes import Shapes
from recsys_rl.models.towers import TOWER_SIZE, TwoTowers
from recsys_rl.settings.shared import ModelConfig
from recsys_rl.types import Obs
from tests.tiny_world import tiny_catalogue

N, NUM_ITEMS, L = 5, 3, 4  # users, items of the tiny catalogue, history
HISTORY = torch.tensor([[-1, -1, -1, -1], [-1, -1, -1, 2], [-1, -1, 0, 1], [-1, 2, 1, 0], [0, 2, 1, 0]])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def session_obs(mask: Tensor | None = None) -> Obs:
    shown = (HISTORY >= 0).unsqueeze(-1)
    signals = torch.rand(N, L, 1, generator=rng()) * shown
    return Obs(torch.randn(N, 4, generator=rng(1)), HISTORY, signals, mask=mask)


def session_model(seed: int = 0, **config: Any) -> ActorCritic:
    shapes = Shapes(4, (NUM_ITEMS,), item_features(tiny_catalogue()), history_length=L, num_signals=1)
    return ActorCritic(shapes, ModelConfig(hidden_dims=(16, 8), **config), rng(seed))


def stir(model: torch.nn.Module, by: float = 0.5) -> None:
    """Change every parameter from its first value (zero biases, small gains)."""
    for parameter in model.parameters():
        parameter.data += by * torch.randn(parameter.shape, generator=rng(9))


def test_item_features_by_hand() -> None:
    features = item_features(tiny_catalogue())
    # embedding, genres of unit norm, log popularity and quality standardised, no year, the 1
    root, half = 1.5**0.5, 0.5**0.5
    expected = torch.tensor(
        [
            [1.0, 0.0, 1.0, 0.0, root, -root, 0.0, 1.0],
            [0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
            [0.6, 0.8, half, half, -root, root, 0.0, 1.0],
        ]
    )
    assert_close(features, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("encoder", ["mlp", "transformer", "deep-sets"])
@pytest.mark.parametrize("head", ["two-tower", "dense"])
@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
def test_shapes_and_mask(encoder: Any, head: Any, activation: Any) -> None:
    model = session_model(encoder=encoder, head=head, activation=activation)
    mask = torch.ones(N, NUM_ITEMS, dtype=torch.bool)
    mask[0, 1] = mask[3, 0] = mask[3, 2] = False
    policy, value = model(session_obs(mask))
    logits = policy.logits
    assert logits.shape == (N, 1, NUM_ITEMS) and value.shape == (N,)
    assert torch.equal(logits[:, 0] == -torch.inf, ~mask) and bool(logits[:, 0][mask].isfinite().all())
    free, same_value = model(session_obs())
    assert_close(free.logits[:, 0][mask], logits[:, 0][mask])
    assert_close(same_value, value)  # the encoder may be another path, which rounds otherwise
    assert_close(model.value(session_obs()), value)


@pytest.mark.parametrize("encoder", ["mlp", "transformer", "deep-sets"])
@pytest.mark.parametrize("head", ["two-tower", "dense"])
def test_parameters_have_gradients(encoder: Any, head: Any) -> None:
    model = session_model(encoder=encoder, head=head, activation="tanh")
    stir(model)
    obs = model.summarised(session_obs())
    policy, value = model(obs)
    weights = torch.randn(policy.logits.shape, generator=rng(3))
    loss = (weights * policy.logits.log_softmax(-1)).sum() + value.square().sum()
    if isinstance(model.head, TwoTowerHead):
        with torch.no_grad():  # else the logistic function of the expected reward is flat
            model.head.expected.towers.log_temperature.fill_(-5)
        loss = loss + model.reward_loss(obs, HISTORY[:, -1:].clamp_min(0), torch.arange(N).float())
    if model.next_signals is not None:
        entries = Entries(HISTORY[:, -1].clamp_min(0), torch.ones(N, 1), torch.ones(N) > 0)
        loss = loss + model.signal_loss(obs, entries)
    loss.backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_rows_do_not_mix() -> None:
    model = session_model()
    stir(model)
    obs, order = session_obs(), torch.tensor([3, 0, 4, 1, 2])
    policy, value = model(obs)
    permuted_policy, permuted_value = model(obs.rows(order))
    assert_close(permuted_policy.logits, policy.logits[order])
    assert_close(permuted_value, value[order])


@pytest.mark.parametrize("encoder", ["mlp", "transformer", "deep-sets"])
def test_two_tower_follows_a_permuted_catalogue(encoder: Any) -> None:
    """Another order of the catalogue gives the same logits in that order."""
    model, renumbered = session_model(encoder=encoder), session_model(encoder=encoder)
    stir(model)
    renumbered.load_state_dict(model.state_dict())
    order = torch.tensor([2, 0, 1])  # the new item j is the old order[j]
    renumbered.items = model.items[order]
    obs = session_obs()
    new_id = torch.cat([order.argsort(), torch.tensor([-1])])  # the padding -1 stays itself
    moved = Obs(obs.context, new_id[HISTORY], obs.signals)
    policy, value = model(obs)
    moved_policy, moved_value = renumbered(moved)
    assert_close(moved_policy.logits, policy.logits[:, :, order])
    assert_close(moved_value, value)
    assert not torch.allclose(moved_policy.logits, policy.logits)


def test_two_tower_scores_another_catalogue() -> None:
    model = session_model()
    items = torch.randn(7, model.items.shape[1], generator=rng(5))
    before = model(session_obs())[0].logits
    assert isinstance(model.items, Tensor)
    model.items = torch.cat([model.items, items])
    after = model(session_obs())[0].logits
    assert after.shape == (N, 1, NUM_ITEMS + 7)
    assert_close(after[:, :, :NUM_ITEMS], before)


def test_two_tower_by_hand() -> None:
    """With votes only, a logit is temperature 5 times RATE * votes * (sum of blocks) . item."""
    head = TwoTowers(2, 2, 2, rng())
    head.tower.weight.data.zero_()
    head.votes.data = torch.tensor([[0.2, 0.2], [-0.2, 0.0]])
    blocks = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    items = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    # query = (1 - 3, 2 + 0) = (-2, 2)
    found = head(torch.zeros(1, 2 + TOWER_SIZE), [blocks], items)
    assert_close(found, torch.tensor([[[-10.0, 10.0, 0.0]]]))


def test_gradient_of_item_scores() -> None:
    """Against finite differences in double precision, and by hand for one user, one item."""
    generator = rng(2)
    of_shape = partial(torch.randn, generator=generator, dtype=torch.float64)
    query, temperature, tower = of_shape(3, 6), of_shape(()), of_shape(2, 5)
    items = of_shape(5, 4)
    learned = [x.requires_grad_() for x in (query, temperature, tower)]
    assert torch.autograd.gradcheck(lambda q, t, learned: item_scores(q, t, items, learned), learned)

    query, temperature = torch.tensor([[1.0, 2.0]], requires_grad=True), torch.tensor(3.0, requires_grad=True)
    tower = torch.tensor([[5.0]], requires_grad=True)
    scores = item_scores(query, temperature, torch.tensor([[-4.0]]), tower)
    assert scores.tolist() == [[18.0]]  # 3 (1 * -4 + 2 * 5)
    scores.backward()
    assert query.grad is not None and temperature.grad is not None and tower.grad is not None
    assert query.grad.tolist() == [[-12.0, 15.0]]
    assert temperature.grad.item() == 6.0 and tower.grad.tolist() == [[6.0]]
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(
            item_scores(query, temperature, torch.ones(1, 1), tower), query, create_graph=True
        )


def test_item_scores_equal_those_by_torch() -> None:
    of_shape = partial(torch.randn, generator=rng(3))
    given = of_shape(3, 6), of_shape(()), of_shape(5, 4), of_shape(2, 5)
    expected = given[1] * given[0] @ torch.cat([given[2].T, given[3]])
    with torch.no_grad():
        assert_close(item_scores(*given), expected)
    query, temperature, items, tower = (x.requires_grad_() for x in given)
    learned, weights = (query, temperature, tower), of_shape(3, 5)
    found = [of(query, temperature, items.detach(), tower) for of in (item_scores, by_torch)]
    assert_close(found[0], found[1])
    assert_close(found[0], expected)
    one, other = (torch.autograd.grad(x, learned, weights) for x in found)
    assert_close(one, other)


def test_two_tower_votes_of_shorter_blocks_by_hand() -> None:
    """Two blocks of one and of two features: the missing feature counts as 0."""
    head = TwoTowers(2, 2, 2, rng())
    head.votes.data = torch.tensor([[0.2, 9.0], [-0.2, 0.4]])
    user = head.user(torch.zeros(1, 2 + TOWER_SIZE), [torch.tensor([[[3.0]]]), torch.tensor([[[1.0, 2.0]]])])
    # RATE 5: 5 * (0.2 * 3 - 0.2 * 1) = 2 and 5 * 0.4 * 2 = 4
    assert_close(user[:, :2], torch.tensor([[2.0, 4.0]]))
    assert not user[:, 2:].any()


def test_votes_that_do_not_fit() -> None:
    """The blocks must have as many inputs together as there are votes."""
    head, query = TwoTowers(2, 3, 2, rng()), torch.zeros(4, 2 + TOWER_SIZE)
    for blocks in ([torch.ones(4, 2, 2)], [torch.ones(4, 3, 4)]):
        with pytest.raises(RuntimeError):
            head.user(query, blocks)


def test_dense_head_depends_on_ids_only() -> None:
    model = session_model(head="dense")
    assert isinstance(model.head, DenseHead)
    model.head.logits.weight.data.zero_()
    model.head.logits.bias.data = torch.tensor([1.0, -2.0, 0.5])
    assert model(session_obs())[0].logits.tolist() == [[[1.0, -2.0, 0.5]]] * N


def test_positions_of_several_sizes_are_padded() -> None:
    model = ActorCritic(Shapes(3, (2, 4, 1)), ModelConfig(head="dense", hidden_dims=(8,)), rng())
    policy, value = model(Obs(torch.randn(N, 3, generator=rng())))
    logits = policy.logits
    assert logits.shape == (N, 3, 4) and value.shape == (N,)
    real = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]], dtype=torch.bool)
    assert torch.equal(logits.isfinite(), real.expand(N, 3, 4))
    assert bool((logits[:, ~real] == -torch.inf).all())


def test_session_sum_by_hand() -> None:
    session = SessionSum(3, 1)
    # decays 0, 1/2, 3/4, 1 by age, each scaled to a sum of 1; the latest is last
    kernels = [[0, 0, 1], [1 / 7, 2 / 7, 4 / 7], [9 / 37, 12 / 37, 16 / 37], [1 / 3, 1 / 3, 1 / 3]]
    assert_close(session.kernels.data, torch.tensor(kernels))
    items = torch.tensor([[1.0, 0.0], [0.0, 10.0]])
    history = torch.tensor([[-1, 0, 1]])
    signals = torch.tensor([[[0.0], [0.5], [1.0]]])
    plain = [[0, 10], [2 / 7, 40 / 7], [12 / 37, 160 / 37], [1 / 3, 10 / 3]]
    received = [[0, 10], [1 / 7, 40 / 7], [6 / 37, 160 / 37], [1 / 6, 10 / 3]]
    found = session(Obs(torch.zeros(1, 1), history, signals), items)
    assert_close(found, torch.tensor([plain + received]))


def test_session_sum_has_a_block_for_each_signal() -> None:
    session = SessionSum(3, 2)
    items = torch.tensor([[1.0, 0.0], [0.0, 10.0]])
    history, signals = torch.tensor([[-1, 0, 1]]), torch.tensor([[[0.0, 0.0], [0.5, 2.0], [1.0, -1.0]]])
    found = session(Obs(torch.zeros(1, 1), history, signals), items)
    assert found.shape == (1, 12, 2) and session.num_blocks == 12
    alone = [SessionSum(3, 1)(Obs(torch.zeros(1, 1), history, signals[..., s, None]), items) for s in (0, 1)]
    assert_close(found, torch.cat([alone[0], alone[1][:, 4:]], 1))


@pytest.mark.parametrize("head", ["two-tower", "dense"])
@pytest.mark.parametrize("num_signals", [1, 3])
def test_slates_of_one_catalogue(head: Any, num_signals: int) -> None:
    """One vector of logits for all places, a mask, and a gradient for every parameter."""
    features = item_features(tiny_catalogue())
    shapes = Shapes(4, (NUM_ITEMS,), features, L, num_signals, slate_size=2)
    model = ActorCritic(shapes, ModelConfig(head=head, hidden_dims=(16, 8), activation="tanh"), rng())
    stir(model, 0.1)
    mask = torch.ones(N, NUM_ITEMS, dtype=torch.bool)
    mask[0, 1] = False
    obs = Obs(session_obs().context, HISTORY, torch.rand(N, L, num_signals, generator=rng()), mask=mask)
    policy, value = model(obs)
    assert isinstance(policy, PlackettLuce) and policy.logits.shape == (N, NUM_ITEMS)
    index, _ = policy.draw(rng())
    assert index.shape == (N, 2) and 1 not in index[0] and bool((index[:, 0] != index[:, 1]).all())
    logprob, entropy = policy.evaluate(index)
    of_rewards = model.reward_loss(obs, index, torch.arange(N).float())
    (logprob.sum() + entropy.sum() + value.sum() + of_rewards).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_empty_history_has_sum_zero() -> None:
    session = SessionSum(5, 1)
    stir(session)
    empty = Obs(torch.zeros(2, 1), torch.full((2, 5), -1), torch.zeros(2, 5, 1))
    assert not session(empty, torch.randn(4, 3, generator=rng())).any()


def test_linear_starts_orthogonal() -> None:
    tall, wide = Linear(6, 3, 2.0, rng()), Linear(3, 6, 0.5, rng())
    assert_close(tall.weight.T @ tall.weight, 4.0 * torch.eye(3))
    assert_close(wide.weight @ wide.weight.T, 0.25 * torch.eye(3))
    assert not wide.bias.any() and not tall.bias.any()
    x = torch.randn(5, 2, 6, generator=rng(1))
    assert_close(tall(x)[:, 1], tall(x[:, 1]))  # rows of any shape


@pytest.mark.parametrize(
    ("activation", "reference"), [("tanh", nn.Tanh()), ("relu", nn.ReLU()), ("elu", nn.ELU())]
)
def test_twin_is_two_networks(activation: str, reference: nn.Module) -> None:
    twin = TwinMLP((4, 3, 2), activation, rng())
    stir(twin)
    x = torch.randn(5, 4, generator=rng(1))
    layers = [x for layer in zip(twin.weights, twin.biases, strict=True) for x in layer]
    last = torch.ones(2, 1), torch.zeros(1)
    together = dense.by_torch(x, activation, [*layers, *last, *last])
    assert not torch.equal(together[0].squeeze(1), together[1])
    for which in range(2):
        hidden = x
        for weight, bias in zip(twin.weights, twin.biases, strict=True):
            hidden = reference(nn.functional.linear(hidden, weight[which].T, bias[which, 0]))
        assert_close(together[which].view(5), hidden.sum(1))
        assert_close(twin.one(which, x), hidden)


def test_twin_starts_orthogonal_and_different() -> None:
    first, second = TwinMLP((4, 3), "relu", rng()).weights[0]
    assert_close(first.T @ first, 2.0 * torch.eye(3))
    assert_close(second.T @ second, 2.0 * torch.eye(3))
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("encoder", ["mlp", "transformer", "deep-sets"])
@pytest.mark.parametrize("head", ["two-tower", "dense"])
def test_first_weights_depend_only_on_the_generator(encoder: Any, head: Any) -> None:
    before = torch.get_rng_state()
    first = session_model(0, encoder=encoder, head=head)
    torch.manual_seed(12345)
    again = session_model(0, encoder=encoder, head=head)
    other = session_model(1, encoder=encoder, head=head)
    torch.set_rng_state(before)
    session_model(2, encoder=encoder, head=head)
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
        constant = (
            "bias" in name
            or "norms" in name
            or name.endswith(("session.kernels", "encoder.keep", "log_temperature", "scale", "seen", "span"))
        )
        assert torch.equal(weight, other.state_dict()[name]) == constant, name


@pytest.mark.parametrize(("head", "share"), [("two-tower", 0.75), ("dense", 0.999)])
def test_first_policy_is_nearly_uniform(head: Any, share: float) -> None:
    """Its entropy is near its maximum, log(number of items), for every seed."""
    for seed in range(5):
        policy = session_model(seed, head=head)(session_obs())[0]
        assert policy.entropy().mean() > share * math.log(NUM_ITEMS)
