"""The backward pass that is written out, against autograd's."""

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

from recsys_rl.dials import ModelConfig
from recsys_rl.functional import dense, kernels
from recsys_rl.models.actor_critic import ActorCritic, Shapes
from recsys_rl.models.dense import DenseActorCritic
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


def parameters(inputs: int, hidden: tuple[int, ...], num_items: int) -> list[Tensor]:
    """Those of a network of these sizes, as functional/dense.py orders them."""
    sizes = (inputs, *hidden)
    shapes: list[tuple[int, ...]] = [
        shape for a, b in itertools.pairwise(sizes) for shape in ((2, a, b), (2, 1, b))
    ]
    shapes += [(sizes[-1], num_items), (num_items,), (sizes[-1], 1), (1,)]
    generator = rng(6)
    return [torch.randn(shape, generator=generator) / sizes[-1] ** 0.5 for shape in shapes]


def passes(rows: int, num_items: int, activation: str) -> list[Tensor]:
    """Outputs and gradients of a network whose sizes fit no tile, panel or block of dense.c."""
    weights, generator = parameters(37, (301, 19), num_items), rng(7)
    gradients = [torch.full_like(weight, torch.nan) for weight in weights]
    dlogits, dvalue = (
        torch.randn(rows, num_items, generator=generator),
        torch.randn(rows, generator=generator),
    )
    network = dense.Network(weights, activation)
    passed = dense.forward(network, torch.randn(rows, 37, generator=generator))
    dense.backward(network, passed, dlogits.unsqueeze(1), dvalue, dense.places(network, gradients))
    return [passed.logits, passed.value, *gradients]


@pytest.mark.parametrize(("rows", "num_items"), [(1, 1), (3, 7), (150, 300)])
@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
def test_sizes_that_fit_no_block(rows: int, num_items: int, activation: str) -> None:
    """Against the same in double precision, where torch serves: rows, columns and sums of any length."""
    found = passes(rows, num_items, activation)
    double = [x.double() for x in parameters(37, (301, 19), num_items)]
    generator = rng(7)
    dlogits, dvalue = (
        torch.randn(rows, num_items, generator=generator),
        torch.randn(rows, generator=generator),
    )
    x = torch.randn(rows, 37, generator=generator).double()
    expected = [torch.empty_like(weight) for weight in double]
    network = dense.Network(double, activation)
    passed = dense.forward(network, x)
    places = dense.places(network, expected)
    dense.backward(network, passed, dlogits.double().unsqueeze(1), dvalue.double(), places)
    for one, other in zip(found, [passed.logits, passed.value, *expected], strict=True):
        assert_close(one.double(), other, atol=2e-4, rtol=1e-4)


def test_threads_change_nothing() -> None:
    threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(passes(150, 1000, "tanh"))
    finally:
        torch.set_num_threads(threads)
    if kernels.library() is not None:  # torch promises no such thing
        assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("widest", [4, 8])
def test_products_for_other_processors(widest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled as if the processor knew no wider vectors."""
    library, compiler = kernels.library(), shutil.which("gcc")
    if library is None or compiler is None:
        pytest.skip("no compiled kernels, or no compiler, here")
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


def test_wrong_shapes_are_refused() -> None:
    """Before its address is passed on: memory beside a tensor is no number of ours."""
    network = dense.Network(parameters(4, (3,), 5), "tanh")
    passed = dense.forward(network, torch.zeros(2, 4))
    gradients = [torch.empty_like(x) for x in network.tensors]
    places = dense.places(network, gradients)
    for inputs in (torch.zeros(2, 3), torch.zeros(4), torch.zeros(2, 2, 4)):
        with pytest.raises(ValueError, match="don't fit a network of 4 inputs"):
            dense.forward(network, inputs)
    good = torch.zeros(2, 1, 5), torch.zeros(2)
    for dlogits, dvalue in ((torch.zeros(2, 1, 4), good[1]), (good[0], torch.zeros(3))):
        with pytest.raises(ValueError, match="don't fit what they are of"):
            dense.backward(network, passed, dlogits, dvalue, places)
    with pytest.raises(ValueError, match="shapes of the parameters"):
        dense.places(network, gradients[::-1])


def test_strides_types_and_no_rows() -> None:
    """Torch stands in for the compiled passes: the same numbers, and zeros for sums without terms."""
    weights, x = parameters(4, (3,), 5), torch.randn(4, 6, generator=rng(1)).T
    network = dense.Network(weights, "tanh")
    expected = dense.forward(network, x.contiguous())
    assert_close(dense.forward(network, x).logits, expected.logits)
    double = dense.forward(dense.Network([w.double() for w in weights], "tanh"), x.double())
    assert_close(double.value.float(), expected.value)
    gradients = [torch.full_like(w, torch.nan) for w in weights]
    nobody = dense.forward(network, torch.zeros(0, 4))
    dense.backward(network, nobody, torch.zeros(0, 1, 5), torch.zeros(0), dense.places(network, gradients))
    assert not any(bool(gradient.any()) for gradient in gradients)


def test_parameters_that_move_are_found_again() -> None:
    """Other memory under the same parameter, and a copy of the whole network, whose addresses are its own."""
    model = both(hidden_dims=(3,))[0].model
    assert isinstance(model, DenseActorCritic)
    obs = Obs(torch.randn(2, 6, generator=rng(1)))
    before = model(obs)[1].clone()
    twin = copy.deepcopy(model)
    model.value_head.bias.data = model.value_head.bias.data + 2.0
    assert_close(model(obs)[1], before + 2.0)
    twin.value_head.bias.data += 1.0
    assert_close(twin(obs)[1], before + 1.0)
    assert_close(model(obs)[1], before + 2.0)


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
def test_value_alone(activation: str) -> None:
    model = both(hidden_dims=(3, 2), activation=activation)[0].model
    obs = Obs(torch.randn(6, 6, generator=rng(1)))
    assert_close(model.value(obs).detach(), model(obs)[1])  # type: ignore[operator]


def test_few_rows_of_a_wide_head() -> None:
    weights, x = parameters(4, (3,), dense.WIDE + 1), torch.randn(dense.FEW, 4, generator=rng(1))
    network = dense.Network(weights, "relu")
    many, few = (dense.forward(network, rows).logits for rows in (x, x[:1]))
    assert_close(few, many[:1])


def test_activations_and_what_is_no_number() -> None:
    """One hidden unit that passes x on: the value is f(x), at ends, zero and NaN as well."""
    x = torch.cat([torch.linspace(-12, 12, 1001), torch.tensor([torch.inf, -torch.inf, 0.0, torch.nan])])
    one, zero = torch.ones(2, 1, 1), torch.zeros(2, 1, 1)
    for activation in ("tanh", "relu", "elu"):
        weights = [one, zero, torch.ones(1, 1), torch.zeros(1), torch.ones(1, 1), torch.zeros(1)]
        found = dense.forward(dense.Network(weights, activation), x.unsqueeze(1)).value
        expected = getattr(torch.nn.functional, activation)(x.double()).float()
        assert_close(found, expected, atol=3e-7, rtol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("env", "head", "network"),
    [
        ("drift", "dense", DenseActorCritic),
        ("drift", "two-tower", ActorCritic),
        ("satiation", "dense", ActorCritic),  # which has a session to read
    ],
)
def test_network_of_an_agent(env: str, head: str, network: type[ActorCritic]) -> None:
    sizes = {"num_items": 8, "embedding_dim": 4, "max_episode_steps": 5}
    small = {"env_config": sizes, "data_config": {"num_users": 20}}
    _, agent = begin(settings("ppo", env, **small, model_config={"head": head}), 1)
    assert type(agent.model) is network
