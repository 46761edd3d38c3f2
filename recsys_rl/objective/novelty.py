"""A bonus for items that were seldom shown in training (count-based exploration).

With n_i times that item i was shown in earlier rollouts, and u of U updates done, showing it adds to the
reward::

    beta (1 - u / U) / sqrt(n_i + 1)

(Bellemare et al. 2016, arXiv:1606.01868, with n + 1 for 0.01 + n). Of a slate it is the mean over the shown
places. The bonus falls to zero over the run, so the last policy learns from the reward alone.

A catalogue of more than MOST_ITEMS items is cut into 2^BITS cells, and n_i counts the items of the cell: bit
b is the side of a random plane through the mean embedding on which the item lies (SimHash, as in Tang et al.
2017, arXiv:1611.04717). Items with similar embeddings mostly share a cell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from recsys_rl.types import Catalogue, Rollout

MOST_ITEMS = 100_000
BITS = 12


class Novelty:
    """The bonus, and the counts of shown items."""

    def __init__(
        self,
        beta: float,
        catalogue: Catalogue,
        num_updates: int,
        generator: torch.Generator,
        average: Callable[[Tensor], None] | None = None,
    ) -> None:
        """
        Args:
            beta: bonus of an item that was never shown, at the start of the run, in units of the reward.
            num_updates: U, of the whole run.
            generator: draws the planes, on the CPU.
            average: replaces a tensor by its mean over all processes; counts are then such means.
        """
        self.beta, self.num_updates, self.average = beta, num_updates, average
        many = catalogue.num_items > MOST_ITEMS
        self.cells = cells(catalogue.embedding, generator) if many else None  # (I,)
        size = 2**BITS if many else catalogue.num_items
        self.counts = torch.zeros(size, dtype=torch.float64, device=catalogue.available.device)
        self.updates = 0

    def apply(self, rollout: Rollout) -> tuple[Rollout, dict[str, float]]:
        """Add the bonus of the earlier rollouts' counts, and count the items of this one."""
        shown = rollout.items >= 0  # (T, N, K)
        places = rollout.items.clamp_min(0)
        if self.cells is not None:
            places = self.cells[places]
        weight = self.beta * (1 - self.updates / self.num_updates)
        bonus = weight / (self.counts[places] + 1).sqrt()
        bonus = (bonus * shown).sum(-1) / shown.sum(-1).clamp_min(1)  # (T, N)
        new = torch.zeros_like(self.counts).index_add_(0, places.flatten(), shown.flatten().double())
        if self.average is not None:
            self.average(new)
        self.counts = self.counts + new
        self.updates += 1
        rewards = rollout.rewards + bonus.to(rollout.rewards.dtype)
        return dataclasses.replace(rollout, rewards=rewards), {"novelty_mean": bonus.mean().item()}

    def verdict(self) -> str:
        return ""

    def state_dict(self) -> dict[str, Tensor]:
        """The counts, (I,) or (2^BITS,) float64, and the number of updates, ()."""
        return {"novelty_counts": self.counts.cpu(), "novelty_updates": torch.tensor(self.updates)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of ``state_dict``. Raises KeyError or ValueError for counts of another catalogue."""
        counts, updates = state["novelty_counts"], int(state["novelty_updates"])
        if counts.shape != self.counts.shape or not bool((counts.isfinite() & (counts >= 0)).all()):
            raise ValueError("counts of other items")
        if not 0 <= updates <= self.num_updates:
            raise ValueError("counts of another run")
        self.counts, self.updates = counts.to(self.counts.device), updates


def cells(embedding: Tensor, generator: torch.Generator) -> Tensor:
    """(I,) int64, 0 .. 2^BITS - 1: the cell of each row of the embedding (I, D)."""
    planes = torch.randn(embedding.shape[1], BITS, generator=generator).to(embedding)
    middle = embedding.mean(0)
    powers = 2 ** torch.arange(BITS, device=embedding.device)
    # In blocks: the embedding may be a mapped file larger than memory.
    numbers = [(((block - middle) @ planes > 0) * powers).sum(1) for block in embedding.split(MOST_ITEMS)]
    return torch.cat(numbers)
