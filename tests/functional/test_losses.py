"""Each equation of the losses, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.functional import losses

FLOATS = st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=8)


def logs(*ratios: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities (B,) new and old, of these ratios."""
    old = torch.full((len(ratios),), -1.25)
    return old + torch.tensor(ratios).log(), old


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"),
    [
        (1.0, 3.0, -3.0),
        (1.1, 2.0, -2.2),
        (2.0, 1.0, -1.2),  # no credit beyond 1 + eps
        (0.5, 1.0, -0.5),
        (2.0, -1.0, 2.0),  # full blame beyond 1 + eps
        (0.5, -1.0, 0.8),  # no credit for avoiding it below 1 - eps
    ],
)
def test_surrogate_of_one_sample(ratio: float, advantage: float, loss: float) -> None:
    found = losses.clipped_surrogate(*logs(ratio), torch.tensor([advantage]), 0.2)
    assert_close(found, torch.tensor(loss))


def test_surrogate_is_the_mean() -> None:
    # -(1.2 + 0.5 - 2 - 0.8) / 4
    found = losses.clipped_surrogate(*logs(2.0, 0.5, 2.0, 0.5), torch.tensor([1.0, 1.0, -1.0, -1.0]), 0.2)
    assert_close(found, torch.tensor(0.275))


def test_clipped_surrogate_has_zero_gradient() -> None:
    logprob, old = logs(2.0, 0.5, 2.0, 0.5)
    logprob.requires_grad_()
    losses.clipped_surrogate(logprob, old, torch.tensor([1.0, 1.0, -1.0, -1.0]), 0.2).backward()
    assert logprob.grad is not None
    assert_close(logprob.grad, torch.tensor([0.0, -0.125, 0.5, 0.0]))  # -ratio * A / 4 where it pulls


@given(FLOATS, st.floats(0.01, 0.9))
def test_surrogate_is_a_lower_bound_of_the_unclipped_objective(numbers: list[float], eps: float) -> None:
    logprob, advantage = torch.tensor(numbers), torch.tensor(numbers[::-1])
    old = torch.zeros_like(logprob)
    unclipped = -(logprob.exp() * advantage).mean()
    assert losses.clipped_surrogate(logprob, old, advantage, eps) >= unclipped - 1e-5


def test_policy_gradient() -> None:
    # -(-1 * 3 + -2 * -0.5) / 2
    assert losses.policy_gradient(torch.tensor([-1.0, -2.0]), torch.tensor([3.0, -0.5])).item() == 1.0


def test_value_loss() -> None:
    # 0.5 * (1 + 4) / 2
    assert losses.value_loss(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])).item() == 1.25


@pytest.mark.parametrize(
    ("value", "old_value", "returns", "loss"),
    [
        (0.6, 0.5, 1.0, 0.08),  # a small move: 0.5 * 0.4^2
        (2.0, 1.0, 4.0, 3.92),  # towards the return and too far: 0.5 * (1.2 - 4)^2
        (1.0, 0.5, 0.0, 0.5),  # away from the return: the larger of 1^2 and 0.7^2, halved
        (0.0, 1.0, 4.0, 8.0),  # away, downwards: the larger of 4^2 and 3.2^2, halved
    ],
)
def test_clipped_value_loss(value: float, old_value: float, returns: float, loss: float) -> None:
    found = losses.clipped_value_loss(
        torch.tensor([value]), torch.tensor([old_value]), torch.tensor([returns]), 0.2
    )
    assert_close(found, torch.tensor(loss))


@given(FLOATS, st.floats(0.01, 0.9))
def test_clipped_value_loss_is_pessimistic(numbers: list[float], eps: float) -> None:
    value, returns = torch.tensor(numbers), torch.tensor(numbers[::-1])
    clipped = losses.clipped_value_loss(value, value.roll(1), returns, eps)
    assert clipped >= losses.value_loss(value, returns)
    assert_close(losses.clipped_value_loss(value, value, returns, eps), losses.value_loss(value, returns))


def value_gradient(value: Tensor, returns: Tensor, old: Tensor | None = None, eps: float = 0.2) -> Tensor:
    """Of the value loss at the values, (B,)."""
    value = value.clone().requires_grad_()
    if old is None:
        loss = losses.value_loss(value, returns)
    else:
        loss = losses.clipped_value_loss(value, old, returns, eps)
    loss.backward()
    assert value.grad is not None
    return value.grad


def test_value_gradient_by_hand() -> None:
    """(V - R) / B."""
    assert value_gradient(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])).tolist() == [0.5, -1.0]
    # towards the return and too far: the clipped branch is the larger and doesn't move
    assert value_gradient(torch.tensor([2.0]), torch.tensor([4.0]), torch.tensor([1.0])).tolist() == [0.0]
    # away from the return: the unclipped branch is the larger
    assert value_gradient(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([0.5])).tolist() == [1.0]


@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0])
def test_value_gradient_within_the_clip_range_is_the_unclipped_one(scale: float) -> None:
    """Rounding must not make the clipped error larger by one unit in the last place: gradient 0."""
    rng = torch.Generator().manual_seed(0)
    value, error, move = torch.randn(3, 10_000, generator=rng)
    value, returns, old = scale * value, scale * (value + error), scale * value + 0.15 * move.tanh()
    assert_close(value_gradient(value, returns, old), value_gradient(value, returns), atol=0, rtol=1e-6)
    assert_close(losses.clipped_value_loss(value, old, returns, 0.2), losses.value_loss(value, returns))


def test_approx_kl() -> None:
    assert_close(losses.approx_kl(*logs(2.0, 1.0)), torch.tensor((1 - math.log(2)) / 2))
    # Old policy (1/2, 1/2), new (1/4, 3/4), each arm drawn once: the estimate is the divergence itself,
    # ln(2)/2 + ln(2/3)/2.
    assert_close(losses.approx_kl(*logs(0.5, 1.5)), torch.tensor(0.1438410362))


@given(FLOATS)
def test_approx_kl_is_never_negative(numbers: list[float]) -> None:
    logprob = torch.tensor(numbers)
    assert losses.approx_kl(logprob, torch.zeros_like(logprob)) >= -1e-6
    assert losses.approx_kl(logprob, logprob).item() == 0.0


def test_clip_fraction() -> None:
    assert losses.clip_fraction(*logs(0.79, 0.81, 1.0, 1.19, 1.21), 0.2).item() == pytest.approx(0.4)


def test_bootstrapped_target_is_the_reward_at_an_end_or_without_items() -> None:
    rewards, values = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 10.0, -torch.inf])
    ended = torch.tensor([False, True, False])
    assert losses.bootstrapped(rewards, 0.5, values, ended).tolist() == [6, 2, 3]


def test_conservative_penalty() -> None:
    """log(e^0 + e^ln 3) - ln 3 = ln(4 / 3), and without the forbidden item ln 1 = 0."""
    q = torch.tensor([[0.0, math.log(3.0)], [2.0, -torch.inf]])
    found = losses.conservative(q, torch.tensor([1, 0]))
    assert_close(found, torch.tensor(math.log(4 / 3) / 2))


def test_gradient_of_the_conservative_penalty_is_softmax_minus_the_shown_item() -> None:
    q = torch.tensor([[0.0, math.log(3.0), -torch.inf]], requires_grad=True)
    losses.conservative(q, torch.tensor([1])).backward()
    assert q.grad is not None
    assert_close(q.grad, torch.tensor([[0.25, -0.25, 0.0]]))


def test_expectile_and_quantile() -> None:
    error = torch.tensor([2.0, -1.0])
    assert losses.expectile_loss(error, 0.9).item() == pytest.approx((0.9 * 4 + 0.1 * 1) / 2)
    assert losses.expectile_loss(error, 0.5).item() == pytest.approx(0.5 * 2.5)  # half of the mean square
    assert losses.quantile_loss(error, 0.9).item() == pytest.approx((0.9 * 2 + 0.1 * 1) / 2)


@pytest.mark.parametrize("unit", [0.01, 1.0, 100.0])
def test_weights_of_advantages_do_not_depend_on_their_unit(unit: float) -> None:
    advantage = unit * torch.tensor([1.0, -1.0])  # their standard deviation is the unit
    found = losses.advantage_weights(advantage, 2.0, 100.0)
    assert_close(found, torch.tensor([math.exp(2), math.exp(-2)]))
    assert losses.advantage_weights(advantage, 2.0, 3.0)[0] == 3.0
    assert losses.advantage_weights(torch.full((3,), unit), 2.0, 3.0).tolist() == [1, 1, 1]


def test_top_k_factor_is_the_derivative_of_being_in_the_list() -> None:
    p = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64, requires_grad=True)
    for k in (1, 2, 5):
        (derivative,) = torch.autograd.grad((1 - (1 - p) ** k).sum(), p)
        assert_close(losses.top_k_factor(p.detach().log(), k), derivative)
