"""Gate and hinge units: by hand, the compiled loop beside torch, and the first policy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.functional.plackett_luce import PlackettLuce
from recsys_rl.models.actor_critic import ActorCritic
from recsys_rl.models.curves import UNITS, Curves
from recsys_rl.models.encoders import Linear, TwinMLP
from recsys_rl.models.fast.curves import by_torch, curves
from recsys_rl.models.heads import TwoTowerHead
from recsys_rl.models.item_columns import item_features
from recsys_rl.models.shapes import Shapes
from recsys_rl.models.towers import TwoTowers
from recsys_rl.settings.shared import ModelConfig
from recsys_rl.types import Obs
from tests.tiny_world import tiny_catalogue


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def given(rows: int, items: int, units: int = 4, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    shapes = [(rows, items), (rows, 1 + 2 * units), (units, items), (2, units), (rows, items), (rows, items)]
    return [torch.randn(shape, generator=rng(1), dtype=torch.float64).to(dtype) for shape in shapes]


def test_one_item_by_hand() -> None:
    """z = 1, g = 2, b = .5, affinity 3; v = 10, -1; a = 1, 0; place .5, -5; c = 1, 1."""
    scores = torch.tensor([[1.0]])
    gates = torch.tensor([[2.0, 10.0, -1.0, 1.0, 0.0]])
    places, slopes = torch.tensor([[0.5], [-5.0]]), torch.tensor([[1.0, 1.0], [7.0, 7.0]])
    found = curves(scores, gates, places, slopes, torch.tensor([[3.0]]), torch.tensor([[0.5]]))
    # 1 + 2 (.5) + 10 relu(1 + .5 + 3 + 7 (.5)) - 1 relu(0 - 5 + 3 + 7 (.5))
    assert found.item() == 1 + 1 + 80 - 1.5
    far = curves(torch.tensor([[1.0]]), gates, places, slopes, torch.tensor([[3.0]]), torch.tensor([[-6.0]]))
    assert far.item() == 1 + 2 * -4  # and no unit


@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.parametrize("items", [1, 15, 16, 100, 1100])
def test_the_loop_equals_torch_in_double(rows: int, items: int) -> None:
    """Result and gradients, as shares of the largest: what single precision can give."""
    weights = torch.randn(rows, items, generator=rng(2), dtype=torch.float64)

    def found(of: Any, dtype: torch.dtype) -> list[Tensor]:
        tensors = given(rows, items, dtype=dtype)
        leaves = [tensor.requires_grad_() for tensor in tensors[:4]]
        result = of(leaves[0] * 1, *leaves[1:], *tensors[4:])
        result.backward(weights.to(dtype))
        return [result.detach(), *(leaf.grad for leaf in leaves)]

    for one, other in zip(found(curves, torch.float32), found(by_torch, torch.float64), strict=True):
        assert float((one.double() - other).abs().max() / other.abs().max()) < 1e-6


@pytest.mark.parametrize("grad", [True, False])
def test_rows_are_the_same_alone_and_together(grad: bool) -> None:
    tensors = given(6, 300)
    with torch.set_grad_enabled(grad):
        together = curves(*[tensor.clone() for tensor in tensors])
        for row in range(6):
            alone = [tensor[row : row + 1].clone() for tensor in tensors]
            assert torch.equal(
                curves(alone[0], alone[1], tensors[2], tensors[3], alone[4], alone[5]),
                together[row : row + 1],
            )


def test_threads_do_not_change_the_result() -> None:
    def gradients(threads: int) -> list[Tensor]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        tensors = given(70, 600)
        leaves = [tensor.requires_grad_() for tensor in tensors[:4]]
        curves(leaves[0] * 1, leaves[1], leaves[2], leaves[3], *tensors[4:]).square().sum().backward()
        torch.set_num_threads(before)
        return [leaf.grad for leaf in leaves if leaf.grad is not None]

    assert all(torch.equal(one, other) for one, other in zip(gradients(1), gradients(2), strict=True))


def test_shapes_that_do_not_fit_are_rejected() -> None:
    tensors = given(4, 30)
    with pytest.raises((ValueError, RuntimeError)):
        curves(*[tensors[0], tensors[1][:, :-1].contiguous(), *tensors[2:]])
    with pytest.raises((ValueError, RuntimeError)):
        curves(*[*tensors[:4], tensors[4][:, :-1].contiguous(), tensors[5]])


def model_of(**shapes: Any) -> ActorCritic:
    features = item_features(tiny_catalogue())
    return ActorCritic(
        Shapes(4, (3,), features, history_length=4, num_signals=1, **shapes),
        ModelConfig(hidden_dims=(16, 8)),
        rng(0),
    )


def observation(**more: Any) -> Obs:
    history = torch.tensor([[-1, -1, 0, 1], [-1, 2, 1, 0], [0, 2, 1, 0]])
    signals = torch.rand(3, 4, 1, generator=rng(5)) * (history >= 0).unsqueeze(-1)
    return Obs(torch.randn(3, 4, generator=rng(6)), history, signals, **more)


def test_the_first_policy_is_that_of_the_two_towers() -> None:
    """To the bit, and with the weights that the towers would have had without the rest."""
    model, obs = model_of(), observation()
    head = model.head
    assert isinstance(head, TwoTowerHead)
    generator, number = rng(0), item_features(tiny_catalogue()).shape[1]
    width = 4 + 2 * 4 * number
    hidden = TwinMLP((width, 16, 8), "relu", generator)
    Linear(8, 1, 1.0, generator)  # the critic's last layer
    towers = TwoTowers(8, 2 + 8, number, generator)
    inputs = torch.cat(
        [obs.context, *[blocks.flatten(1) for blocks in model._blocks(obs, model._read(obs)[1])[1:]]], 1
    )
    query = towers.query(hidden.one(0, inputs))
    expected = towers(query, model._blocks(obs, model._read(obs)[1]), model.items)
    found = model(obs)[0].logits
    assert_close(found, expected, rtol=1e-6, atol=1e-7)
    assert torch.equal(head.votes, towers.votes) and torch.equal(head.tower.weight, towers.tower.weight)
    assert torch.equal(head.query.weight[:, : -head.curves.num_gates], towers.query.weight)


def bent() -> ActorCritic:
    model = model_of()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng(9))
    return model


def test_candidates_have_the_logits_of_the_whole_catalogue() -> None:
    model, obs = bent(), observation()
    every = model(obs)[0].logits[:, 0]
    candidates = torch.tensor([[2, 0, -1], [1, 2, 0], [0, -1, -1]])
    few = model(obs.among(candidates))[0].logits[:, 0]
    wanted = every.gather(1, candidates.clamp_min(0)).masked_fill(candidates < 0, -torch.inf)
    assert_close(few, wanted, rtol=1e-5, atol=1e-5)


def test_the_formula_of_the_whole_head() -> None:
    """One item's logit from the weights, number by number."""
    model, obs = bent(), observation()
    head = model.head
    assert isinstance(head, TwoTowerHead) and isinstance(model.items, Tensor)
    inputs, sums = model._inputs(obs), model._read(obs)[1]
    assert sums is not None
    hidden = torch.cat([inputs, sums.flatten(1)], 1)
    outputs = head.last(model.hidden.one(0, hidden))
    num_gates = Curves.num_gates
    gates, blocks = 5 * outputs[:, -num_gates:], model._blocks(obs, sums)
    z = head(outputs[:, :-num_gates], blocks, model.items)[:, 0]
    beta = head.expected.towers.of_all(head.expected.query(hidden, blocks), model.items)
    profile, embeddings = obs.context[:, :2], model.items[:, :2]
    logit = z[1, 2] + gates[1, 0] * beta[1, 2].clamp(-4, 4)
    for k in range(UNITS):
        place = 5 * head.curves.places[k] @ model.items[2]
        slopes = 5 * head.curves.slopes[:, k]
        x = (
            gates[1, 1 + UNITS + k]
            + place
            + slopes[0] * (profile[1] @ embeddings[2])
            + slopes[1] * beta[1, 2]
        )
        logit = logit + gates[1, 1 + k] * x.clamp_min(0)
    assert_close(model(obs)[0].logits[1, 0, 2], logit, rtol=1e-5, atol=1e-5)


def test_masks_and_slates() -> None:
    """A forbidden item has -inf, and a slate's places have one vector of logits."""
    model, mask = bent(), torch.tensor([[True, True, False], [True, True, True], [False, True, True]])
    free, masked = model(observation())[0].logits, model(observation(mask=mask))[0].logits
    assert torch.equal(masked[:, 0], free[:, 0].masked_fill(~mask, -torch.inf))
    slates = model_of(slate_size=2)
    slates.load_state_dict(model.state_dict())
    of_slates = slates(observation())[0]
    assert isinstance(of_slates, PlackettLuce) and torch.equal(of_slates.logits, free[:, 0])
