"""The row `searched-stock`: a linear score with a stock that has a cap, and a hinge of user and item."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.searched_stock import Stocked, StockForm, stock
from recsys_rl.evaluation.rivals.forms import Factors, Form, Searched
from recsys_rl.types import Interface, Obs
from tests.tiny_world import tiny_catalogue

INTERFACE = Interface((("profile", 2),), (3,), history_length=4, session_length=4)
Z = math.sqrt(1.5)  # popularity minus quality of the three items is 2 Z, 0, -2 Z


def test_stock_of_three_items_by_hand() -> None:
    """Keep .5, gain 1, level 0: .4; .2 + .6 = .8; .4 + .9 = 1.3, so 1. Of a row with padding, .5 alone."""
    obs = Obs(
        torch.zeros(2, 1),
        history=torch.tensor([[3, 4, 5], [-1, -1, 6]]),
        signals=torch.tensor([[[0.4], [0.6], [0.9]], [[0.0], [0.0], [0.5]]]),
    )
    one = torch.ones(2)
    assert stock(obs, 0 * one, one, 0 * one).tolist() == pytest.approx([1.0, 0.5])
    less = stock(obs, 0 * one, one, one).tolist()  # -.6; -.3 - .4 = -.7; -.35 - .1 = -.45
    assert less == pytest.approx([-0.45, -0.5])


def stocked(**given: float) -> Stocked:
    """With these numbers, and 0 for all others."""
    form, catalogue = StockForm(), tiny_catalogue()
    numbers = torch.tensor([given.get(name, 0.0) for name in form.names])
    return Stocked(catalogue, INTERFACE, form, numbers, Factors.of(catalogue, catalogue.embedding))


def observed(signal: float) -> Obs:
    """Users with the axes as profiles, who saw no item and an item 1 with this signal."""
    history = torch.tensor([[-1, -1, -1, -1], [-1, -1, -1, 1]]).repeat_interleave(2, 0)
    signals = torch.zeros(4, 4, 1)
    signals[2:, 3] = signal
    return Obs(torch.eye(2).repeat(2, 1), history, signals)


def test_price_of_the_stock_turns_the_order_of_the_items() -> None:
    """Affinities are at most 1 apart: with m = 1 the price of 1 (2 Z = 2.4) shows item 0, with -1 item 2."""
    first = Searched(tiny_catalogue(), INTERFACE, Form(), torch.zeros(7), stocked().factors)
    for price in (1.0, -1.0):
        shown = stocked(gain=2.0, price=price).act(observed(0.9)).items[:, 0]
        assert shown[:2].tolist() == first.act(observed(0.9)).items[:2, 0].tolist()  # nothing in the stock
        assert shown[2:].tolist() == [0 if price > 0 else 2] * 2


def test_hinge_depends_on_user_and_item() -> None:
    """The terms by hand: max(0, at + x_i - slope u . e_i), x = 2 Z, 0, -2 Z."""
    agent, obs = stocked(at=0.5, slope=1.0, weight=3.0), observed(0.0)
    agent.act(obs)
    terms = agent.terms.scores(obs.context, obs.context[:, :0])
    affinity = obs.context @ tiny_catalogue().embedding.T  # (4, 3)
    by_hand = 3 * (0.5 + torch.tensor([2 * Z, 0.0, -2 * Z]) - affinity).clamp_min(0)
    assert torch.allclose(terms, by_hand)
    some = torch.tensor([[2, 0]] * 4)
    assert torch.allclose(agent.terms.scores(obs.context, obs.context[:, :0], some), by_hand.gather(1, some))
