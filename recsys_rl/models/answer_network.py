"""The expected reward of every item, and the policy that shows what is expected to get most.

With z_i the score of an item and V the value of the layers of an ActorCritic, s the logistic function, and lo
and hi the smallest and the largest possible reward::

    beta_i(obs) = lo + (hi - lo) s(z_i + V)            pi(i | obs) = softmax(beta / T)
"""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_rl.functional.categorical import Categorical
from recsys_rl.models.heads import DenseHead, Distribution
from recsys_rl.models.q_network import QNetwork
from recsys_rl.models.shapes import Shapes
from recsys_rl.settings.shared import ModelConfig
from recsys_rl.types import Obs


class AnswerNetwork(QNetwork):
    """obs -> (distribution of the item, the largest expected reward (N,))."""

    span: Tensor
    softness: Tensor

    def __init__(self, shapes: Shapes, config: ModelConfig, generator: torch.Generator) -> None:
        super().__init__(shapes, config, generator)
        self.register_buffer("span", torch.tensor([0.0, 1.0]))  # lo and hi; the learner sets them
        self.register_buffer("softness", torch.tensor(1.0))  # T in units of reward; the learner sets it

    def logits(self, obs: Obs) -> Tensor:
        """z + V, (N, I) of all items or (N, C) of the candidates; -inf where an item may not be shown."""
        return super().q(obs)

    def logits_and_own(self, obs: Obs) -> tuple[Tensor, Tensor | None]:
        """``logits``, and z (N, I) of all items by weights of each item alone; ``obs`` is ``summarised``.

        The latter is None with heads that know items by their features: all items share their weights.
        """
        outputs, value, inputs, sums = self._through_layers(obs)
        own = self._parted(outputs)[0].clone() if isinstance(self.head, DenseHead) else None
        distribution, _ = self._distribution(obs, outputs, inputs, sums)
        return value.unsqueeze(1) + distribution.logits.squeeze(1), own

    def q(self, obs: Obs) -> Tensor:
        """beta (N, I) of all items, or (N, C) of the candidates; -inf where an item may not be shown."""
        logits = self.logits(obs)
        low, high = self.span.unbind()
        return (low + (high - low) * logits.sigmoid()).masked_fill(logits == -torch.inf, -torch.inf)

    def forward(self, obs: Obs) -> tuple[Distribution, Tensor]:
        q = self.q(obs)
        return Categorical((q / self.softness).unsqueeze(1)), q.amax(1)

    @property
    def expects_rewards(self) -> bool:
        return True

    def expected_rewards(self, obs: Obs) -> Tensor:
        """beta, as ``q``."""
        return self.q(obs)
