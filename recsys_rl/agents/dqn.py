"""Deep Q-learning (Mnih et al. 2015) with double estimators (van Hasselt et al. 2016, arXiv:1509.06461).

Q(s, a) is the return that follows item a in state s. Where theta are the weights and theta' those of the
target network, which follows them slowly, the target of n steps and the loss are::

    a* = argmax_a Q(s_n, a; theta)
    y  = r_1 + g r_2 + ... + g^(n-1) r_n + g^n Q(s_n, a*; theta')        (without the last term at an end)
    L  = mean huber(Q(s, a; theta) - y)

The target network judges the item that the other one picks: a maximum over estimates with errors is too high
on average, and more so the more items there are. docs/12_dqn.md derives it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch.nn.functional import smooth_l1_loss

from recsys_rl.functional import categorical
from recsys_rl.models.diagnostics import StepMeans
from recsys_rl.models.q_learner import QLearner
from recsys_rl.models.q_network import QNetwork
from recsys_rl.records import REPLAY, Algorithm
from recsys_rl.settings.fields import Range, Share
from recsys_rl.settings.shared import QConfig, ReplayConfig
from recsys_rl.types import Action, Obs, Transitions


@dataclass(frozen=True)
class DQNConfig(QConfig, ReplayConfig):
    """Double deep Q-learning (van Hasselt et al. 2016, arXiv:1509.06461)."""

    exploration_initial_eps: Share = 1.0
    """Probability of a random item at the start of the run."""
    exploration_final_eps: Share = 0.05
    """Probability of a random item after ``exploration_fraction`` of the run."""
    exploration_fraction: Annotated[float, Range(above=0, high=1)] = 0.3
    """Share of the run over which the probability of a random item falls linearly."""


class DQN(QLearner[DQNConfig]):
    """A Q-network that learns from a replay buffer."""

    @property
    def epsilon(self) -> float:
        """Probability of a random item while the buffer is filled."""
        config, done = self.config, 1 - self.remaining
        return config.exploration_initial_eps + min(1.0, done / config.exploration_fraction) * (
            config.exploration_final_eps - config.exploration_initial_eps
        )

    @torch.inference_mode()
    def explore(self, obs: Obs) -> Action:
        """The best item, or with probability ``epsilon`` any that may be shown, all equally likely."""
        obs = self.propose(obs)
        q, generator = self.model.q(obs), self.generators["policy"]  # (N, C)
        allowed, best = q > -torch.inf, q.argmax(1, keepdim=True)
        anything, _ = categorical.draw(torch.where(allowed, 0.0, -torch.inf), generator)  # (N,)
        at_random = torch.rand(len(q), 1, generator=generator, device=q.device) < self.epsilon
        index = torch.where(at_random, anything.unsqueeze(1), best)  # (N, 1)
        chance = self.epsilon / allowed.sum(1) + (1 - self.epsilon) * (index == best).squeeze(1)
        return Action(obs.items_at(index), chance.log(), q.amax(1), obs.candidates)

    def update(self, batch: Transitions) -> dict[str, float]:
        """A gradient step for each ``batch_size`` transitions. Returns the means over these steps.

        A batch without rows changes no weight: the buffer is still too short.
        """
        self.anneal_lr()
        averages = StepMeans()
        for minibatch in batch.split(self.config.batch_size):
            target = self.targets(minibatch)  # (B,)
            obs = self.model.summarised(minibatch.obs)
            q = self.q_of(obs, minibatch.items)[2]  # (B,)
            loss = smooth_l1_loss(q, target)
            self.step(loss + self.reward_loss(minibatch, obs))
            averages.add(loss=loss, q_mean=q.mean(), target_mean=target.mean())
        metrics = averages.means() or {"loss": 0.0, "q_mean": 0.0, "target_mean": 0.0}
        metrics |= {"epsilon": self.epsilon, "lr": self.optimizer.lr}
        self.updates += 1
        return metrics


ALGORITHM = Algorithm(DQNConfig, DQN, REPLAY, QNetwork)
