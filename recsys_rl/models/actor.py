"""Heads: from features to one logit per item."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys_rl.models.encoders import linear
from recsys_rl.types import Catalogue


def item_features(catalogue: Catalogue) -> Tensor:
    """What a recommender may know of each item, (I, D + G + 3).

    The embedding, the genres (unit norm), and popularity (log), quality and year, standardised.
    """
    genres = catalogue.genres / catalogue.genres.norm(dim=1, keepdim=True).clamp_min(1.0)
    year = torch.where(catalogue.year.isnan(), catalogue.year.nanmean(), catalogue.year)
    numbers = torch.stack([(catalogue.popularity + 1e-3).log(), catalogue.quality, year.nan_to_num()], 1)
    numbers = (numbers - numbers.mean(0)) / numbers.std(0, correction=0).clamp_min(1e-6)
    return torch.cat([catalogue.embedding, genres, numbers], 1)


class TwoTowerHead(nn.Module):
    """logit_i = query(features) . item_i: the actor scores what an item is, not its number.

    New items, masks and large catalogues then need no new weights.
    """

    def __init__(self, num_inputs: int, num_item_features: int, generator: torch.Generator) -> None:
        super().__init__()
        # A small gain makes the first policy nearly uniform (as is usual for PPO).
        self.query = linear(num_inputs, num_item_features, 0.01, generator)

    def forward(self, features: Tensor, items: Tensor) -> Tensor:
        return self.query(features) @ items.T  # type: ignore[no-any-return]


class DenseHead(nn.Module):
    """One logit for each item id."""

    def __init__(self, num_inputs: int, num_items: int, generator: torch.Generator) -> None:
        super().__init__()
        self.logits = linear(num_inputs, num_items, 0.01, generator)

    def forward(self, features: Tensor, items: Tensor) -> Tensor:
        return self.logits(features)  # type: ignore[no-any-return]
