"""A head for alternatives that each observation brings along: shared weights score each by its features.

With h the hidden features, x the observation without the candidates, and f_i the features of candidate i::

    score_i = (W h + b + A^T x) . f_i        A = 0 at the start

No weight belongs to a place of the list, so what is learned of one candidate holds for all. The product of x
and f_i is what a match of a user's interests with topics consists of. The score is linear in f_i: a feature
whose best value lies in the middle needs its square beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys_rl.models.encoders import Linear


class CandidateHead(nn.Module):
    """Logits (N, 1, C) of the candidates of each row."""

    def __init__(self, num_hidden: int, num_rest: int, num_features: int, generator: torch.Generator) -> None:
        """``num_rest``: R, numbers beside the candidates; ``num_features``: F_c, numbers of a candidate."""
        super().__init__()
        self.query = Linear(num_hidden, num_features, 0.01, generator)
        self.product = nn.Parameter(torch.zeros(num_rest, num_features))

    @property
    def last(self) -> Linear:
        """The layer after the hidden layers: its outputs are the first input of ``forward``."""
        return self.query

    def forward(self, query: Tensor, rest: Tensor, candidates: Tensor) -> Tensor:
        """query (N, F_c) = W h + b, rest (N, R), candidates (N, C, F_c) -> logits (N, 1, C)."""
        logits: Tensor = torch.addmm(query, rest, self.product).unsqueeze(1) @ candidates.mT
        return logits
