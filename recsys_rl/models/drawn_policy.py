"""The weights of an actor that draws as a value-based learner does, from its weights (``--init-from``)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from recsys_rl.models.towers import RATE

BESIDE = "quality."
"""Names of weights of a network beside actor and critic, which another learner does not need."""


def actor_and_critic(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The ``weights`` of a network, by name, without those of a Q-network beside its actor and critic."""
    return {name: tensor for name, tensor in weights.items() if not name.startswith(BESIDE)}


def drawn_policy(weights: Mapping[str, Tensor], temperature: float) -> dict[str, Tensor]:
    """The ``weights`` of a Q-network, by name, for an actor that draws with softmax(Q / temperature).

    The scores of every head are multiplied by 1 / temperature: by its own temperature, or in its last layer.
    There stand the gate and the heights of the curves, too, before the places of their bends.
    """
    scaled = dict(weights)
    slopes = weights.get("head.curves.slopes")
    units = 0 if slopes is None else slopes.shape[1]
    for name, tensor in weights.items():
        if name == "head.log_temperature":
            scaled[name] = tensor - math.log(temperature) / RATE
        elif name.startswith("head.logits."):
            scaled[name] = tensor / temperature
        elif units and name.startswith("head.query."):
            own, of_scores, places = tensor.split([tensor.shape[-1] - 1 - 2 * units, 1 + units, units], -1)
            scaled[name] = torch.cat([own, of_scores / temperature, places], -1)
    return scaled
