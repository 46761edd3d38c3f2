"""The backward pass that is written out, against autograd's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.config import ModelConfig
from recsys_rl.models.actor_critic import ActorCritic, Shapes
from recsys_rl.models.dense import DenseActorCritic, tanh_
from recsys_rl.models.optimizer import FlatAdam
from recsys_rl.types import Obs
from tests.compiled import each_way as each_way
from tests.small_runs import begin, settings

SHAPES = Shapes(6, (5,))


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def both(**config: Any) -> tuple[FlatAdam, FlatAdam]:
    """Optimisers of the two networks, with the same weights, away from their special beginning."""
    model_config = ModelConfig(head="dense", **config)
    found = []
    for network in (DenseActorCritic, ActorCritic):
        optimizer = FlatAdam(network(SHAPES, model_config, rng(0)), 0.01, 1.0)
        optimizer.weights += 0.3 * torch.randn(optimizer.weights.shape, generator=rng(1))
        found.append(optimizer)
    assert torch.equal(found[0].weights, found[1].weights)
    return found[0], found[1]


def backward(optimizer: FlatAdam, obs: Obs, at_logits: Tensor, at_value: Tensor) -> None:
    outputs = optimizer.model(obs)
    optimizer.model.backward(outputs, (at_logits, at_value), into=optimizer.gradients)  # type: ignore[operator]


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
@pytest.mark.parametrize("hidden_dims", [(8,), (8, 4), (7, 7, 3)])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_autograd(activation: Any, hidden_dims: tuple[int, ...], masked: bool) -> None:
    ours, theirs = both(hidden_dims=hidden_dims, activation=activation)
    mask = torch.rand(9, 5, generator=rng(2)) < 0.7 if masked else None
    obs = Obs(torch.randn(9, 6, generator=rng(3)), mask=mask)
    for found, expected in zip(ours.model(obs), theirs.model(obs), strict=True):
        assert_close(found, expected.detach(), atol=1e-6, rtol=1e-5)
    at_logits, at_value = torch.randn(9, 1, 5, generator=rng(4)), torch.randn(9, generator=rng(5))
    if mask is not None:  # as the policy's gradient always is
        at_logits = at_logits.masked_fill(~mask.unsqueeze(1), 0.0)
    backward(ours, obs, at_logits, at_value)
    backward(theirs, obs, at_logits, at_value)
    assert all(bool(gradient.any()) for gradient in ours.gradients.values())
    assert_close(ours.gradient, theirs.gradient, atol=1e-5, rtol=1e-5)


def test_by_hand() -> None:
    """One input, a hidden unit each, two items; relu; each weight 1, bias 0; x = 2, G = (3, -1), g = 5."""
    model = DenseActorCritic(
        Shapes(1, (2,)), ModelConfig(head="dense", hidden_dims=(1,), activation="relu"), rng(0)
    )
    optimizer = FlatAdam(model, 0.01, 1.0)
    for name, parameter in model.named_parameters():
        parameter.data.fill_(0.0 if "bias" in name else 1.0)
    logits, value = model(Obs(torch.tensor([[2.0]])))
    assert logits.tolist() == [[[2.0, 2.0]]] and value.tolist() == [2.0]
    model.backward((logits, value), (torch.tensor([[[3.0, -1.0]]]), torch.tensor([5.0])), optimizer.gradients)
    found = {name: gradient.flatten().tolist() for name, gradient in optimizer.gradients.items()}
    assert found == {
        "hidden.weights.0": [4.0, 10.0],  # 2 times what reaches the hidden units: 3 - 1, and 5
        "hidden.biases.0": [2.0, 5.0],
        "value_head.weight": [10.0],
        "value_head.bias": [5.0],
        "head.logits.weight": [6.0, -2.0],
        "head.logits.bias": [3.0, -1.0],
    }


def test_tanh() -> None:
    x = torch.cat([torch.linspace(-12, 12, 1001), torch.tensor([torch.inf, -torch.inf, 0.0])])
    assert_close(tanh_(x.clone()), x.double().tanh().float(), atol=3e-7, rtol=0)
    assert bool(tanh_(torch.tensor([torch.nan])).isnan())


@pytest.mark.parametrize(
    ("env", "head", "network"),
    [
        ("drift", "dense", DenseActorCritic),
        ("drift", "two-tower", ActorCritic),
        ("satiation", "dense", ActorCritic),  # which has a session to read
    ],
)
def test_which_network_an_agent_gets(env: str, head: str, network: type[ActorCritic]) -> None:
    small = {"num_items": 8, "num_users": 20, "embedding_dim": 4, "max_episode_steps": 5}
    _, agent = begin(settings("ppo", env, env_config=small, model_config={"head": head}), 1)
    assert type(agent.model) is network
