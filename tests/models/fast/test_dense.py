"""The dense network as one node of the autograd graph, against its modules and autograd."""

from __future__ import annotations

import copy
import itertools
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.functional.compiled import kernels
from recsys_rl.models.actor_critic import ActorCritic
from recsys_rl.models.fast import dense
from recsys_rl.models.shapes import Shapes
from recsys_rl.settings.shared import ModelConfig
from recsys_rl.types import Obs

SHAPES = Shapes(6, (5,))


@pytest.fixture(autouse=True)
def compiled() -> None:
    if kernels.library() is None:
        pytest.skip("the kernels were not compiled here")


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(**config: Any) -> ActorCritic:
    """A network with random weights and biases."""
    model = ActorCritic(SHAPES, ModelConfig(head="dense", **config), rng(0))
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=rng(1))
    return model


def outputs_and_gradients(model: ActorCritic, obs: Obs, at_logits: Tensor, at_value: Tensor) -> list[Tensor]:
    """Logits and value, and each parameter's gradient of their sum with these weights."""
    model.zero_grad()
    policy, value = model(obs)
    logits = policy.logits.masked_fill(policy.logits == -torch.inf, 0.0)
    ((logits * at_logits).sum() + (value * at_value).sum()).backward()
    learning = [
        p for name, p in model.named_parameters() if "expected" not in name
    ]  # those have a loss of their own
    gradients = [p.grad for p in learning if p.grad is not None]
    assert len(gradients) == len(learning)
    return [logits.detach(), value.detach(), *gradients]


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
@pytest.mark.parametrize("hidden_dims", [(8,), (8, 4), (7, 7, 3)])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_modules(
    activation: Any, hidden_dims: tuple[int, ...], masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network(hidden_dims=hidden_dims, activation=activation)
    mask = torch.rand(9, 5, generator=rng(2)) < 0.7 if masked else None
    obs = Obs(torch.randn(9, 6, generator=rng(3)), mask=mask)
    weights = torch.randn(9, 1, 5, generator=rng(4)), torch.randn(9, generator=rng(5))
    assert type(model(obs)[1].grad_fn).__name__ == "_ActorCriticBackward"
    found = outputs_and_gradients(model, obs, *weights)
    monkeypatch.setattr(dense, "serves", lambda *rest: False)
    assert type(model(obs)[1].grad_fn).__name__ != "_ActorCriticBackward"
    for one, other in zip(found, outputs_and_gradients(model, obs, *weights), strict=True):
        assert bool(other.any())
        assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head", ["two-tower", "scorer", "dense", "gated"])
def test_network_over_a_session_is_one_node_too(head: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sums depend on weights, so their gradient goes on through this node."""
    items = torch.randn(5, 9, generator=rng(2))
    pieces, kinds = (slice(0, 3), slice(3, 6)), torch.tensor([0, 1, 0, 1, 1])
    shapes = Shapes(6, (5,), items, history_length=4, num_signals=2, embeddings=pieces, kinds=kinds)
    model = ActorCritic(shapes, ModelConfig(head=head, hidden_dims=(8, 4)), rng(0))
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=rng(1))
    history = torch.tensor([[-1, -1, 2, 0], [4, 3, 1, 2], [-1, -1, -1, -1]])
    signals = torch.randn(3, 4, 2, generator=rng(3))
    obs = Obs(torch.randn(3, 6, generator=rng(4)), history=history, signals=signals)
    weights = torch.randn(3, 1, 5, generator=rng(5)), torch.randn(3, generator=rng(6))
    assert type(model(obs)[1].grad_fn).__name__ == "_ActorCriticBackward"
    found = outputs_and_gradients(model, obs, *weights)
    monkeypatch.setattr(dense, "serves", lambda *rest: False)
    for one, other in zip(found, outputs_and_gradients(model, obs, *weights), strict=True):
        assert bool(other.any())
        assert_close(one, other, atol=1e-4, rtol=1e-4)
    model.zero_grad()
    model(obs)[1].sum().backward()
    assert model.session is not None
    of_kernels = model.session.kernels.grad
    assert of_kernels is not None and bool(of_kernels.any())


def test_by_hand() -> None:
    """One input, one hidden unit each, two items, relu; weights 1, biases 0; x = 2, G = (3, -1), g = 5."""
    model = ActorCritic(
        Shapes(1, (2,)), ModelConfig(head="dense", hidden_dims=(1,), activation="relu"), rng(0)
    )
    for name, parameter in model.named_parameters():
        parameter.data.fill_(0.0 if "bias" in name else 1.0)
    policy, value = model(Obs(torch.tensor([[2.0]])))
    assert policy.logits.tolist() == [[[2.0, 2.0]]] and value.tolist() == [2.0]
    ((policy.logits * torch.tensor([3.0, -1.0])).sum() + 5 * value.sum()).backward()
    found = {name: p.grad.flatten().tolist() for name, p in model.named_parameters() if p.grad is not None}
    assert found == {
        "hidden.weights.0": [4.0, 10.0],  # 2 times what reaches the hidden units: 3 - 1, and 5
        "hidden.biases.0": [2.0, 5.0],
        "value_head.weight": [10.0],
        "value_head.bias": [5.0],
        "head.logits.weight": [6.0, -2.0],
        "head.logits.bias": [3.0, -1.0],
    }


def parameters(inputs: int, hidden: tuple[int, ...], num_items: int) -> list[Tensor]:
    """The parameters of a network of these sizes, in the order of models/fast/dense.py."""
    sizes = (inputs, *hidden)
    shapes: list[tuple[int, ...]] = [
        shape for a, b in itertools.pairwise(sizes) for shape in ((2, a, b), (2, 1, b))
    ]
    shapes += [(sizes[-1], num_items), (num_items,), (sizes[-1], 1), (1,)]
    generator = rng(6)
    return [torch.randn(shape, generator=generator) / sizes[-1] ** 0.5 for shape in shapes]


def passes(rows: int, num_items: int, activation: str) -> list[Tensor]:
    """Outputs and gradients of a network whose sizes fit no tile, panel or block of dense.c.

    The gradients are those of the weights, and of the last 11 inputs.
    """
    weights = [x.requires_grad_() for x in parameters(37, (301, 19), num_items)]
    inputs, at_logits, at_value = numbers(rows, num_items)
    varying = inputs[:, 26:].clone().requires_grad_()
    logits, value = dense.actor_critic(inputs, activation, weights, varying)
    (logits * at_logits).sum().add((value * at_value).sum()).backward()
    return [logits.detach(), value.detach(), *(x.grad for x in (*weights, varying) if x.grad is not None)]


def numbers(rows: int, num_items: int) -> tuple[Tensor, Tensor, Tensor]:
    inputs = torch.randn(rows, 37, generator=rng(7))
    return inputs, torch.randn(rows, num_items, generator=rng(8)), torch.randn(rows, generator=rng(9))


@pytest.mark.parametrize(("rows", "num_items"), [(1, 1), (3, 7), (150, 300), (5003, 7)])
@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
def test_sizes_that_fit_no_block(rows: int, num_items: int, activation: str) -> None:
    """Against autograd over the equations, in double precision: rows, columns and sums of any length."""
    found = passes(rows, num_items, activation)
    weights = [x.double().requires_grad_() for x in parameters(37, (301, 19), num_items)]
    inputs, at_logits, at_value = (x.double() for x in numbers(rows, num_items))
    function = getattr(torch.nn.functional, activation)
    x = inputs.requires_grad_().expand(2, -1, -1)
    for weight, bias in zip(weights[:-4:2], weights[1:-4:2], strict=True):
        x = function(x @ weight + bias)
    logits = x[0] @ weights[-4] + weights[-3]
    value = (x[1] @ weights[-2] + weights[-1]).squeeze(1)
    (logits * at_logits).sum().add((value * at_value).sum()).backward()
    assert inputs.grad is not None
    expected = [logits.detach(), value.detach(), *(x.grad for x in weights if x.grad is not None)]
    for one, other in zip(found, [*expected, inputs.grad[:, 26:]], strict=True):
        assert_close(one.double(), other, atol=2e-4, rtol=1e-4)


def test_result_is_independent_of_threads() -> None:
    threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(passes(150, 1000, "tanh"))
    finally:
        torch.set_num_threads(threads)
    for one, two in zip(*found, strict=True):
        assert_close(one, two, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("widest", [4, 8])
def test_products_for_other_processors(widest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled for a processor without wide vectors."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no compiler here")
    sources = sorted(Path(kernels.__file__).parent.glob("*.c"))
    found = []
    for lanes in (widest, 16):
        made = tmp_path / f"kernels-{lanes}.so"
        options = ["-O2", "-std=gnu11", "-fPIC", "-shared", f"-DWIDEST={lanes}", "-o", str(made)]
        subprocess.run([compiler, *options, *map(str, sources), "-lm"], check=True)
        monkeypatch.setattr(kernels, "library", partial(kernels.load, made))
        found.append(passes(150, 300, "tanh"))
    for one, other in zip(*found, strict=True):
        assert_close(one, other, atol=2e-4, rtol=1e-4)


def test_inputs_of_wrong_size() -> None:
    """They must be rejected before C reads memory beyond a tensor."""
    weights = parameters(4, (3,), 5)
    for inputs in (torch.zeros(2, 3), torch.zeros(4), torch.zeros(2, 2, 4)):
        for function in (dense.actor_critic, dense.critic):
            with pytest.raises(ValueError, match="don't fit a network of 4 inputs"):
                function(inputs, "tanh", weights)


def test_unsupported_inputs_use_torch() -> None:
    weights, x = parameters(4, (3,), 5), torch.randn(6, 4, generator=rng(1))
    assert dense.serves(x, weights)
    for other in (x.double(), torch.zeros(4, 6).T, x[:0], x.clone().requires_grad_()):
        assert not dense.serves(other, weights)
    assert not dense.serves(x, [w.double() for w in weights])
    assert not dense.serves(x[: dense.FEW - 1], parameters(4, (3,), dense.WIDE + 1))
    assert dense.serves(x[: dense.FEW - 1], parameters(4, (3,), dense.WIDE))
    model, obs = network(hidden_dims=(3, 2)), Obs(torch.randn(6, 6, generator=rng(1)))
    expected = model(obs)[1].detach()
    for rows in (6, 0):
        assert_close(model.double()(Obs(obs.context[:rows].double()))[1].float(), expected[:rows])


def test_moved_and_copied_parameters() -> None:
    """A parameter with other memory, and a copy of the whole network, which has its own weights."""
    model, obs = network(hidden_dims=(3,)), Obs(torch.randn(2, 6, generator=rng(1)))
    before = model(obs)[1].detach()
    twin = copy.deepcopy(model)
    model.value_head.bias.data = model.value_head.bias.data + 2.0
    assert_close(model(obs)[1], before + 2.0)
    twin.value_head.bias.data += 1.0
    assert_close(twin(obs)[1], before + 1.0)
    assert_close(model(obs)[1], before + 2.0)
    twin(obs)[1].sum().backward()
    assert twin.value_head.bias.grad is not None and model.value_head.bias.grad is None


def test_gradients_add_up_and_there_is_no_second_derivative() -> None:
    model, obs = network(hidden_dims=(3, 2)), Obs(torch.randn(6, 6, generator=rng(1)))
    model(obs)[1].sum().backward()
    once = model.hidden.weights[0].grad
    assert once is not None
    once = once.clone()
    model(obs)[1].sum().backward()
    assert_close(model.hidden.weights[0].grad, 2 * once)
    value = model(obs)[1].sum()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(value, list(model.parameters()), create_graph=True, allow_unused=True)


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
def test_value_alone(activation: Any) -> None:
    model = network(hidden_dims=(3, 2), activation=activation)
    obs = Obs(torch.randn(6, 6, generator=rng(1)))
    assert_close(model.value(obs), model(obs)[1])
    with torch.no_grad():  # computed without the logits
        assert_close(model.value(obs), model(obs)[1])


def test_activations_at_extremes_and_nan() -> None:
    """One hidden unit with weight 1: the value is f(x), also at extremes, zero and NaN."""
    x = torch.cat([torch.linspace(-12, 12, 1001), torch.tensor([torch.inf, -torch.inf, 0.0, torch.nan])])
    one, zero = torch.ones(2, 1, 1), torch.zeros(2, 1, 1)
    for activation in ("tanh", "relu", "elu"):
        weights = [one, zero, torch.ones(1, 1), torch.zeros(1), torch.ones(1, 1), torch.zeros(1)]
        found = dense.actor_critic(x.unsqueeze(1), activation, weights)[1]
        expected = getattr(torch.nn.functional, activation)(x.double()).float()
        assert_close(found, expected, atol=3e-7, rtol=0, equal_nan=True)
