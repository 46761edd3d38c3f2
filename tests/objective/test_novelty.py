"""The bonus for items that were seldom shown, by hand, in cells, and across a resumption."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from recsys_rl.objective import novelty
from recsys_rl.objective.novelty import Novelty, cells
from recsys_rl.types import Obs, Rollout
from tests.tiny_world import tiny_catalogue


def rollout(items: list[list[list[int]]]) -> Rollout:
    """Each step earns 1."""
    shown = torch.tensor(items)  # (T, N, K)
    one = torch.ones(shown.shape[:2])
    return Rollout(Obs(one), shown, one, one, one, one, one.unsqueeze(-1), one < 0, one < 0)


def bonus(beta: float = 0.6, num_updates: int = 4) -> Novelty:
    return Novelty(beta, tiny_catalogue(), num_updates, torch.Generator().manual_seed(0))


def test_bonus_by_hand() -> None:
    """Item 0 is shown twice and item 1 once in the first rollout; a quarter of the run is then over."""
    objective = bonus()
    first, numbers = objective.apply(rollout([[[0], [0]], [[1], [-1]]]))
    torch.testing.assert_close(first.rewards, torch.tensor([[1.6, 1.6], [1.6, 1.0]]))
    assert numbers["novelty_mean"] == pytest.approx(0.45)
    assert objective.counts.tolist() == [2, 1, 0]
    second, _ = objective.apply(rollout([[[0], [1], [2]]]))
    left = 0.6 * 3 / 4
    expected = [1 + left / math.sqrt(3), 1 + left / math.sqrt(2), 1 + left]
    torch.testing.assert_close(second.rewards, torch.tensor([expected]))
    assert objective.counts.tolist() == [3, 2, 1]


def test_bonus_of_a_slate_is_the_mean_over_its_shown_places() -> None:
    objective = bonus(beta=1.0, num_updates=1000)
    objective.apply(rollout([[[0, 1]], [[0, -1]], [[0, -1]]]))
    found, _ = objective.apply(rollout([[[0, 2]], [[0, -1]]]))
    left = 0.999
    expected = [[1 + left * (1 / 2 + 1) / 2], [1 + left / 2]]
    torch.testing.assert_close(found.rewards, torch.tensor(expected))


def test_bonus_falls_to_zero_over_the_run() -> None:
    objective = bonus(num_updates=2)
    found = [objective.apply(rollout([[[item]]]))[0].rewards.item() for item in (0, 1)]
    assert found == pytest.approx([1.6, 1.3])
    assert objective.apply(rollout([[[2]]]))[0].rewards.item() == 1.0  # after the last update


def test_state_goes_on_bit_for_bit() -> None:
    whole, pieces = bonus(), bonus()
    for _ in range(3):
        again = bonus()
        again.load_state_dict(pieces.state_dict())
        pieces = again
        one, two = (objective.apply(rollout([[[0], [2]]]))[0].rewards for objective in (whole, pieces))
        assert torch.equal(one, two)
    with pytest.raises(ValueError, match="other items"):
        bonus().load_state_dict({**whole.state_dict(), "novelty_counts": torch.zeros(2)})
    with pytest.raises(ValueError, match="another run"):
        bonus(num_updates=2).load_state_dict(whole.state_dict())


def test_many_items_are_counted_in_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items with the same embedding share a cell; a block at a time gives the same cells as all at once."""
    around = torch.Generator().manual_seed(1)
    table = torch.randn(50, 8, generator=around).repeat(2, 1)

    def found() -> Tensor:
        return cells(table, torch.Generator().manual_seed(0))

    whole = found()
    assert torch.equal(whole[:50], whole[50:]) and len(whole.unique()) > 40
    assert int(whole.min()) >= 0 and int(whole.max()) < 2**novelty.BITS
    monkeypatch.setattr(novelty, "MOST_ITEMS", 7)
    assert torch.equal(found(), whole)
    column = torch.zeros(100)
    items = replace(
        tiny_catalogue(), embedding=table, available=column == 0, item_ids=torch.arange(100), titles=()
    )
    objective = Novelty(1.0, items, 10, torch.Generator().manual_seed(0))
    assert objective.counts.shape == (2**novelty.BITS,)
    objective.apply(rollout([[[3]]]))
    rewards = objective.apply(rollout([[[53], [4]]]))[0].rewards
    torch.testing.assert_close(rewards, torch.tensor([[1 + 0.9 / math.sqrt(2), 1.9]]))


def test_processes_count_the_mean_of_their_items() -> None:
    """Here another process has shown item 2 three times."""
    other = torch.tensor([0.0, 0.0, 3.0], dtype=torch.float64)

    def average(counts: Tensor) -> None:
        counts.add_(other).div_(2)

    objective = Novelty(0.5, tiny_catalogue(), 4, torch.Generator(), average)
    objective.apply(rollout([[[0]]]))
    assert objective.counts.tolist() == [0.5, 0.0, 1.5]
