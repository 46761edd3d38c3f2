"""Slates of rankings: the K best, and the best of each kind."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys_rl.evaluation.rivals.best_slate import BestSlate

INF = torch.inf
KINDS = torch.tensor([0, 0, 1, 1, 2])
BY_KINDS = BestSlate(2, ((1, 2), (0, 2), (0, 1)), KINDS)


def test_by_hand() -> None:
    scores = torch.tensor(
        [
            [0.5, 0.9, 0.8, 0.1, 0.0],  # both of kinds 0 and 1: 1.7
            [0.5, 0.9, -0.8, -0.4, 0.0],  # no item of kind 1 is above the one of kind 2
            [-INF, -INF, 0.3, 0.7, 0.1],
            [0.9, 0.8, -INF, -INF, -INF],  # no pattern can be filled
        ]
    )
    assert BY_KINDS.best(scores).tolist() == [[1, 2], [1, 4], [3, 4], [-1, -1]]
    assert BestSlate(2).best(scores).tolist() == [[1, 2], [1, 0], [3, 2], [0, 1]]
    assert BestSlate(3).best(scores[2:, :2]).tolist() == [[-1, -1, -1], [0, 1, -1]]
    assert BY_KINDS.best_of_blocks(lambda block: scores[:, block], 4, 5).tolist() == [
        *BY_KINDS.best(scores).tolist()
    ]


@given(st.lists(st.sampled_from([-INF, -1.0, 0.0, 0.5, 2.0]), min_size=5, max_size=5))
def test_no_slate_has_a_higher_sum(values: list[float]) -> None:
    sums = [
        values[i] + values[j]
        for i, j in itertools.product(range(5), repeat=2)
        if (int(KINDS[i]), int(KINDS[j])) in BY_KINDS.patterns
    ]
    slate = BY_KINDS.best(torch.tensor([values])).squeeze(0).tolist()
    if max(sums) == -INF:
        assert slate == [-1, -1]
    else:
        assert (int(KINDS[slate[0]]), int(KINDS[slate[1]])) in BY_KINDS.patterns
        assert values[slate[0]] + values[slate[1]] == max(sums)
