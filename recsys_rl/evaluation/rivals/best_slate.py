"""The slate that a ranking shows: its K best items, or the best of each kind where places have kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.functional.top_k import blocked_top_k, highest
from recsys_rl.protocols import PatternedUsers, UserModel
from recsys_rl.types import Catalogue, Interface


@dataclass(frozen=True)
class BestSlate:
    """The slate of K different items with the highest scores.

    With ``patterns`` of kinds, each place takes the best item of its kind, and the pattern with the highest
    sum of scores is shown.
    """

    size: int = 1  # K
    patterns: tuple[tuple[int, ...], ...] = ()  # of K different kinds each; (): any kind at any place
    kinds: Tensor | None = None  # (I,) int64, with patterns

    @classmethod
    def of(cls, interface: Interface, catalogue: Catalogue) -> BestSlate:
        """The slates of this interface."""
        kinds = catalogue.attributes["kind"] if interface.patterns else None
        return cls(interface.slate_size, interface.patterns, kinds)

    @classmethod
    def of_users(cls, user_model: UserModel, catalogue: Catalogue) -> BestSlate:
        """The slates of these users."""
        if not isinstance(user_model, PatternedUsers):
            return cls(user_model.slate_size)
        return cls(user_model.slate_size, user_model.patterns, catalogue.attributes["kind"])

    def best(self, scores: Tensor) -> Tensor:
        """The slates (N, K) int64 of ``scores`` (N, I), in which -inf forbids an item.

        -1: at a place without an allowed item; with patterns, at all places if none can be filled.
        """
        if self.kinds is None:
            items = highest(scores, min(self.size, scores.shape[1]))  # (N, <= K)
            items = items.masked_fill(scores.gather(1, items) == -torch.inf, -1)
            return torch.nn.functional.pad(items, (0, self.size - items.shape[1]), value=-1)
        values, best = dict[int, Tensor](), dict[int, Tensor]()  # scores and items of each kind, (N,) each
        for kind in {kind for pattern in self.patterns for kind in pattern}:
            values[kind], best[kind] = scores.masked_fill(self.kinds != kind, -torch.inf).max(1)
        slates, sums = (
            torch.stack([torch.stack([of[kind] for kind in pattern], 1) for pattern in self.patterns], 1)
            for of in (best, values)
        )  # (N, G, K) each
        highest_sum, pattern = sums.sum(2).max(1)  # (N,) each
        chosen = slates[torch.arange(len(slates), device=slates.device), pattern]
        return chosen.masked_fill((highest_sum == -torch.inf).unsqueeze(1), -1)

    def best_of_blocks(self, score: Callable[[slice], Tensor], num_rows: int, num_items: int) -> Tensor:
        """``best`` of scores in blocks, as ``top_k.blocked_top_k`` takes them; one block with patterns."""
        if self.kinds is None:
            return blocked_top_k(score, num_rows, num_items, self.size)[1]
        return self.best(score(slice(0, num_items)))


SINGLE = BestSlate()
"""One item at a time."""
