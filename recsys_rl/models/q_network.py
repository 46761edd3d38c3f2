"""The action values of all items: the network of value-based algorithms."""

from __future__ import annotations

from torch import Tensor

from recsys_rl.functional.categorical import Categorical
from recsys_rl.functional.plackett_luce import PlackettLuce
from recsys_rl.models.actor_critic import ActorCritic
from recsys_rl.types import Obs


class QNetwork(ActorCritic):
    """obs -> (distribution of the item, max_a Q(obs, a) (N,)).

    The layers are those of an ActorCritic, and Q(obs, a) is the sum of its value and of the item's score, as
    in a dueling network (Wang et al. 2016, arXiv:1511.06581, equation 7). The item is drawn with probability
    softmax(Q / temperature). For actions of one position.
    """

    temperature = 1.0
    """Of the distribution, in units of return; the learner sets it."""

    def q(self, obs: Obs) -> Tensor:
        """Q (N, I) of all items, or (N, C) of the candidates of ``obs``; -inf where one may not be shown."""
        distribution, value = super().forward(obs)
        return value.unsqueeze(1) + distribution.logits.squeeze(1)

    def value(self, obs: Obs) -> Tensor:
        """max_a Q(obs, a), (N,)."""
        return self.q(obs).amax(1)

    def forward(self, obs: Obs) -> tuple[Categorical | PlackettLuce, Tensor]:
        q = self.q(obs)
        return Categorical((q / self.temperature).unsqueeze(1)), q.amax(1)
