"""Slates with kinds of places: numbers by hand, enumeration, autograd and the frequencies of draws."""

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
from recsys_rl.functional.patterns import Layout, Patterns

VIDEO, PRODUCT, EMPTY = range(3)
KINDS = torch.tensor([VIDEO, VIDEO, PRODUCT, PRODUCT, PRODUCT, EMPTY])
CLASSES = torch.tensor([0, 1, 0, 1, 1, -1])
LAYOUT = Layout(((PRODUCT, EMPTY), (VIDEO, EMPTY), (VIDEO, PRODUCT)), KINDS, CLASSES)
GATES = torch.tensor([1.0, 2.0, 5.0]).log()  # 1/8, 1/4, 5/8
ITEMS = torch.tensor([1.0, 3.0, 2.0, 1.0, 1.0, 7.0]).log()  # videos 1/4, 3/4; products 1/2, 1/4, 1/4
TOGETHER = torch.tensor(3.0).log()
# Below video 0 product 2 weighs 2 * 3: 6/8, 1/8, 1/8; below video 1 products 3 and 4 weigh 3: 2/8, 3/8, 3/8.
EXPECTED = {
    (2, 5): 1 / 16,
    (3, 5): 1 / 32,
    (4, 5): 1 / 32,
    (0, 5): 1 / 16,
    (1, 5): 3 / 16,
    (0, 2): 5 / 32 * 6 / 8,
    (0, 3): 5 / 32 / 8,
    (0, 4): 5 / 32 / 8,
    (1, 2): 15 / 32 * 2 / 8,
    (1, 3): 15 / 32 * 3 / 8,
    (1, 4): 15 / 32 * 3 / 8,
}
SLATES = torch.tensor([*itertools.product(range(6), repeat=2)])


def patterns(rows: int, items: Tensor = ITEMS) -> Patterns:
    return Patterns(GATES.expand(rows, -1), items.expand(rows, -1), TOGETHER, LAYOUT)


def by_enumeration(
    gates: Tensor, items: Tensor, together: Tensor, layout: Layout
) -> dict[tuple[int, ...], Tensor]:
    """The probability of each possible slate of one row, by the definition."""
    kinds, classes = layout.kinds.tolist(), layout.classes.tolist()
    allowed = [i for i in range(len(kinds)) if items[i] > -torch.inf]
    possible = [
        n
        for n, pattern in enumerate(layout.patterns)
        if all(any(kinds[i] == k for i in allowed) for k in pattern)
    ]
    of_pattern = dict(zip(possible, gates[possible].softmax(0), strict=True))
    found: dict[tuple[int, ...], Tensor] = {}
    for number, chance in of_pattern.items():
        pattern = layout.patterns[number]
        choices = [[i for i in allowed if kinds[i] == kind] for kind in pattern]
        for slate in itertools.product(*choices):
            p = chance
            for place, item in enumerate(slate):
                first = classes[slate[0]] if place == 1 else -1
                logits = torch.stack(
                    [items[j] + together * (classes[j] == first >= 0) for j in choices[place]]
                )
                p = p * logits.softmax(0)[choices[place].index(item)]
            found[slate] = p
    return found


def test_numbers_by_hand() -> None:
    found = patterns(len(SLATES))
    expected = torch.tensor([EXPECTED.get(tuple(slate), 0.0) for slate in SLATES.tolist()])
    logprob, entropy = found.evaluate(SLATES)
    assert_close(logprob.exp(), expected)
    assert bool((logprob[expected == 0] == -torch.inf).all())
    assert_close(found.place_logprobs(SLATES).sum(1).exp().float(), expected)
    nats = -sum(p * math.log(p) for p in EXPECTED.values())
    assert_close(entropy, torch.full_like(entropy, nats))
    assert tuple(found.best()[0].tolist()) in {(1, 5), (1, 3), (1, 4)}
    assert EXPECTED[tuple(found.best()[0].tolist())] == max(EXPECTED.values())
    # Of the first place: video 1 in 3/16 + 15/32 of the slates.
    assert_close(found.logits[0].exp(), torch.tensor([7 / 32, 21 / 32, 1 / 16, 1 / 32, 1 / 32, 0.0]))


def test_kind_without_items_has_no_slate() -> None:
    """Without products a video stands alone; without videos a product does."""
    for gone, left in (
        (PRODUCT, {(0, 5): 1 / 4, (1, 5): 3 / 4}),
        (VIDEO, {(2, 5): 1 / 2, (3, 5): 1 / 4, (4, 5): 1 / 4}),
    ):
        found = patterns(len(SLATES), ITEMS.masked_fill(KINDS.eq(gone), -torch.inf))
        expected = torch.tensor([left.get(tuple(slate), 0.0) for slate in SLATES.tolist()])
        logprob, entropy = found.evaluate(SLATES)
        assert_close(logprob.exp(), expected)
        nats = -sum(p * math.log(p) for p in left.values())
        assert_close(entropy, torch.full_like(entropy, nats))
        assert tuple(found.best()[0].tolist()) == max(left, key=left.__getitem__)
    nothing = patterns(
        2, ITEMS.masked_fill(KINDS.eq(EMPTY), -torch.inf).masked_fill(KINDS.eq(VIDEO), -torch.inf)
    )
    assert not bool(nothing.enough.any())
    for choose in (nothing.draw, nothing.best):
        with pytest.raises(UserError):
            choose()
    # Nothing is possible there, which is no NaN: that would be a broken network.
    slates = torch.tensor([[0, 5], [2, 5]])
    for impossible in (nothing.logits, nothing.place(slates[:, :1]), nothing.place_logprobs(slates)):
        assert bool((impossible == -torch.inf).all())
    assert bool((nothing.logprob(slates) == -torch.inf).all())
    assert not bool(nothing.entropy().isnan().any())
    broken = Patterns(GATES.expand(1, -1) * math.nan, ITEMS.expand(1, -1), TOGETHER, LAYOUT)
    assert bool(broken.enough.all()) and bool(broken.logits.isnan().any())
    # Rows without a slate can be replaced, as a server does.
    assert bool(nothing.only(nothing.enough).logprob(torch.tensor([[0, 5], [2, 5]])).isfinite().all())


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_probabilities_entropy_and_best_are_those_of_enumeration(data: st.DataObject) -> None:
    """Slates of three places, with any allowed items and classes."""
    layout_kinds = torch.tensor([0, 0, 0, 1, 1, 1, 2, 3, 3])
    classes = torch.tensor(data.draw(st.lists(st.integers(-1, 2), min_size=9, max_size=9)))
    layout = Layout(((1, 2, 3), (0, 2, 3), (0, 1, 3)), layout_kinds, classes)
    numbers = st.floats(-20, 20, width=32)
    gates = torch.tensor(data.draw(st.lists(numbers, min_size=3, max_size=3)), dtype=torch.float64)
    items = torch.tensor(data.draw(st.lists(numbers, min_size=9, max_size=9)), dtype=torch.float64)
    together = torch.tensor(data.draw(st.floats(-5, 5, width=32)), dtype=torch.float64)
    allowed = torch.tensor(data.draw(st.lists(st.booleans(), min_size=9, max_size=9)))
    allowed[[0, 6, 7]] = True
    items = items.masked_fill(~allowed, -torch.inf)
    expected = by_enumeration(gates, items, together, layout)
    slates = torch.tensor([*expected])
    found = Patterns(gates.expand(len(slates), -1), items.expand(len(slates), -1), together, layout)
    chances = torch.stack([*expected.values()])
    logprob, entropy = found.evaluate(slates)
    assert_close(chances.sum(), torch.tensor(1.0, dtype=torch.float64))
    assert_close(logprob, chances.log(), rtol=1e-6, atol=1e-9)
    assert_close(found.place_logprobs(slates).sum(1), chances.log(), rtol=1e-6, atol=1e-9)
    assert_close(entropy[0], -torch.special.xlogy(chances, chances).sum(), rtol=1e-6, atol=1e-9)
    best = tuple(found.best()[0].tolist())
    assert expected[best] >= chances.max() * (1 - 1e-9)


@pytest.mark.parametrize("masked", [False, True])
def test_gradient_is_that_of_autograd_over_enumeration(masked: bool) -> None:
    allowed = torch.tensor([True, True, not masked, True, True, True])
    noise = torch.Generator().manual_seed(0)
    leaves = [
        torch.randn(size, generator=noise, dtype=torch.float64, requires_grad=True)
        for size in ((3,), (6,), ())
    ]
    slates = torch.tensor([[0, 5], [1, 3], [4, 5]])

    def ours(gates: Tensor, items: Tensor, together: Tensor) -> tuple[Tensor, Tensor]:
        logits = items.masked_fill(~allowed, -torch.inf)
        return Patterns(gates.expand(3, -1), logits.expand(3, -1), together, LAYOUT).evaluate(slates)

    def plain(gates: Tensor, items: Tensor, together: Tensor) -> tuple[Tensor, Tensor]:
        chances = by_enumeration(gates, items.masked_fill(~allowed, -torch.inf), together, LAYOUT)
        every = torch.stack([*chances.values()])
        nats = -(every * every.log()).sum().expand(3)
        return torch.stack([chances[tuple(slate)] for slate in slates.tolist()]).log(), nats

    assert torch.autograd.gradcheck(ours, leaves)
    weights, found = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), []
    for way in (ours, plain):
        logprob, entropy = way(*leaves)
        found.append(torch.autograd.grad((weights * (logprob + 0.3 * entropy)).sum(), leaves))
    for one, two in zip(*found, strict=True):
        assert_close(one, two)
    assert bool((found[0][1][~allowed] == 0).all())


def test_frequencies() -> None:
    """A chi-square test of 100,000 draws with a fixed seed; each has the log-probability of its slate."""
    index, logprob = patterns(100_000).draw(torch.Generator().manual_seed(0))
    keys = [*EXPECTED]
    numbers = torch.tensor([6 * first + second for first, second in keys])
    drawn = 6 * index[:, 0] + index[:, 1]
    counts = (drawn.unsqueeze(1) == numbers).sum(0)
    assert int(counts.sum()) == 100_000
    shares = torch.tensor([*EXPECTED.values()], dtype=torch.float64)
    assert chisquare(counts, 100_000 * shares / shares.sum()).pvalue > 0.01
    assert_close(logprob.exp(), shares.float()[(drawn.unsqueeze(1) == numbers).int().argmax(1)])


def test_explored_places_are_mixed_with_uniform_ones() -> None:
    """Of the first place 6 - 1 items are possible; below video 0 the empty item and three products."""
    found = patterns(1).explored(torch.tensor([0.2]))
    assert_close(found.logits[0, 1].exp(), torch.tensor(0.8 * 21 / 32 + 0.2 / 5))
    below = found.place(torch.tensor([[0]]))[0].exp()
    assert_close(below.sum(), torch.tensor(1.0))
    assert_close(below[2], torch.tensor(0.8 * (5 / 32 * 6 / 8) / (7 / 32) + 0.2 / 4))
    for of_slates in (found.best, found.entropy, lambda: found.logprob(torch.tensor([[0, 2]]))):
        with pytest.raises(ValueError, match="exploration"):
            of_slates()


@pytest.mark.parametrize("together", [-20.0, 0.0, 20.0])
def test_float32_at_the_ends_of_together(together: float) -> None:
    """With one product of the video's class, and with all; the items are 60 logits apart."""
    items = torch.tensor([0.0, -60.0, 3.0, -57.0, 0.0, 0.0])
    for masked in ([], [3], [3, 4]):
        logits = items.clone()
        logits[masked] = -torch.inf
        gates, gain = torch.tensor([0.5, 0.0, 2.0]), torch.tensor(together)
        found = Patterns(gates.unsqueeze(0), logits.unsqueeze(0), gain, LAYOUT)
        exact = by_enumeration(gates.double(), logits.double(), gain.double(), LAYOUT)
        for slate, p in exact.items():
            index = torch.tensor([slate])
            assert_close(found.logprob(index)[0].double(), p.log(), rtol=1e-5, atol=2e-5)
            assert_close(found.place_logprobs(index).sum(), p.log(), rtol=1e-9, atol=1e-9)
        entropy = -sum(p * p.log() for p in exact.values() if p > 0)
        assert_close(found.entropy()[0].double(), entropy, rtol=1e-5, atol=1e-5)


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_networks_numbers_give_the_probabilities_of_enumeration_up_to_their_rounding(
    data: st.DataObject,
) -> None:
    """In float32, against an enumeration of the same numbers in float64.

    A logit of size x is rounded by up to x 2^-24, and a log-probability takes a dozen such sums.
    """
    kinds = torch.tensor([0, 0, 0, 1, 1, 1, 2, 3, 3])
    classes = torch.tensor(data.draw(st.lists(st.integers(-1, 2), min_size=9, max_size=9)))
    layout = Layout(((1, 2, 3), (0, 2, 3), (0, 1, 3)), kinds, classes)
    numbers = st.floats(-30, 30, width=32)
    gates, items = (
        torch.tensor(data.draw(st.lists(numbers, min_size=size, max_size=size))) for size in (3, 9)
    )
    together = torch.tensor(data.draw(st.floats(-5, 5, width=32)))
    allowed = torch.tensor(data.draw(st.lists(st.booleans(), min_size=9, max_size=9)))
    allowed[[0, 6, 7]] = True
    items = items.masked_fill(~allowed, -torch.inf)
    expected = by_enumeration(gates.double(), items.double(), together.double(), layout)
    slates, chances = torch.tensor([*expected]), torch.stack([*expected.values()])
    found = Patterns(gates.expand(len(slates), -1), items.expand(len(slates), -1), together, layout)
    logprob, entropy = found.evaluate(slates)
    assert logprob.dtype == entropy.dtype == torch.float32
    rounding = 12 * 65 * 2**-24
    assert_close(logprob.double(), chances.log(), rtol=0, atol=rounding)
    assert_close(entropy[0].double(), -torch.special.xlogy(chances, chances).sum(), rtol=0, atol=rounding)
    by_place = torch.zeros_like(logprob)
    for place in range(3):
        of_place = found.place(slates[:, :place])
        by_place += of_place.gather(1, slates[:, place : place + 1]).squeeze(1)
        assert_close(of_place.double().exp().sum(1), torch.ones(len(slates)).double(), rtol=0, atol=1e-5)
    assert_close(by_place.double(), chances.log(), rtol=0, atol=rounding)
