"""The row ``expected``: the allowed items of which a network expects the highest rewards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from recsys_rl.evaluation.rivals.best_slate import BestSlate
from recsys_rl.evaluation.rivals.expected import ByExpectedReward
from recsys_rl.types import Obs

REWARDS = torch.tensor([[1.0, 5.0, 3.0, 4.0, 2.0], [9.0, 0.0, 8.0, 1.0, 7.0]])


class Agent:
    """It expects REWARDS, and its first stage proposes the ``candidates``."""

    def __init__(self, candidates: Tensor | None = None) -> None:
        self.candidates = candidates

    def propose(self, obs: Obs, greedy: bool) -> Obs:
        assert greedy
        return obs if self.candidates is None else obs.among(self.candidates)

    def expected_rewards(self, obs: Obs) -> Tensor:
        candidates = obs.candidates
        return REWARDS.clone() if candidates is None else REWARDS.gather(1, candidates.clamp_min(0))


def shown(agent: Any, slate: BestSlate, **fields: Any) -> list[list[int]]:
    items: list[list[int]] = (
        ByExpectedReward(agent, slate).act(Obs(torch.zeros(2, 1), **fields)).items.tolist()
    )
    return items


def test_the_items_of_the_highest_expected_rewards_are_shown() -> None:
    two = BestSlate(2)
    assert shown(Agent(), two) == [[1, 3], [0, 2]]
    assert shown(Agent(), two, exclude=torch.tensor([[1], [-1]])) == [[3, 2], [0, 2]]
    mask = torch.tensor([[True, False, True, False, True], [False, True, False, False, False]])
    assert shown(Agent(), two, mask=mask) == [[2, 4], [1, -1]]


def test_with_a_first_stage_they_are_among_its_candidates() -> None:
    candidates = torch.tensor([[4, 0, -1], [3, 2, 1]])
    assert shown(Agent(candidates), BestSlate(2)) == [[4, 0], [2, 3]]


@pytest.mark.parametrize(
    ("patterns", "expected"), [(((0, 1),), [[1, 3], [0, 4]]), (((1, 0),), [[3, 1], [4, 0]])]
)
def test_where_places_have_kinds_each_takes_the_best_of_its_kind(
    patterns: tuple[tuple[int, ...], ...], expected: list[list[int]]
) -> None:
    kinds = torch.tensor([0, 0, 0, 1, 1])
    assert shown(Agent(), BestSlate(2, patterns, kinds)) == expected
