"""The belief about a learner, against enumeration of all states."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.env.belief import Belief

CHAIN = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])  # 0 before 1, both before 2
Event = tuple[int, float, float, float, float]  # skill, right, P(right | known), P(right | not), rate
EVENTS: list[Event] = [
    (0, 1, 0.9, 0.2, 0.1),
    (1, 0, 0.8, 0.3, 0.1),
    (2, 0, 0.5, 0.5, 0.3),  # a lesson
    (1, 0, 0.5, 0.5, 0.3),
    (2, 1, 0.7, 0.2, 0.1),
    (0, 0, 0.9, 0.2, 0.0),
    (2, 1, 0.6, 0.25, 0.1),
]


def enumerated(events: list[Event], prior: float) -> list[float]:
    """P(known) of three skills, over all 8 states, written out."""
    states = list(itertools.product((0, 1), repeat=3))
    p = {k: prior ** sum(k) * (1 - prior) ** (3 - sum(k)) for k in states}
    for skill, right, known, unknown, rate in events:
        for k in states:
            chance = known if k[skill] else unknown
            p[k] *= chance if right else 1 - chance
        total = sum(p.values())
        p = {k: value / total for k, value in p.items()}
        for k in states:
            if not k[skill]:
                share = [1.0, float(k[0]), (k[0] + k[1]) / 2][skill]
                taught = tuple(1 if s == skill else bit for s, bit in enumerate(k))
                moved = p[k] * rate * share
                p[k] -= moved
                p[taught] += moved
    return [sum(value for k, value in p.items() if k[s]) for s in range(3)]


def followed(belief: Belief, events: list[Event], prior: float) -> Tensor:
    """(S,): P(known)."""
    state = belief.begin(prior, 1)
    for skill, *numbers in events:
        state = belief.after(state, torch.tensor([skill]), *(torch.tensor([float(x)]) for x in numbers))
    return belief.known(state)[0]


@pytest.mark.parametrize("number", range(1, len(EVENTS) + 1))
def test_exact_belief_is_that_of_enumeration(number: int) -> None:
    found = followed(Belief(CHAIN, exact=True), EVENTS[:number], 0.2)
    assert_close(found, torch.tensor(enumerated(EVENTS[:number], 0.2)), atol=1e-6, rtol=0)


def test_product_of_marginals_is_exact_without_prerequisites() -> None:
    none = torch.zeros(3, 3)
    exact, product = (followed(Belief(none, exact), EVENTS, 0.2) for exact in (True, False))
    assert_close(exact, product, atol=1e-6, rtol=0)


def test_product_of_marginals_by_hand() -> None:
    belief = Belief(CHAIN, exact=False)
    state = belief.begin(0.2, 1)
    right, skill = torch.tensor([1.0]), torch.tensor([0])
    state = belief.after(state, skill, right, torch.tensor([0.9]), torch.tensor([0.2]), torch.tensor([0.1]))
    p = 0.18 / (0.18 + 0.16)
    p = p + (1 - p) * 0.1
    assert_close(state, torch.tensor([[p, 0.2, 0.2]]))
    half = torch.tensor([0.5])
    state = belief.after(state, torch.tensor([2]), right, half, half, torch.tensor([0.3]))
    assert_close(state, torch.tensor([[p, 0.2, 0.2 + 0.8 * 0.3 * (p + 0.2) / 2]]))
    assert_close(belief.ready(state), torch.tensor([[1.0, p, (p + 0.2) / 2]]))


def test_product_of_marginals_is_near_the_exact_belief() -> None:
    exact, product = (followed(Belief(CHAIN, exact), EVENTS, 0.2) for exact in (True, False))
    assert 1e-4 < (exact - product).abs().max() < 0.15


def test_answer_between_right_and_wrong_weighs_both() -> None:
    for exact in (True, False):
        belief = Belief(CHAIN, exact)
        states = [
            belief.after(
                belief.begin(0.2, 1), torch.tensor([1]), *(torch.tensor([float(x)]) for x in numbers)
            )
            for numbers in ((1.0, 0.9, 0.2, 0.1), (0.0, 0.9, 0.2, 0.1), (0.25, 0.9, 0.2, 0.1))
        ]
        assert_close(belief.known(states[2]), belief.known(0.25 * states[0] + 0.75 * states[1]))
