"""The closed-form gradient of PPO's policy loss: against a pencil, and against autograd."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.functional import choice, losses
from recsys_rl.functional.policy_loss import PolicyLoss, clipped_policy_loss

EPS = 0.2


def by_autograd(
    logits: Tensor, items: Tensor, old_logprob: Tensor, advantage: Tensor, ent_coef: float
) -> PolicyLoss:
    """The same loss from the functions that A2C uses."""
    logprob = choice.logprob(logits, items).sum(-1)  # (B,)
    surrogate = losses.clipped_surrogate(logprob, old_logprob, advantage, EPS)
    entropy = choice.entropy(logits).sum(-1).mean()
    return PolicyLoss(surrogate - ent_coef * entropy, surrogate, entropy, logprob)


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits)[0]


def test_literal_gradient_of_the_surrogate() -> None:
    # p = (1/2, 1/2), ratio 1, A = 2: dL/dl = -2 (1 - 1/2), -2 (0 - 1/2)
    logits = torch.zeros(1, 1, 2, requires_grad=True)
    policy = clipped_policy_loss(
        logits, torch.tensor([[0]]), torch.tensor([math.log(0.5)]), torch.tensor([2.0]), EPS, 0.0
    )
    assert_close(policy.loss, torch.tensor(-2.0))
    assert_close(policy.entropy, torch.tensor(math.log(2)))
    assert_close(policy.logprob, torch.tensor([math.log(0.5)]))
    assert_close(gradient(policy.loss, logits), torch.tensor([[[-1.0, 1.0]]]))


def test_literal_gradient_of_the_entropy() -> None:
    # p = (3/4, 1/4), H = 0.5623351: p_j (log p_j + H) = 3/4 (-0.2876821 + H), 1/4 (-1.3862944 + H)
    logits = torch.tensor([[[3.0, 1.0]]]).log().requires_grad_()
    policy = clipped_policy_loss(
        logits, torch.tensor([[0]]), torch.tensor([math.log(0.75)]), torch.zeros(1), EPS, 1.0
    )
    assert_close(policy.loss, torch.tensor(-0.5623351))
    assert_close(gradient(policy.loss, logits), torch.tensor([[[0.2059898, -0.2059898]]]))


@pytest.mark.parametrize(
    ("ratio", "advantage", "pulls"),
    [(1.3, 1.0, False), (0.7, -1.0, False), (1.3, -1.0, True), (0.7, 1.0, True), (1.1, 1.0, True)],
)
def test_clipped_samples_pull_no_more(ratio: float, advantage: float, pulls: bool) -> None:
    logits = torch.zeros(1, 1, 4, requires_grad=True)
    old = torch.tensor([math.log(0.25 / ratio)])
    policy = clipped_policy_loss(logits, torch.tensor([[1]]), old, torch.tensor([advantage]), EPS, 0.0)
    weight = -ratio * advantage if pulls else 0.0
    expected = weight * torch.tensor([[[-0.25, 0.75, -0.25, -0.25]]])
    assert_close(gradient(policy.loss, logits), expected)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    batch=st.integers(1, 6),
    positions=st.integers(1, 3),
    size=st.integers(1, 7),
    masked=st.booleans(),
    ent_coef=st.sampled_from([0.0, 0.01, 3.0, 40.0]),
)
def test_equals_autograd(
    seed: int, batch: int, positions: int, size: int, masked: bool, ent_coef: float
) -> None:
    rng = torch.Generator().manual_seed(seed)
    raw = 2 * torch.randn(batch, positions, size, generator=rng, dtype=torch.float64)
    allowed = torch.rand(raw.shape, generator=rng) < 0.6
    allowed[..., 0] = True
    raw = choice.mask_logits(raw, allowed if masked else None)
    items = choice.sample(raw, rng)  # (B, K)
    logprob = choice.logprob(raw, items).sum(-1)
    old = logprob - torch.randn(batch, generator=rng, dtype=torch.float64)  # ratios on both sides of the clip
    advantage = torch.randn(batch, generator=rng, dtype=torch.float64)

    ours, theirs = raw.clone().requires_grad_(), raw.clone().requires_grad_()
    policy = clipped_policy_loss(ours, items, old, advantage, EPS, ent_coef)
    reference = by_autograd(theirs, items, old, advantage, ent_coef)
    for found, expected in zip(policy, reference, strict=True):
        assert_close(found, expected)
    assert_close(gradient(3 * policy.loss, ours), gradient(3 * reference.loss, theirs))


def test_every_side_of_the_clip_was_compared() -> None:
    """One fixed batch with ratios below, inside and above the clip range and both signs of advantage."""
    rng = torch.Generator().manual_seed(0)
    raw = torch.randn(6, 2, 5, generator=rng, dtype=torch.float64)
    raw[:, 1, 3:] = -torch.inf
    items = torch.tensor([[0, 1]]).expand(6, 2)
    logprob = choice.logprob(raw, items).sum(-1)
    old = logprob - torch.tensor([0.5, 1.0, 1.5, 0.5, 1.0, 1.5], dtype=torch.float64).log()
    advantage = torch.tensor([1.0, 2.0, 3.0, -1.0, -2.0, -3.0], dtype=torch.float64)
    ours, theirs = raw.clone().requires_grad_(), raw.clone().requires_grad_()
    found = gradient(clipped_policy_loss(ours, items, old, advantage, EPS, 0.0).loss, ours)
    assert_close(found, gradient(by_autograd(theirs, items, old, advantage, 0.0).loss, theirs))
    assert found.abs().sum((1, 2)).gt(0).tolist() == [True, True, False, False, True, True]


def test_a_large_entropy_bonus_on_a_small_batch_stays_finite_in_float32() -> None:
    logits = torch.tensor([[[1.0, 0.0, -torch.inf]]], requires_grad=True)
    policy = clipped_policy_loss(logits, torch.tensor([[0]]), torch.zeros(1), torch.ones(1), EPS, 8.0)
    found = gradient(policy.loss, logits)
    assert bool(found.isfinite().all()) and found[0, 0, 2] == 0.0


def test_only_the_loss_carries_a_gradient() -> None:
    logits = torch.zeros(2, 1, 3, requires_grad=True)
    policy = clipped_policy_loss(
        logits, torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2), torch.ones(2), EPS, 0.1
    )
    carries = {name: part.requires_grad for name, part in policy._asdict().items()}
    assert carries == {"loss": True, "surrogate": False, "entropy": False, "logprob": False}
