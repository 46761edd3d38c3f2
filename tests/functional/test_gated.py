"""The gated distribution against enumeration, autograd's gradient and the frequencies of its draws."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.functional.gated import Gated, joint_logits
from tests.compiled import each_way as each_way
from tests.compiled import without_kernels as without_kernels

KINDS = torch.tensor([0, 0, 1, 2, 2, 2])
GATES = torch.tensor([1.0, 2.0, 5.0]).log()  # 1/8, 1/4, 5/8
ITEMS = torch.tensor([1.0, 3.0, 7.0, 1.0, 1.0, 2.0]).log()  # 1/4, 3/4; 1; 1/4, 1/4, 1/2
EXPECTED = torch.tensor([1 / 32, 3 / 32, 1 / 4, 5 / 32, 5 / 32, 5 / 16])
# Without item 1 and without the only item of kind 1: kinds 1/6, 0, 5/6.
MASK = torch.tensor([True, False, False, True, True, True])
MASKED = torch.tensor([1 / 6, 0.0, 0.0, 5 / 24, 5 / 24, 5 / 12])


def gated(rows: int = 1, mask: Tensor | None = None) -> Gated:
    items = ITEMS if mask is None else ITEMS.masked_fill(~mask, -torch.inf)
    return Gated(GATES.expand(rows, -1), items.repeat(rows, 1, 1), KINDS)


def kind_probabilities(distribution: Gated) -> Tensor:
    """(N, G): the probability of each kind, without a gradient; 0 for a kind without an allowed item."""
    of_items = distribution.logits.detach().squeeze(1).softmax(1)  # (N, A)
    kinds = distribution.kinds.expand_as(of_items)
    return torch.zeros_like(distribution.gates).scatter_add_(1, kinds, of_items)


def by_enumeration(gates: Tensor, logits: Tensor, kinds: Tensor) -> list[float]:
    """p(i) of one row, by the definition, in Python's floats."""
    weights = [math.exp(x) for x in logits.tolist()]
    of_kind = [0.0] * len(gates)
    for kind, weight in zip(kinds.tolist(), weights, strict=True):
        of_kind[kind] += weight
    shares = [math.exp(g) if total > 0 else 0.0 for g, total in zip(gates.tolist(), of_kind, strict=True)]
    return [
        shares[kind] / sum(shares) * weight / of_kind[kind] if weight > 0 else 0.0
        for kind, weight in zip(kinds.tolist(), weights, strict=True)
    ]


@pytest.mark.parametrize(("mask", "expected"), [(None, EXPECTED), (MASK, MASKED)])
def test_numbers_by_hand(mask: Tensor | None, expected: Tensor) -> None:
    every = torch.arange(6).unsqueeze(1)
    found = gated(6, mask)
    logprob, entropy = found.evaluate(every)
    assert_close(logprob.exp(), expected)
    assert_close(found.logprob(every), logprob)
    nats = -sum(p * math.log(p) for p in expected.tolist() if p > 0)
    assert_close(entropy, torch.full((6,), nats))
    assert_close(found.entropy(), entropy)
    assert found.best().tolist() == [[5]] * 6
    if mask is not None:
        assert bool((logprob[~mask] == -torch.inf).all())
        kinds = kind_probabilities(found)[0]
        assert kinds[1] == 0
        assert_close(kinds, torch.tensor([1 / 6, 0, 5 / 6]))


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_probabilities_and_entropy_are_those_of_enumeration(data: st.DataObject) -> None:
    num_kinds, num_items = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12))
    numbers = st.floats(-30, 30, width=32)
    gates = torch.tensor(data.draw(st.lists(numbers, min_size=num_kinds, max_size=num_kinds)))
    logits = torch.tensor(data.draw(st.lists(numbers, min_size=num_items, max_size=num_items)))
    kinds = torch.tensor(
        data.draw(st.lists(st.integers(0, num_kinds - 1), min_size=num_items, max_size=num_items))
    )
    allowed = data.draw(st.lists(st.booleans(), min_size=num_items, max_size=num_items).filter(any))
    logits = logits.masked_fill(~torch.tensor(allowed), -torch.inf)
    expected = torch.tensor(by_enumeration(gates, logits, kinds))
    found = Gated(gates.expand(num_items, -1), logits.repeat(num_items, 1, 1), kinds)
    probabilities = found.logprob(torch.arange(num_items).unsqueeze(1)).exp()
    assert_close(probabilities.sum(), torch.tensor(1.0))
    assert_close(probabilities, expected, rtol=1e-4, atol=1e-6)
    assert bool((probabilities[expected == 0] == 0).all())
    nats = -torch.special.xlogy(expected, expected).sum()
    assert_close(found.entropy()[0], nats, rtol=1e-4, atol=1e-4)
    assert expected[found.best()[0, 0]] >= expected.max() * (1 - 1e-4)


def test_kinds_of_each_row() -> None:
    """Candidates have kinds of their own in each row."""
    kinds = torch.stack([KINDS, KINDS.flip(0)])
    logits = torch.stack([ITEMS, ITEMS.flip(0)]).unsqueeze(1)
    found = Gated(GATES.expand(2, -1), logits, kinds)
    assert_close(found.logits.softmax(-1)[:, 0], torch.stack([EXPECTED, EXPECTED.flip(0)]))


def test_gates_do_not_depend_on_the_logits_of_items() -> None:
    """Kinds keep their probabilities where the logits of one kind are far above those of another."""
    far = ITEMS + torch.tensor([0.0, 0.0, -400.0, 400.0, 400.0, 400.0])
    found = Gated(GATES.unsqueeze(0), far.view(1, 1, -1), KINDS)
    assert_close(kind_probabilities(found)[0], torch.tensor([1 / 8, 1 / 4, 5 / 8]))


@pytest.mark.parametrize("masked", [False, True])
def test_gradient(masked: bool) -> None:
    """In float64 against differences; in float32 against the definition by torch's own operators."""
    noise = torch.Generator().manual_seed(0)
    gates = torch.randn(3, 3, generator=noise, dtype=torch.float64, requires_grad=True)
    items = torch.randn(3, 6, generator=noise, dtype=torch.float64, requires_grad=True)
    allowed = MASK if masked else torch.ones(6, dtype=torch.bool)
    index = torch.tensor([[0], [3], [5]])

    def both(gates: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        logits = items.masked_fill(~allowed, -torch.inf)
        return Gated(gates, logits.unsqueeze(1), KINDS).evaluate(index)

    assert torch.autograd.gradcheck(both, (gates, items))

    def plain(gates: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Only over allowed items, kind by kind."""
        there = [kind for kind in range(3) if bool(allowed[kind == KINDS].any())]
        log_p = torch.zeros(3, 6)
        of_kinds = gates[:, there].log_softmax(1)
        for place, kind in enumerate(there):
            rows = (allowed & (kind == KINDS)).nonzero().squeeze(1)
            log_p[:, rows] = of_kinds[:, place : place + 1] + items[:, rows].log_softmax(1)
        p = torch.where(allowed, log_p.exp(), 0.0)
        return log_p.gather(1, index).squeeze(1), -(p * log_p).sum(1)

    weights = torch.tensor([1.0, -2.0, 0.5])
    found = []
    for way in (both, plain):
        leaves = [x.detach().float().requires_grad_() for x in (gates, items)]
        logprob, entropy = way(*leaves)
        loss = (weights * (logprob + 0.3 * entropy)).sum()
        found.append(torch.autograd.grad(loss, leaves))
    for one, two in zip(*found, strict=True):
        assert_close(one, two, rtol=1e-4, atol=1e-5)
    assert bool((found[0][1][:, ~allowed] == 0).all())


@pytest.mark.parametrize(("mask", "expected"), [(None, EXPECTED), (MASK, MASKED)])
def test_frequencies(mask: Tensor | None, expected: Tensor) -> None:
    """A chi-square test of 200,000 draws with a fixed seed; each has the log-probability of its item."""
    found = gated(200_000, mask)
    index, logprob = found.draw(torch.Generator().manual_seed(0))
    assert_close(logprob.exp(), expected[index[:, 0]])
    counts = index.flatten().bincount(minlength=6)
    possible = expected > 0
    assert not counts[~possible].any()
    shares = expected[possible].double()
    assert chisquare(counts[possible], 200_000 * shares / shares.sum()).pvalue > 0.01


def test_gated_row_without_an_allowed_item_has_no_finite_probability() -> None:
    """As with a categorical distribution, a row without an allowed item has no numbers."""
    logits = joint_logits(GATES.unsqueeze(0), torch.full((1, 6), -torch.inf), KINDS)
    assert bool((logits == -torch.inf).all())
