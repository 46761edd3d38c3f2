"""From the weights of a value-based learner to those of an actor that draws as it does (``--init-from``)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from recsys_rl.models.heads import RATE

BESIDE = "quality."
"""Names of weights of a network beside actor and critic, which another learner does not need."""


def actor_and_critic(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The ``weights`` of a network, by name, without those of a Q-network beside its actor and critic."""
    return {name: x for name, x in weights.items() if not name.startswith(BESIDE)}


def drawn_policy(weights: Mapping[str, Tensor], temperature: float) -> dict[str, Tensor]:
    """The ``weights`` of a Q-network, by name, for an actor that draws with softmax(Q / temperature).

    The scores of every head are multiplied by 1 / temperature: by its own temperature, or in its last layer.
    """
    found = dict(weights)
    for name, x in weights.items():
        if name == "head.log_temperature":
            found[name] = x - math.log(temperature) / RATE
        elif name.startswith("head.logits."):
            found[name] = x / temperature
    return found
