"""Two towers: the score of an item as the product of a vector of the user's side and one of its features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys_rl.models.encoders import Linear
from recsys_rl.models.fast.item_scores import item_scores
from recsys_rl.models.fast.kept import Kept
from recsys_rl.models.fast.votes import with_votes

TOWER_SIZE = 32  # learned features of an item beside the given ones
LOGIT_SCALE = 5.0  # first temperature: item embeddings have unit norm, so their products are small
RATE = 5.0  # votes and log-temperature are few weights with far to go: scaled, they move this much faster


class TwoTowers(nn.Module):
    """score_i = temperature * query . item tower(f_i): scores the features of an item, not its id.

    So new items, masks and large catalogues need no new weights. With f_i the features of an item, h the
    hidden features of the user's side, and x_b the inputs in the space of item features (user, last item,
    sums over the session, signals that an encoder expects)::

        item tower(f) = [f, relu(U f)]        query = [sum_b weight_b * x_b, 0] + W h

    In the sum each x_b votes for items similar to it, or against them if its weight is negative. These few
    weights are learned from few samples. The term W h represents everything else.
    """

    def __init__(
        self,
        num_hidden: int,
        num_blocks: int,
        num_item_features: int,
        generator: torch.Generator,
        num_gates: int = 0,
    ) -> None:
        """``num_gates``: outputs of the layer ``last`` after those of W h, which ``user`` does not take."""
        super().__init__()
        # Small gains make the first policy nearly uniform, as is usual for PPO.
        self.tower = Linear(num_item_features, TOWER_SIZE, 2**0.5, generator)
        self.query = Linear(num_hidden, num_item_features + TOWER_SIZE + num_gates, 0.01, generator)
        self.votes = nn.Parameter(0.01 * torch.randn(num_blocks, num_item_features, generator=generator))
        self.log_temperature = nn.Parameter(torch.tensor(LOGIT_SCALE).log() / RATE)
        self.kept = Kept()

    @property
    def last(self) -> Linear:
        """The layer after the hidden layers: its outputs are the first input of ``forward`` and ``among``."""
        return self.query

    def forward(self, query: Tensor, blocks: Sequence[Tensor], items: Tensor) -> Tensor:
        """query (N, F_i + tower) = W h, blocks as ``user`` takes them, items (I, F_i) -> logits (N, 1, I)."""
        return self.of_all(self.user(query, blocks), items).unsqueeze(1)

    def of_all(self, user: Tensor, items: Tensor) -> Tensor:
        """Scores (N, I) of all items (I, F_i), from the result of ``user``."""
        if not torch.is_grad_enabled():
            return torch.mm(self.temperature * user, self.table(items))
        return item_scores(user, self.temperature, items, self._learned(items))

    def table(self, items: Tensor) -> Tensor:
        """The given and the learned features (F_i + tower, I) of all items (I, F_i), without a gradient."""
        return self.kept.of(self._table, items, self.tower.weight, self.tower.bias)

    def _table(self, items: Tensor, *_: Tensor) -> Tensor:
        return torch.cat([items.T, self._learned(items)])

    def _learned(self, items: Tensor) -> Tensor:
        """(tower, I): transposed, as its gradient then comes in the order in which torch is fastest."""
        return torch.addmm(self.tower.bias.unsqueeze(1), self.tower.weight.T, items.T).relu_()

    def among(self, query: Tensor, blocks: Sequence[Tensor], parts: Sequence[Tensor]) -> Tensor:
        """As ``forward``, but each row scores its own C items: logits (N, 1, C).

        ``parts`` (N, C, size) each are the features of the items, whose sizes add up to F_i. Joining them
        would cost as much time as the scores.
        """
        return self.of_each(self.user(query, blocks), parts).unsqueeze(1)

    def of_each(self, user: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """Scores (N, C) of each row's own items, from the result of ``user``."""
        sizes = [piece.shape[-1] for piece in parts]
        query = (self.temperature * user).unsqueeze(1)  # (N, 1, F_i + tower)
        *fixed, learned = query.split([*sizes, TOWER_SIZE], -1)  # (N, 1, size) each
        tower: Tensor = self.tower.bias
        for piece, weight in zip(parts, self.tower.weight.split(sizes), strict=True):
            tower = torch.addmm(tower, piece.flatten(0, 1), weight)  # (N C, tower)
        logits: Tensor = learned @ tower.relu().unflatten(0, parts[0].shape[:2]).mT  # (N, 1, C)
        for piece, of_query in zip(parts, fixed, strict=True):
            logits = logits + of_query @ piece.mT
        return logits.squeeze(1)

    def of_few(self, user: Tensor, features: Tensor) -> Tensor:
        """Scores (N, C) of items with the ``features`` (N, C, F_i): quicker than ``of_each`` for small C."""
        tower = torch.addmm(self.tower.bias, features.flatten(0, 1), self.tower.weight).relu_()
        vectors = torch.cat([features, tower.unflatten(0, features.shape[:2])], 2)  # (N, C, F_i + tower)
        return (vectors * (self.temperature * user).unsqueeze(1)).sum(2)

    def user(self, query: Tensor, blocks: Sequence[Tensor]) -> Tensor:
        """``query`` = W h with the votes added, (N, F_i + tower). The first F_i are for the given features.

        ``blocks`` (N, number, size) each hold the x_b, ``num_blocks`` together. Features beyond ``size``
        count as 0.
        """
        return with_votes(query, RATE * self.votes, blocks)

    @property
    def temperature(self) -> Tensor:
        return (RATE * self.log_temperature).exp()
