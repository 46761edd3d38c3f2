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

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from recsys_rl.dials import ReplayConfig
from recsys_rl.errors import UserError
from recsys_rl.functional import categorical
from recsys_rl.models.policy import NetworkPolicy
from recsys_rl.models.q_network import QNetwork
from recsys_rl.protocols import Algorithm
from recsys_rl.schema import Positive, Range, Share
from recsys_rl.types import Action, Obs, Transitions


@dataclass(frozen=True)
class DQNConfig(ReplayConfig):
    """Double deep Q-learning (van Hasselt et al. 2016, arXiv:1509.06461)."""

    max_grad_norm: Positive = 10.0
    """Largest norm of the gradient; a longer gradient is scaled down to it."""
    tau: Annotated[float, Range(above=0, high=1)] = 0.01
    """Share by which the target network moves to the network after each gradient step; 1 = it is the same."""
    exploration_initial_eps: Share = 1.0
    """Probability of a random item at the start of the run."""
    exploration_final_eps: Share = 0.05
    """Probability of a random item after ``exploration_fraction`` of the run."""
    exploration_fraction: Annotated[float, Range(above=0, high=1)] = 0.3
    """Share of the run over which the probability of a random item falls linearly."""
    temperature: Positive = 0.01
    """The trained policy, where it is sampled, draws items with probability softmax(Q / temperature)."""


class DQN(NetworkPolicy[DQNConfig]):
    """A Q-network that learns from a replay buffer."""

    model: QNetwork

    def __init__(
        self,
        model: QNetwork,
        config: DQNConfig,
        num_updates: int,
        generators: Mapping[str, torch.Generator],
        average: Callable[[Tensor], None] | None = None,
    ) -> None:
        """As NetworkPolicy. Raises UserError for actions of several positions."""
        if model.shapes.slate_size > 1 or len(model.shapes.action_sizes) > 1:
            raise UserError(
                "dqn chooses one item at a time, and here each step shows a slate of several: choose --algo "
                "ppo or a2c."
            )
        super().__init__(model, config, num_updates, generators, average)
        model.temperature = config.temperature
        shared = {id(x): x for x in (model.items, model.retriever)}  # large, and the same for both
        self.target = copy.deepcopy(model, shared)

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
        found: list[Tensor] = []  # (3,) each: loss, Q, target
        for part in batch.split(self.config.batch_size):
            target = self.targets(part)  # (B,)
            q = self.model.q(part.obs).gather(1, part.obs.places_of(part.items)).squeeze(1)  # (B,)
            loss = smooth_l1_loss(q, target)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self._follow()
            found.append(torch.stack([loss.detach(), q.detach().mean(), target.mean()]))
        means = torch.stack(found).mean(0).tolist() if found else [0.0, 0.0, 0.0]
        metrics = dict(zip(("loss", "q_mean", "target_mean"), means, strict=True))
        metrics |= {"epsilon": self.epsilon, "lr": self.optimizer.lr}
        self.updates += 1
        return metrics

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the target network towards the network by the share tau."""
        for target, parameter in zip(self.target.parameters(), self.optimizer.parameters, strict=True):
            target.lerp_(parameter, self.config.tau)

    @torch.no_grad()
    def targets(self, batch: Transitions) -> Tensor:
        """The targets y (B,) of the transitions."""
        after = self.model.propose(batch.next_obs, True, self.generators["policy"])
        best = self.model.q(after).argmax(1, keepdim=True)  # (B, 1)
        value = self.target.q(after).gather(1, best).squeeze(1)  # (B,)
        ended = batch.terminated if self.config.bootstrap_time_limit else batch.terminated | batch.truncated
        discounts = self.config.gamma if batch.discounts is None else batch.discounts
        return batch.rewards + torch.where(ended | value.isinf(), 0.0, discounts * value)

    def state_dict(self) -> dict[str, Tensor]:
        """Weights of both networks, optimiser and count of updates, on the CPU."""
        target = {f"target.{name}": x.detach().cpu().clone() for name, x in self.target.named_parameters()}
        return super().state_dict() | target

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of ``state_dict``. Raises KeyError, RuntimeError or ValueError if it doesn't fit.

        A state without updates, as at the start from another run's weights, makes the two networks equal.
        """
        super().load_state_dict(state)
        own = {name: x for name, x in state.items() if not name.startswith("target.")}
        kind = "target" if self.updates else "model"
        with torch.no_grad():
            for name, parameter in self.target.named_parameters():
                parameter.copy_(own.get(f"{kind}.{name}", state[f"{kind}.{name}"]))


ALGORITHM = Algorithm(DQNConfig, DQN, "replay", QNetwork)
