"""Adam over flat weights: against torch's Adam, and its state in a checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from recsys_rl.functional.adam import adam
from recsys_rl.functional.compiled import kernels
from recsys_rl.models.optimizer import FlatAdam


def network(seed: int = 0) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    rng = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=rng)
    return model


def test_adam_by_hand() -> None:
    # g = (3, 4), norm 5, scaled to norm 1: (0.6, 0.8). After one step m / (1 - beta1) = g and
    # sqrt(v / (1 - beta2)) = |g|: each weight moves by lr against the sign of its gradient.
    weights, exp_avg, exp_avg_sq = torch.zeros(2), torch.zeros(2), torch.zeros(2)
    adam(weights, exp_avg, exp_avg_sq, [torch.tensor([3.0, -4.0])], 1, 0.1, 1.0)
    assert_close(exp_avg, torch.tensor([0.06, -0.08]))
    assert_close(exp_avg_sq, torch.tensor([0.36e-3, 0.64e-3]))
    assert_close(weights, torch.tensor([-0.1, 0.1]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("max_grad_norm", "scale"),
    [(1.0, 0.2), (4.0, 0.8), (5.0, 1.0), (7.0, 1.0), (9.0, 1.0), (20.0, 1.0), (1e6, 1.0)],
)
@pytest.mark.parametrize("compiled", [True, False])
def test_gradient_is_scaled_down_and_never_up(
    monkeypatch: pytest.MonkeyPatch, compiled: bool, max_grad_norm: float, scale: float
) -> None:
    """(3, -4) has norm 5: min(1, limit / 5). Adam's own step hides a common factor; its moments don't."""
    if not compiled:
        monkeypatch.setattr(kernels, "library", lambda: None)
    elif kernels.library() is None:
        pytest.skip("the kernels were not compiled here")
    weights, exp_avg, exp_avg_sq = torch.zeros(3, 2).unbind()
    adam(weights, exp_avg, exp_avg_sq, [torch.tensor([3.0, -4.0])], 1, 0.1, max_grad_norm)
    gradient = scale * torch.tensor([3.0, -4.0])
    assert_close(exp_avg, 0.1 * gradient)
    assert_close(exp_avg_sq, 0.001 * gradient**2)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("max_grad_norm", [0.5, 1e6])
def test_equals_torch(monkeypatch: pytest.MonkeyPatch, compiled: bool, max_grad_norm: float) -> None:
    if not compiled:
        monkeypatch.setattr(kernels, "library", lambda: None)
    elif kernels.library() is None:
        pytest.skip("the kernels were not compiled here")
    ours, theirs = network(), network()
    optimizer = FlatAdam(ours, 0.01, max_grad_norm)
    reference = torch.optim.Adam(theirs.parameters(), lr=0.01, eps=1e-5)
    rng = torch.Generator().manual_seed(1)
    for _ in range(20):
        x, target = torch.randn(8, 5, generator=rng), torch.randn(8, 3, generator=rng)
        optimizer.zero_grad()
        nn.functional.mse_loss(ours(x), target).backward()
        optimizer.step()
        reference.zero_grad()
        nn.functional.mse_loss(theirs(x), target).backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), max_grad_norm)
        reference.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_step_uses_the_mean_over_processes() -> None:
    def halve(gradient: Tensor) -> None:
        gradient.mul_(0.5)

    plain, averaged = FlatAdam(network(), 0.01, 1e6), FlatAdam(network(), 0.01, 1e6, halve)
    for optimizer in (plain, averaged):
        optimizer.model(torch.ones(2, 5)).sum().backward()
        optimizer.step()
    assert_close(averaged.gradient, 0.5 * plain.gradient)
    assert_close(averaged.exp_avg, 0.5 * plain.exp_avg)


def test_saved_state_resumes() -> None:
    first = FlatAdam(network(), 0.01, 1.0)
    x = torch.ones(2, 5)

    def step(optimizer: FlatAdam) -> None:
        optimizer.zero_grad()
        optimizer.model(x).square().sum().backward()
        optimizer.step()

    step(first)
    saved = first.state_dict()
    again = FlatAdam(network(7), 0.01, 1.0)
    again.load_state_dict(saved)
    step(first)
    assert not torch.equal(saved["model.0.weight"], first.state_dict()["model.0.weight"])  # a copy
    step(again)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    with pytest.raises(KeyError):
        again.load_state_dict({name: x for name, x in saved.items() if not name.endswith("exp_avg")})
    with pytest.raises(RuntimeError):
        again.load_state_dict(saved | {"model.0.weight": torch.zeros(2, 2)})


@pytest.mark.parametrize("size", [2**15, 100_003])
def test_step_is_independent_of_threads(size: int) -> None:
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        rng = torch.Generator().manual_seed(0)
        weights, exp_avg, exp_avg_sq, gradient = torch.rand(4, size, generator=rng)
        adam(weights, exp_avg, exp_avg_sq, gradient.split([5, 0, 70, size - 75]), 3, 0.01, 1.0)
        found.append(torch.stack([weights, exp_avg, exp_avg_sq]))
    torch.set_num_threads(before)
    for other in found[1:]:
        assert_close(found[0], other)


@pytest.mark.parametrize("move", [copy.deepcopy, lambda model: model.double().float()])
def test_copied_or_moved_weights_are_detected(move: Callable[[nn.Module], nn.Module]) -> None:
    optimizer = FlatAdam(network(), 0.01, 1.0)
    optimizer.model = move(optimizer.model)
    with pytest.raises(RuntimeError, match="copied or moved"):
        optimizer.step()


@pytest.mark.parametrize("compiled", [True, False])
def test_gradient_in_pieces_is_the_gradient(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    """Pieces of any size and shape, one of which isn't contiguous: the same step as with one vector."""
    if not compiled:
        monkeypatch.setattr(kernels, "library", lambda: None)
    rng = torch.Generator().manual_seed(0)
    gradient, found = torch.randn(40_000, generator=rng), []
    pieces = [gradient[:1], gradient[1:7].view(2, 3).T.contiguous().T, gradient[7:7], gradient[7:]]
    for parts in ([gradient], pieces):
        state = torch.rand(3, 40_000, generator=torch.Generator().manual_seed(1))
        weights, exp_avg, exp_avg_sq = state
        adam(weights, exp_avg, exp_avg_sq, parts, 2, 0.01, 1.0)
        found.append(state)
    assert_close(found[0], found[1], atol=1e-6, rtol=1e-5)


def test_backward_passes_add_up_until_zero_grad() -> None:
    optimizer = FlatAdam(network(), 0.01, 1e6)
    x = torch.ones(2, 5)
    optimizer.model(x).sum().backward()
    once = optimizer.gradient
    optimizer.model(x).sum().backward()
    assert_close(optimizer.gradient, 2 * once)
    optimizer.zero_grad()
    assert not optimizer.gradient.any()
    optimizer.model(x)[:, 0].sum().backward()  # as a new optimiser would see it
    other = FlatAdam(network(), 0.01, 1e6)
    other.model(x)[:, 0].sum().backward()
    assert torch.equal(optimizer.gradient, other.gradient)


def test_parameter_without_gradient_is_unchanged() -> None:
    optimizer = FlatAdam(network(), 0.01, 1e6)
    before = optimizer.weights.clone()
    first = next(optimizer.model.parameters())
    first.square().sum().backward()
    optimizer.step()
    assert torch.equal(optimizer.weights[first.numel() :], before[first.numel() :])
    assert bool((optimizer.weights[: first.numel()] != before[: first.numel()]).all())
