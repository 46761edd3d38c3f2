"""Ordered slates without repetition: probabilities, gradients, frequencies, the bound of the entropy."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.errors import UserError
from recsys_rl.functional import categorical
from recsys_rl.functional.categorical import Categorical
from recsys_rl.functional.plackett_luce import PlackettLuce, by_rank
from tests.compiled import each_way as each_way
from tests.compiled import without_kernels as without_kernels

LOGITS = torch.tensor([1.0, 2.0, 4.0, 1.0]).log()  # probabilities of place 1: 1/8, 1/4, 1/2, 1/8
OFF = -torch.inf


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slates(items: list[int], size: int) -> Tensor:
    return torch.tensor(list(itertools.permutations(items, size)))


def place_by_place(logits: Tensor, index: Tensor) -> Tensor:
    """The log-probability by its definition: K categorical draws from the remaining items."""
    total = torch.zeros(len(logits), dtype=logits.dtype)
    for place in index.split(1, 1):
        total = total + categorical.logprob(logits, place.squeeze(1))
        logits = logits.scatter(1, place, OFF)
    return total


def test_logprob_by_hand() -> None:
    # 2 of 8, then 4 of 6, then 1 of 2
    found = PlackettLuce(LOGITS.expand(2, 4), 3).logprob(torch.tensor([[1, 2, 0], [2, 1, 3]]))
    assert_close(found.exp(), torch.tensor([2 / 8 * 4 / 6 * 1 / 2, 4 / 8 * 2 / 4 * 1 / 2]))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=5), st.integers(1, 5), st.integers(0, 2**32)
)
def test_probabilities_of_all_slates_sum_to_one(numbers: list[float], size: int, seed: int) -> None:
    size = min(size, len(numbers))
    logits = torch.tensor(numbers)
    forbidden = torch.rand(len(numbers), generator=rng(seed)) < 0.3
    forbidden[:size] = False
    logits = logits.masked_fill(forbidden, OFF)
    every = slates(list(range(len(numbers))), size)
    policy = PlackettLuce(logits.expand(len(every), -1), size)
    logprob = policy.logprob(every)
    assert_close(logprob.exp().sum(), torch.tensor(1.0), atol=1e-5, rtol=0)
    assert bool((logprob[forbidden[every].any(1)] == OFF).all())
    entropy = -torch.special.xlogy(logprob.exp(), logprob.exp()).sum()
    assert -1e-6 <= policy.entropy()[0] <= entropy + 1e-4


def test_repeated_item_has_probability_zero() -> None:
    found = PlackettLuce(LOGITS.expand(3, 4), 3).logprob(torch.tensor([[1, 2, 1], [0, 0, 3], [0, 1, 2]]))
    assert found[:2].tolist() == [OFF, OFF] and bool(found[2].isfinite())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    batch=st.integers(1, 4),
    size=st.integers(1, 6),
    more=st.integers(0, 60),
    scale=st.sampled_from([0.1, 2.0, 20.0]),
)
def test_gradient_equals_autograd(seed: int, batch: int, size: int, more: int, scale: float) -> None:
    generator = rng(seed)
    logits = scale * torch.randn(batch, size + more, generator=generator, dtype=torch.float64)
    if more:
        logits[:, size + more - 1] = OFF
    index, drawn = PlackettLuce(logits, size).draw(generator)
    by_logprob, by_entropy = torch.randn(2, batch, generator=generator, dtype=torch.float64)
    places = torch.arange(1, size + 1).double()

    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    logprob, bound = PlackettLuce(ours, size).evaluate(index)
    (logprob * by_logprob + bound * by_entropy).sum().backward()
    expected = place_by_place(theirs, index)
    first = categorical.entropy(theirs).unsqueeze(1)
    expected_bound = (first - places.log()).relu().sum(1)
    (expected * by_logprob + expected_bound * by_entropy).sum().backward()
    assert ours.grad is not None and theirs.grad is not None
    assert_close(logprob, expected)
    assert_close(drawn, expected.detach())
    assert_close(bound, expected_bound)
    assert_close(ours.grad, theirs.grad, atol=1e-9, rtol=1e-7)


def test_float32_gradient_with_one_dominant_item() -> None:
    """A difference of sums would lose all digits here."""
    logits = torch.tensor([[60.0, 0.0, -60.0, -61.0]])
    index = torch.tensor([[0, 2, 1]])
    ours, theirs = logits.clone().requires_grad_(), logits.double().requires_grad_()
    PlackettLuce(ours, 3).logprob(index).sum().backward()
    place_by_place(theirs, index).sum().backward()
    assert ours.grad is not None and theirs.grad is not None
    assert_close(ours.grad, theirs.grad.float(), atol=1e-5, rtol=1e-5)


def test_frequencies() -> None:
    """A chi-square test of 40,000 draws over the 6 slates of 2 of 3 items that are allowed."""
    logits = torch.cat([LOGITS[:3], torch.tensor([OFF])])
    policy = PlackettLuce(logits.expand(40_000, 4).contiguous(), 2)
    drawn, logprob = policy.draw(rng())
    assert drawn.shape == (40_000, 2) and drawn.dtype == torch.int64
    every = slates([0, 1, 2], 2)
    counts = torch.stack([(drawn == slate).all(1).sum() for slate in every])
    assert counts.sum() == 40_000
    shares = PlackettLuce(logits.expand(6, 4), 2).logprob(every).exp().double()
    assert chisquare(counts, 40_000 * shares / shares.sum()).pvalue > 0.01
    assert_close(logprob, policy.logprob(drawn), atol=1e-5, rtol=1e-5)


def test_one_item_is_the_categorical() -> None:
    logits = torch.randn(50, 30, generator=rng(1))
    slate, single = PlackettLuce(logits, 1), Categorical(logits.unsqueeze(1))
    (index, logprob), (other, other_logprob) = slate.draw(rng(2)), single.draw(rng(2))
    assert torch.equal(index, other) and torch.equal(slate.best(), single.best())
    assert_close(logprob, other_logprob)
    assert_close(slate.logprob(index), single.logprob(index))
    assert_close(slate.entropy(), single.entropy())


def test_best_is_the_most_probable_slate() -> None:
    every = slates([0, 1, 2, 3], 3)
    logits = torch.tensor([0.3, -1.0, 2.0, 0.9])
    likeliest = every[PlackettLuce(logits.expand(len(every), 4), 3).logprob(every).argmax()]
    assert PlackettLuce(logits.unsqueeze(0), 3).best()[0].tolist() == likeliest.tolist() == [2, 3, 0]


def test_bound_of_equal_logits() -> None:
    """Of 10 items in 3 places: 3 log 10 - log 6, where the entropy is log(10 * 9 * 8)."""
    bound = PlackettLuce(torch.zeros(1, 10), 3).entropy().item()
    assert bound == pytest.approx(3 * math.log(10) - math.log(6), rel=1e-5)
    assert math.log(720) - math.log(6) <= bound < math.log(720)


def test_draw_at_replays_a_slate() -> None:
    policy = PlackettLuce(torch.randn(6, 20, generator=rng(1)), 4)
    u = torch.rand(6, 4, generator=rng(3))
    assert torch.equal(policy.draw_at(u)[0], policy.draw(rng(3))[0])
    # place k inverts the cumulative distribution of what is left: 1/8, 1/4, 1/2, 1/8, then 1/4, 1/2, 1/4
    found, _ = PlackettLuce(LOGITS.unsqueeze(0), 2).draw_at(torch.tensor([[0.5, 0.5]]))
    assert found.tolist() == [[2, 1]]


@pytest.mark.parametrize("greedy", [False, True])
def test_slate_larger_than_the_allowed_items(greedy: bool) -> None:
    policy = PlackettLuce(torch.tensor([[0.0, 1.0, 2.0], [0.0, OFF, 1.0]]), 3)
    with pytest.raises(UserError):
        policy.best() if greedy else policy.draw(rng())
    policy = PlackettLuce(torch.zeros(2, 3), 4)
    with pytest.raises(UserError):
        policy.best() if greedy else policy.draw(rng())


def test_all_items_in_one_slate() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]]).requires_grad_()
    policy = PlackettLuce(logits, 3)
    index, logprob = policy.draw(rng())
    assert sorted(index[0].tolist()) == [0, 1, 2]
    assert_close(policy.logprob(index).detach(), logprob)
    policy.logprob(index).sum().backward()
    assert logits.grad is not None and bool(logits.grad.isfinite().all())


def test_nan_does_not_raise() -> None:
    """It must give a NaN loss, which stops the run with its own message."""
    policy = PlackettLuce(torch.tensor([[torch.nan, 0.0, 1.0]]), 2)
    index, _ = policy.draw(rng())
    assert index.shape == (1, 2)


def test_slates_of_wrong_size() -> None:
    with pytest.raises(ValueError, match="don't fit"):
        PlackettLuce(torch.zeros(2, 5), 3).logprob(torch.zeros(2, 2, dtype=torch.int64))


def test_place_logprobs_leave_out_the_items_above() -> None:
    """exp(logits) are 1, 2, 3, 4: places 4/10, then 3/6, then 1/3."""
    slates = PlackettLuce(torch.tensor([[1.0, 2.0, 3.0, 4.0]]).log(), 3)
    terms = slates.place_logprobs(torch.tensor([[3, 2, 0]]))
    assert terms.exp().tolist() == [pytest.approx([4 / 10, 3 / 6, 1 / 3], abs=1e-6)]


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_weights_by_rank_show_a_broken_row(broken: float) -> None:
    found = by_rank(torch.tensor([[1.0, broken, OFF], [1.0, 2.0, OFF]]), 2.0)
    assert bool(found[0].isnan().all())
    assert_close(found[1], torch.tensor([-math.log(2.0), 0.0, OFF]))


def test_weights_by_rank_by_hand() -> None:
    """Equal items share a place of the ranking, and items that may not be shown have none."""
    nothing = -torch.inf
    logits = torch.tensor([[0.3, 9.0, nothing, -4.0], [2.0, 1.0, 2.0, 0.0]])
    found = by_rank(logits, 2.0).exp()
    assert_close(found, torch.tensor([[1 / 2, 1.0, 0.0, 1 / 4], [1.0, 1 / 4, 1.0, 1 / 8]]))
    rounded = logits + torch.tensor([0.0, 0.0, 1e-6, 0.0])
    assert torch.equal(by_rank(rounded, 2.0), by_rank(logits, 2.0))
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(by_rank(logits[:, order], 2.0), by_rank(logits, 2.0)[:, order])
