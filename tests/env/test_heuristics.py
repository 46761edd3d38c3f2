"""The heuristics of a platform's trade, and their rows in the table."""

from __future__ import annotations

from dataclasses import replace

import torch

from recsys_rl.env.heuristics import FreshCreators, UpNext
from recsys_rl.evaluation.table import best_of, yardsticks
from recsys_rl.types import Interface, Obs
from tests.tiny_world import tiny_catalogue

CATALOGUE = replace(tiny_catalogue(), attributes={"creator": torch.tensor([0, 1, 1])})
EAST, NORTH = [1.0, 0.0], [0.0, 1.0]


def shown(policy: UpNext | FreshCreators, obs: Obs) -> list[list[int]]:
    found: list[list[int]] = policy.act(obs).items.tolist()
    return found


def test_up_next_by_hand() -> None:
    """Items are east, north and (0.6, 0.8). At home by profile, else by the video that plays."""
    known = Interface((("profile", 2), ("clock", 1), ("current_item", 2)), (3,), slate_size=2)
    context = torch.tensor([[*EAST, 9.0, 0.0, 0.0], [*EAST, 9.0, *NORTH]])
    assert shown(UpNext(CATALOGUE, known, 0.0), Obs(context)) == [[0, 2], [1, 2]]
    mask = torch.tensor([[True, True, True], [True, False, True]])
    assert shown(UpNext(CATALOGUE, known, 0.0), Obs(context, mask=mask)) == [[0, 2], [2, 0]]
    # Products with (0.25, 0.75): 0.25, 0.75, 0.75; with (0.75, 0.25): 0.75, 0.25, 0.65.
    assert shown(UpNext(CATALOGUE, known, 0.75), Obs(context))[1] == [0, 2]


def test_fresh_creators_by_hand() -> None:
    """Products with the profile (0.6, 0.8): 0.6, 0.8, 1. North and the third have one creator."""
    known = Interface((("profile", 2),), (3,), history_length=2)
    context = torch.tensor([[0.6, 0.8]]).expand(4, -1)
    history = torch.tensor([[-1, -1], [-1, 2], [1, 0], [0, 2]])
    assert shown(FreshCreators(CATALOGUE, known, 0.0, 1), Obs(context, history=history)) == [
        [2],
        [0],
        [2],
        [0],
    ]
    # Both creators are among the last two of the third and fourth user: any allowed item.
    assert shown(FreshCreators(CATALOGUE, known, 0.0, 2), Obs(context, history=history)) == [
        [2],
        [0],
        [2],
        [2],
    ]
    # z of the log popularity is sqrt(3/2) (1, 0, -1): 0.6 + 1.22, 0.8, 1 - 1.22.
    assert shown(FreshCreators(CATALOGUE, known, 1.0, 1), Obs(context[:1], history=history[:1])) == [[0]]


def test_heuristics_count_for_the_yardstick() -> None:
    means = {"mf": 2.0, "trade-up-next": 3.0, "ppo": 4.0}
    assert best_of(yardsticks(means), means) == "trade-up-next"
