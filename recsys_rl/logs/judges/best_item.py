"""The best single item of a log: what a team would show everybody, if it may learn from the log alone."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from recsys_rl.functional.top_k import highest
from recsys_rl.logs.describe.learnable import lower_ends
from recsys_rl.types import Action, Obs


class BestItems:
    """Shows everybody the K items with the highest scores among those that may be shown."""

    def __init__(self, scores: Tensor, slate_size: int = 1) -> None:
        """``scores`` (I,)."""
        self.scores, self.slate_size = scores, slate_size

    @property
    def rows(self) -> Tensor:
        """(K,) int64: the items with the highest scores, best first, if all may be shown."""
        return highest(self.scores.unsqueeze(0), min(self.slate_size, len(self.scores)))[0]

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        allowed = obs.showable(len(self.scores))  # (N, I)
        scores = self.scores.expand(obs.num_rows, -1).masked_fill(~allowed, -torch.inf)
        items = highest(scores, min(self.slate_size, len(self.scores)))
        items = items.masked_fill(scores.gather(1, items) == -torch.inf, -1)
        return Action.certain(torch.nn.functional.pad(items, (0, self.slate_size - items.shape[1]), value=-1))


def item_scores(parts: Iterable[tuple[Tensor, Tensor, Tensor]], num_items: int) -> Tensor:
    """(I,) float32: ``lower_ends`` of the items.

    Args:
        parts: of the log: items (E, K), -1 padding, the weight (E,) and the reward (E,) of each decision.
        num_items: I.
    """
    of_items = torch.zeros(3, num_items, dtype=torch.float64)  # sums of w, w r, w^2
    of_all = torch.zeros(3, dtype=torch.float64)  # sums of w, w r, w r^2
    for items, weights, rewards in parts:
        w, r = weights.double(), rewards.double()
        of_all += torch.stack([w, w * r, w * r**2]).sum(1)
        for column in items.unbind(1):
            shown = column >= 0
            of_items.index_add_(1, column[shown], torch.stack([w, w * r, w**2])[:, shown])
    return lower_ends(of_items, of_all).float()
