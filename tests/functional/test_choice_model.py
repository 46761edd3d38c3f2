"""Choice models: probabilities by hand, by enumeration, and as frequencies of a million draws."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.functional.choice_model import draw, draw_at, position_based

LOG2, LOG3 = math.log(2), math.log(3)
EMPTY = -math.inf
MODELS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "multinomial": lambda utility, none: position_based(utility, none, 0.0),  # all places are seen
    "position": lambda utility, none: position_based(utility, none, 0.7),
}


def one(utility: list[float], none: float = 0.0) -> tuple[Tensor, Tensor]:
    return torch.tensor([utility], dtype=torch.float64), torch.tensor([none], dtype=torch.float64)


def test_multinomial_logit_by_hand() -> None:
    """Weights 2, 3 and 1 against 2 for none: 2/8, 3/8, 1/8."""
    found = position_based(*one([LOG2, LOG3, 0.0], LOG2), 0.0)
    assert_close(found, torch.tensor([[2 / 8, 3 / 8, 1 / 8]], dtype=torch.float64))


def test_position_based_by_hand() -> None:
    """Weights 1 and 2, none 1, eta 1: only place 1 is seen in half of the cases.

    Place 1: 1/2 * 1/2 + 1/2 * 1/4. Place 2: 1/2 * 2/4.
    """
    found = position_based(*one([0.0, LOG2]), 1.0)
    assert_close(found, torch.tensor([[3 / 8, 1 / 4]], dtype=torch.float64))


def test_position_based_has_a_gradient_in_eta() -> None:
    """Two places of weight 1, none 1. P(2) = 2^-eta / 3, and its derivative is -ln 2 times that."""
    eta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    found = position_based(*one([0.0, 0.0]), eta)[0, 1]
    (slope,) = torch.autograd.grad(found, eta)
    assert [found.item(), slope.item()] == pytest.approx([1 / 6, -LOG2 / 6])


@pytest.mark.parametrize("name", MODELS)
def test_single_place_is_a_logit(name: str) -> None:
    assert_close(MODELS[name](*one([1.5], 0.5)), torch.tensor([[1.0]], dtype=torch.float64).sigmoid())


def enumerated(name: str, utility: list[float], none: float) -> list[float]:
    """The same probabilities in plain Python, case by case."""
    weights, last = [math.exp(u) for u in utility], len(utility)
    found = [0.0] * last
    for seen in range(1, last + 1):  # the first `seen` places
        if name == "position":
            chance = seen**-0.7 - (0 if seen == last else (seen + 1) ** -0.7)
        else:
            chance = float(seen == last)
        total = math.exp(none) + sum(weights[:seen])
        for k in range(seen):
            found[k] += chance * weights[k] / total
    return found


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("utility", [[0.5, -1.0, 2.0, 0.0, 1.0], [EMPTY, 1.0, EMPTY, 0.3], [EMPTY] * 3])
def test_probabilities_equal_enumeration(name: str, utility: list[float]) -> None:
    found = MODELS[name](*one(utility, 0.4))
    expected = torch.tensor([enumerated(name, utility, 0.4)], dtype=torch.float64)
    assert_close(found, expected)
    assert float(found.sum()) <= 1 and not bool(found[torch.tensor([utility]) == EMPTY].any())


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_independent_and_large_utilities_are_finite(name: str) -> None:
    utility = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)) * 200
    utility[2, 1] = EMPTY
    none = torch.linspace(-300, 300, 7)
    together = MODELS[name](utility, none)
    assert bool(together.isfinite().all()) and bool((together.sum(-1) <= 1 + 1e-5).all())
    alone = torch.cat([MODELS[name](utility[n : n + 1], none[n : n + 1]) for n in range(7)])
    assert_close(alone, together)


@pytest.mark.parametrize("name", MODELS)
def test_frequencies_of_a_million_draws(name: str) -> None:
    """Each frequency lies within five standard deviations of its probability."""
    count = 1_000_000
    probability = MODELS[name](*one([0.5, EMPTY, 1.0, -0.5], 0.7))
    places = draw(probability.expand(count, -1), torch.Generator().manual_seed(3))
    found = torch.bincount(places + 1, minlength=5) / count
    expected = torch.cat([1 - probability.sum(1), probability[0]])
    deviation = (expected * (1 - expected) / count).sqrt()
    assert bool(((found - expected).abs() <= 5 * deviation).all()) and found[2] == 0


def test_position_based_equals_a_user_who_reads_from_the_top() -> None:
    """A million users, each with an own depth and Gumbel noise on each option (McFadden 1974)."""
    count, eta = 1_000_000, 0.7
    rng = torch.Generator().manual_seed(5)
    utility, none = one([0.2, 1.0, -0.4, 0.8], 0.5)
    depth = torch.rand(count, 1, generator=rng).pow(-1 / eta).floor()  # P(depth >= k) = k^-eta
    options = torch.cat([utility, none.unsqueeze(1)], 1).expand(count, -1)
    noise = -(-torch.rand(count, 5, generator=rng).log()).log()
    seen = torch.cat([torch.arange(1, 5) <= depth, torch.ones(count, 1, dtype=torch.bool)], 1)
    picked = (options + noise).masked_fill(~seen, EMPTY).argmax(1)
    found = torch.bincount(picked, minlength=5)[:4] / count
    assert_close(found.double(), position_based(utility, none, eta)[0], atol=2.5e-3, rtol=0)


def test_draw_inverts_the_cumulative_distribution() -> None:
    probability = torch.tensor([[0.0, 0.25, 0.5]])
    uniform = torch.tensor([0.0, 0.24, 0.25, 0.74, 0.75, 0.99])
    assert draw_at(probability.expand(6, -1), uniform).tolist() == [1, 1, 2, 2, -1, -1]
    same = [draw(probability.expand(50, -1), torch.Generator().manual_seed(1)).tolist() for _ in range(2)]
    assert same[0] == same[1]
