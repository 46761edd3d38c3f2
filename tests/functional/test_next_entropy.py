"""The entropy of what a log shows next, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from recsys_rl.functional.next_entropy import keys_of, look_up, next_entropies


def test_single_items_by_hand() -> None:
    """After 0: 1, 1, 2, 3 (entropy 1.5 bits of log 4 = 2 bits); after 1: 2 alone; after 2 and 3: nothing."""
    sessions = torch.tensor([[0, 1, 2], [0, 1, -1], [0, 2, -1], [0, 3, -1]]).unsqueeze(2)
    keys, entropies = next_entropies(sessions, 4, 1)
    assert keys.tolist() == [0, 1]
    assert entropies.tolist() == pytest.approx([1.5 / 2, 0.0])
    assert look_up(keys, entropies, torch.tensor([[0, 1], [2, 3]])).tolist() == [[0.75, 0.0], [0.0, 0.0]]


def test_pairs_are_sets() -> None:
    """After {0, 1}, in either order, come 2 and 3 once each: log 2 / log 4; after {1, 2} comes 3."""
    sessions = torch.tensor([[0, 1, 2, 3], [1, 0, 3, -1]]).unsqueeze(2)
    keys, entropies = next_entropies(sessions, 4, 2)
    assert keys.tolist() == [0 * 4 + 1, 1 * 4 + 2]
    assert entropies.tolist() == pytest.approx([0.5, 0.0])
    wanted = keys_of(torch.tensor([[1, 0], [2, 1], [3, 2], [-1, 0]]), 4)
    assert wanted.tolist() == [1, 6, 11, -1]
    assert look_up(keys, entropies, wanted).tolist() == [0.5, 0.0, 0.0, 0.0]


def test_slates_pair_each_place_with_each_next_place() -> None:
    """Slate {0, 1}, then {2, 3}: each of 0 and 1 is followed by 2 and 3 once, an empty place by nothing."""
    sessions = torch.tensor([[[0, 1], [2, 3]], [[0, -1], [2, -1]]])
    keys, entropies = next_entropies(sessions, 4, 1)
    assert keys.tolist() == [0, 1]
    third = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)) / math.log(4)  # after 0: 2, 3, 2
    assert entropies.tolist() == pytest.approx([third, 0.5])


def test_a_uniform_log_has_entropy_one_and_a_short_one_none() -> None:
    sessions = torch.cartesian_prod(torch.arange(5), torch.arange(5)).unsqueeze(2)
    keys, entropies = next_entropies(sessions, 5, 1)
    assert keys.tolist() == [0, 1, 2, 3, 4] and entropies.tolist() == pytest.approx([1.0] * 5)
    keys, entropies = next_entropies(sessions, 5, 2)  # no session has a third item
    assert len(keys) == len(entropies) == 0
    assert look_up(keys, entropies, torch.tensor([3])).tolist() == [0.0]
