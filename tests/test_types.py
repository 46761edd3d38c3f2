"""The few things that the nouns can do."""

from __future__ import annotations

import torch

from recsys_rl.types import Obs


def test_allowed_puts_mask_and_exclusion_together() -> None:
    context = torch.zeros(2, 1)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    exclude = torch.tensor([[-1, 0], [-1, -1]])
    assert Obs(context).allowed(3).tolist() == [[True] * 3] * 2
    assert Obs(context, mask=mask).allowed(3).tolist() == mask.tolist()
    assert Obs(context, exclude=exclude).allowed(3).tolist() == [[False, True, True], [True, True, True]]
    both = Obs(context, exclude=exclude, mask=mask).allowed(3)
    assert both.tolist() == [[False, True, False], [True, True, True]]
