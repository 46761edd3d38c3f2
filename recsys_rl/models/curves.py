"""Logits with bends in user and item together, which no product of their two vectors can give.

With z_i the logit of the two towers, f_i the features of item i, b_i the logit of its expected reward
(expected.py) and u . e_i the product of the user's profile and the item's embedding::

    logit_i = z_i + g [b_i] + sum_k v_k relu(a_k + p_k . f_i + c_k u . e_i + d_k b_i)    k = 1 .. UNITS

[b] is b within -4 .. 4. g, v_k and a_k depend on the user. g and v_k are 0 at first, so the first policy is
that of the two towers. A bend is needed where a number of the item is good up to a level which depends on the
user: an item that is too catchy for its affinity costs patience.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys_rl.models.encoders import orthogonal
from recsys_rl.models.fast.curves import by_torch, curves
from recsys_rl.models.fast.kept import Kept
from recsys_rl.models.towers import RATE

UNITS = 4
SPREAD = 0.02  # of the first places and slopes


class Curves(nn.Module):
    """The gate g and the units of a head."""

    num_gates = 1 + 2 * UNITS  # numbers that depend on the user: g, the v_k, the a_k

    def __init__(self, num_item_features: int, generator: torch.Generator) -> None:
        super().__init__()
        self.places = nn.Parameter(SPREAD * torch.randn(UNITS, num_item_features, generator=generator))  # p
        self.slopes = nn.Parameter(SPREAD * torch.randn(2, UNITS, generator=generator))  # c, d
        self.kept = Kept()

    def first_gates(self, num_hidden: int, generator: torch.Generator) -> Tensor:
        """The first weights (num_hidden, num_gates) of the layer that makes the gates."""
        shifts = orthogonal(num_hidden, UNITS, 0.01, generator)
        return torch.cat([shifts.new_zeros(num_hidden, 1 + UNITS), shifts], 1)

    def forward(
        self, scores: Tensor, gates: Tensor, features: Tensor, affinity: Tensor, expected: Tensor
    ) -> Tensor:
        """The logits (N, C), from the towers' ``scores`` (N, C), which may be overwritten.

        Args:
            gates: (N, num_gates), the outputs of the last layer.
            features: (C, F_i), or (N, C, F_i) if each row has its own items.
            affinity, expected: (N, C), u . e_i and b_i.
        """
        gates, slopes = RATE * gates, RATE * self.slopes
        if features.ndim == 2:
            places = self.kept.of(self._places, features, self.places)
            return curves(scores, gates, places, slopes, affinity, expected)
        return by_torch(scores, gates, self._places(features, self.places), slopes, affinity, expected)

    def _places(self, features: Tensor, places: Tensor) -> Tensor:
        """p_k . f_i, (K, C) or (N, K, C)."""
        return RATE * places @ features.mT
