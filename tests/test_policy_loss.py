"""The closed-form gradient of the policy losses: against a pencil, and against autograd; compiled and not."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.functional import categorical, losses
from recsys_rl.functional.policy_loss import PolicyGradient, clipped_policy_gradient_, policy_gradient_
from tests.compiled import each_way as each_way

EPS = 0.2


def by_autograd(
    logits: Tensor, items: Tensor, old_logprob: Tensor | None, advantage: Tensor, ent_coef: float
) -> PolicyGradient:
    """The same from the single equations, in float64."""
    logits, advantage = logits.double().requires_grad_(), advantage.double()
    logprob = categorical.logprob(logits, items).sum(-1)  # (B,)
    entropy = categorical.entropy(logits).sum(-1)  # (B,)
    if old_logprob is None:
        objective, loss = logprob * advantage, losses.policy_gradient(logprob, advantage)
    else:
        old = old_logprob.double()
        loss = losses.clipped_surrogate(logprob, old, advantage, EPS)
        objective = torch.stack(
            [-losses.clipped_surrogate(*row, EPS) for row in zip(logprob, old, advantage, strict=True)]
        )
    (gradient,) = torch.autograd.grad(loss - ent_coef * entropy.mean(), logits)
    return PolicyGradient(gradient, objective.detach(), entropy.detach(), logprob.detach())


def assert_same(found: PolicyGradient, expected: PolicyGradient) -> None:
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other.to(one.dtype), atol=2e-5, rtol=2e-5)


def test_literal_gradient_of_the_surrogate() -> None:
    # p = (1/2, 1/2), ratio 1, A = 2: dL/dl = -2 (1 - 1/2), -2 (0 - 1/2)
    old = torch.tensor([math.log(0.5)])
    policy = clipped_policy_gradient_(
        torch.zeros(1, 1, 2), torch.tensor([[0]]), old, torch.tensor([2.0]), EPS, 0.0
    )
    assert_close(policy.objective, torch.tensor([2.0]))
    assert_close(policy.entropy, torch.tensor([math.log(2)]))
    assert_close(policy.logprob, torch.tensor([math.log(0.5)]))
    assert_close(policy.gradient, torch.tensor([[[-1.0, 1.0]]]))


def test_literal_policy_gradient() -> None:
    # p = (1/2, 1/2), A = 3: -A ([j = a] - p_j); the objective is log(1/2) * 3
    policy = policy_gradient_(torch.zeros(1, 1, 2), torch.tensor([[1]]), torch.tensor([3.0]), 0.0)
    assert_close(policy.gradient, torch.tensor([[[1.5, -1.5]]]))
    assert_close(policy.objective, torch.tensor([3 * math.log(0.5)]))


def test_literal_gradient_of_the_entropy() -> None:
    # p = (3/4, 1/4), H = 0.5623351: p_j (log p_j + H) = 3/4 (-0.2876821 + H), 1/4 (-1.3862944 + H)
    logits = torch.tensor([[[3.0, 1.0]]]).log()
    policy = clipped_policy_gradient_(
        logits, torch.tensor([[0]]), torch.tensor([math.log(0.75)]), torch.zeros(1), EPS, 1.0
    )
    assert_close(policy.entropy, torch.tensor([0.5623351]))
    assert_close(policy.gradient, torch.tensor([[[0.2059898, -0.2059898]]]))


@pytest.mark.parametrize(
    ("ratio", "advantage", "pulls"),
    [(1.3, 1.0, False), (0.7, -1.0, False), (1.3, -1.0, True), (0.7, 1.0, True), (1.1, 1.0, True)],
)
def test_clipped_samples_pull_no_more(ratio: float, advantage: float, pulls: bool) -> None:
    old = torch.tensor([math.log(0.25 / ratio)])
    policy = clipped_policy_gradient_(
        torch.zeros(1, 1, 4), torch.tensor([[1]]), old, torch.tensor([advantage]), EPS, 0.0
    )
    weight = -ratio * advantage if pulls else 0.0
    expected = weight * torch.tensor([[[-0.25, 0.75, -0.25, -0.25]]])
    assert_close(policy.gradient, expected)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    batch=st.integers(1, 6),
    positions=st.integers(1, 3),
    size=st.sampled_from([1, 2, 5, 63, 64, 65, 200]),
    masked=st.booleans(),
    clipped=st.booleans(),
    ent_coef=st.sampled_from([0.0, 0.01, 3.0]),
)
def test_equals_autograd(
    seed: int, batch: int, positions: int, size: int, masked: bool, clipped: bool, ent_coef: float
) -> None:
    rng = torch.Generator().manual_seed(seed)
    raw = 2 * torch.randn(batch, positions, size, generator=rng)
    allowed = torch.rand(raw.shape, generator=rng) < 0.6
    allowed[..., 0] = True
    raw = categorical.mask_logits(raw, allowed if masked else None)
    items, logprob = categorical.draw(raw, rng)  # (B, K) each
    # Ratios on both sides of the clip.
    old = logprob.sum(-1) - torch.randn(batch, generator=rng) if clipped else None
    advantage = torch.randn(batch, generator=rng)
    logits = raw.clone()
    if old is None:
        found = policy_gradient_(logits, items, advantage, ent_coef)
    else:
        found = clipped_policy_gradient_(logits, items, old, advantage, EPS, ent_coef)
    assert found.gradient.data_ptr() == logits.data_ptr()  # in the place of the logits
    assert_same(found, by_autograd(raw, items, old, advantage, ent_coef))


def test_every_side_of_the_clip_was_compared() -> None:
    """One fixed batch with ratios below, inside and above the clip range and both signs of advantage."""
    rng = torch.Generator().manual_seed(0)
    raw = torch.randn(6, 2, 5, generator=rng)
    raw[:, 1, 3:] = -torch.inf
    items = torch.tensor([[0, 1]]).expand(6, 2)
    old = categorical.logprob(raw, items).sum(-1) - torch.tensor([0.5, 1.0, 1.5, 0.5, 1.0, 1.5]).log()
    advantage = torch.tensor([1.0, 2.0, 3.0, -1.0, -2.0, -3.0])
    found = clipped_policy_gradient_(raw.clone(), items, old, advantage, EPS, 0.0)
    assert_same(found, by_autograd(raw, items, old, advantage, 0.0))
    moved = found.gradient.abs().sum((1, 2)).gt(0)
    assert moved.tolist() == [True, True, False, False, True, True]


def test_float64_keeps_its_precision() -> None:
    rng = torch.Generator().manual_seed(0)
    raw = torch.randn(4, 1, 9, generator=rng, dtype=torch.float64)
    items, logprob = categorical.draw(raw, rng)
    found = clipped_policy_gradient_(
        raw.clone(), items, logprob.sum(-1) - 0.1, torch.ones(4).double(), EPS, 0.3
    )
    expected = by_autograd(raw, items, logprob.sum(-1) - 0.1, torch.ones(4), 0.3)
    assert_close(found.gradient, expected.gradient, atol=1e-12, rtol=1e-10)


def test_a_large_entropy_bonus_on_a_small_batch_stays_finite_in_float32() -> None:
    logits = torch.tensor([[[1.0, 0.0, -torch.inf]]])
    found = clipped_policy_gradient_(logits, torch.tensor([[0]]), torch.zeros(1), torch.ones(1), EPS, 8.0)
    assert bool(found.gradient.isfinite().all()) and found.gradient[0, 0, 2] == 0.0


def test_far_logits_neither_overflow_nor_vanish() -> None:
    logits = torch.tensor([[[3e4, 3e4 - 1, -3e4]]])
    found = clipped_policy_gradient_(
        logits.clone(), torch.tensor([[1]]), torch.tensor([-1.0]), torch.ones(1), EPS, 0.1
    )
    assert_same(found, by_autograd(logits, torch.tensor([[1]]), torch.tensor([-1.0]), torch.ones(1), 0.1))


def test_nan_comes_out_as_nan() -> None:
    logits = torch.tensor([[[torch.nan, 0.0]]])
    found = clipped_policy_gradient_(logits, torch.tensor([[0]]), torch.zeros(1), torch.ones(1), EPS, 0.1)
    assert bool(found.objective.isnan().all()) and bool(found.gradient.isnan().any())


def test_the_number_of_threads_changes_nothing() -> None:
    rng = torch.Generator().manual_seed(0)
    raw = torch.randn(64, 1, 1000, generator=rng)
    items, _ = categorical.draw(raw, rng)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        old = torch.full((64,), -7.0)
        found.append(clipped_policy_gradient_(raw.clone(), items, old, old, EPS, 0.1))
    torch.set_num_threads(before)
    assert torch.equal(found[0].gradient, found[1].gradient)


def test_nothing_carries_a_gradient() -> None:
    logits = torch.zeros(2, 1, 3, requires_grad=True)
    policy = clipped_policy_gradient_(
        logits, torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2), torch.ones(2), EPS, 0.1
    )
    assert not any(part.requires_grad for part in policy)


@pytest.mark.parametrize("item", [-1, 3, 15])
def test_an_item_that_is_no_alternative_changes_nothing_else(item: int) -> None:
    big = torch.zeros(4, 1, 3)
    with pytest.raises((IndexError, RuntimeError), match=r"outside|out of bounds"):
        clipped_policy_gradient_(
            big[:2], torch.tensor([[0], [item]]), torch.zeros(2), torch.ones(2), EPS, 0.1
        )
    assert not big[2:].any()


def test_other_types_are_converted_and_other_shapes_refused() -> None:
    logits, old = torch.randn(3, 1, 5, generator=torch.Generator().manual_seed(0)), torch.full((3,), -1.5)
    items, advantage = torch.tensor([[0], [1], [4]]), torch.tensor([1.0, -2.0, 0.5])
    expected = clipped_policy_gradient_(logits.clone(), items, old, advantage, EPS, 0.1)
    found = clipped_policy_gradient_(logits.clone(), items, old.double(), advantage.double(), EPS, 0.1)
    assert_close(found.gradient, expected.gradient)
    with pytest.raises((ValueError, RuntimeError)):
        clipped_policy_gradient_(logits.clone(), items[:2], old, advantage, EPS, 0.1)
