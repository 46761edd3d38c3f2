"""The best single item of a log: by hand, and among what may be shown."""

from __future__ import annotations

import math

import pytest
import torch

from recsys_rl.logs.judges.best_item import BestItems, item_scores
from recsys_rl.types import Obs


def test_scores_by_hand_in_one_part_or_two() -> None:
    items, weights = torch.tensor([[0], [0], [1], [1]]), torch.tensor([1.0, 3.0, 2.0, 2.0])
    rewards = torch.tensor([1.0, 0.0, 1.0, 1.0])
    scores = item_scores([(items, weights, rewards)], 3)
    # The mean of all is 5 / 8 and their variance 5/8 3/8; item 0 is worth 16 / 10 rows, item 1 two.
    deviation = math.sqrt(5 / 8 * 3 / 8)
    expected = [1 / 4 - 1.96 * deviation * math.sqrt(10 / 16), 1 - 1.96 * deviation / math.sqrt(2)]
    assert scores[:2].tolist() == pytest.approx(expected) and float(scores[2]) == -math.inf
    parts = [(items[:1], weights[:1], rewards[:1]), (items[1:], weights[1:], rewards[1:])]
    assert torch.allclose(item_scores(parts, 3)[:2], scores[:2])


def test_one_lucky_row_makes_no_best_item() -> None:
    items = torch.tensor([[0]] * 100 + [[1]])
    rewards = torch.tensor([1.0, 0.0] * 50 + [1.0])
    assert int(item_scores([(items, torch.ones(101), rewards)], 2).argmax()) == 0


def test_the_best_items_that_may_be_shown() -> None:
    policy = BestItems(torch.tensor([0.1, 0.4, 0.3, -torch.inf]), slate_size=2)
    assert policy.rows.tolist() == [1, 2]
    context = torch.zeros(2, 1)
    assert policy.act(Obs(context)).items.tolist() == [[1, 2], [1, 2]]
    assert policy.act(Obs(context, exclude=torch.tensor([[1], [-1]]))).items.tolist() == [[2, 0], [1, 2]]
    candidates = torch.tensor([[0, 2, -1], [2, 1, 0]])
    assert policy.act(Obs(context, candidates=candidates)).items.tolist() == [[2, 0], [1, 2]]
    single = BestItems(torch.tensor([0.1, 0.4]))
    assert single.act(Obs(context, exclude=torch.tensor([[0, 1], [1, -1]]))).items.tolist() == [[-1], [0]]
