"""The action values of all items: the networks of value-based algorithms."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from recsys_rl.functional.categorical import Categorical
from recsys_rl.models.actor_critic import ActorCritic
from recsys_rl.models.heads import Distribution
from recsys_rl.models.shapes import Shapes
from recsys_rl.settings.shared import ModelConfig
from recsys_rl.types import Obs


class QNetwork(ActorCritic):
    """obs -> (distribution of the item, max_a Q(obs, a) (N,)).

    The layers are those of an ActorCritic, and Q(obs, a) is the sum of its value and of the item's score, as
    in a dueling network (Wang et al. 2016, arXiv:1511.06581, equation 7). The item is drawn with probability
    softmax(Q / temperature). For actions of one position.
    """

    temperature = 1.0
    """Temperature of the softmax, in units of return; the learner sets it."""

    def q(self, obs: Obs) -> Tensor:
        """Q (N, I) of all items, or (N, C) of the candidates of ``obs``; -inf where one may not be shown."""
        distribution, value = super().forward(obs)
        return value.unsqueeze(1) + distribution.logits.squeeze(1)

    def eligible(self, obs: Obs) -> Tensor:
        """Q (N, C), with -inf also at items that the policy never chooses."""
        return self.q(obs)

    def value(self, obs: Obs) -> Tensor:
        """max_a Q(obs, a), (N,)."""
        return self.eligible(obs).amax(1)

    def forward(self, obs: Obs) -> tuple[Distribution, Tensor]:
        q = self.eligible(obs)
        return Categorical((q / self.temperature).unsqueeze(1)), q.amax(1)


class ConstrainedQNetwork(QNetwork):
    """A Q-network whose policy chooses among the items that a behaviour might have shown.

    ``behaviour`` is a second network, a policy of its own weights. An item is likely if its probability there
    is at least the share ``threshold`` of that of the most probable item (Fujimoto et al. 2019,
    arXiv:1910.01708, equation 3).
    """

    threshold = 0.0
    """Share of the largest probability; the learner sets it."""

    def __init__(self, shapes: Shapes, config: ModelConfig, generator: torch.Generator) -> None:
        super().__init__(shapes, config, generator)
        self.behaviour = ActorCritic(shapes, replace(config, candidates=0), generator)

    def behaviour_of(self, obs: Obs) -> Distribution:
        """The distribution of the behaviour. Its encoder reads the history itself."""
        return own_distribution(self.behaviour, obs)

    def eligible(self, obs: Obs) -> Tensor:
        """Q (N, C), with -inf where an item may not be shown or is not likely."""
        with torch.no_grad():
            logits = self.behaviour_of(obs).logits.squeeze(1)
            relative = logits - logits.amax(1, keepdim=True)  # (N, C): log of the share; NaN without an item
        least = math.log(self.threshold) if self.threshold else -math.inf
        return self.q(obs).masked_fill(~(relative >= least), -torch.inf)


class QualityActorCritic(ActorCritic):
    """An actor and a critic, with a Q-network ``quality`` that has its own weights."""

    def __init__(self, shapes: Shapes, config: ModelConfig, generator: torch.Generator) -> None:
        super().__init__(shapes, config, generator)
        self.quality = QNetwork(shapes, replace(config, candidates=0), generator)


def own_distribution(network: ActorCritic, obs: Obs) -> Distribution:
    """The distribution of a network beside the one that acts: it reads the history with its own encoder."""
    distribution: Distribution = network(replace(obs, summary=None))[0]
    return distribution
