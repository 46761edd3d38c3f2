"""Methods of the shared data types."""

from __future__ import annotations

from dataclasses import replace

import torch

from recsys_rl.types import Obs, tensors_of, tree_map
from tests.tiny_world import tiny_catalogue


def test_allowed_combines_mask_and_exclusion() -> None:
    context = torch.zeros(2, 1)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    exclude = torch.tensor([[-1, 0], [-1, -1]])
    assert Obs(context).allowed(3).tolist() == [[True] * 3] * 2
    assert Obs(context, mask=mask).allowed(3).tolist() == mask.tolist()
    assert Obs(context, exclude=exclude).allowed(3).tolist() == [[False, True, True], [True, True, True]]
    both = Obs(context, exclude=exclude, mask=mask).allowed(3)
    assert both.tolist() == [[False, True, False], [True, True, True]]


def test_tensor_in_two_fields_is_mapped_once() -> None:
    shown = torch.arange(6).view(3, 2)
    obs = Obs(torch.zeros(3, 1), history=shown, exclude=shown)
    for part in (obs.map(torch.clone), obs.rows(torch.tensor([2, 0])), *obs.split(2)):
        assert part.exclude is part.history is not shown
    assert obs.rows(torch.tensor([2, 0])).history.tolist() == [[4, 5], [0, 1]]  # type: ignore[union-attr]


def test_named_attributes_are_tensors_of_the_catalogue() -> None:
    catalogue = replace(tiny_catalogue(), attributes={"creator": torch.tensor([3, 4, 4])})
    assert tensors_of(catalogue)["attributes.creator"].tolist() == [3, 4, 4]
    assert "titles" not in tensors_of(catalogue) and "embedding" in tensors_of(catalogue)
    moved = tree_map(lambda x: x + 1, catalogue)
    assert moved.attributes["creator"].tolist() == [4, 5, 5]


def test_within_keeps_the_candidates_that_exclude_and_mask_allow() -> None:
    obs = Obs(
        torch.zeros(2, 3),
        exclude=torch.tensor([[4, -1], [0, 2]]),
        mask=torch.tensor([[True, True, False, True, True], [True] * 5]),
    )
    kept = obs.within(torch.tensor([[0, 2, 4], [3, 2, -1]]))
    assert kept.candidates is not None
    assert kept.candidates.tolist() == [[0, -1, -1], [3, -1, -1]]
    free = Obs(torch.zeros(1, 3)).within(torch.tensor([[1, 0]]))
    assert free.candidates is not None and free.candidates.tolist() == [[1, 0]]
