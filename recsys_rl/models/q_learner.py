"""Double Q-learning, which DQN, CQL and BCQ share: the target network and its targets.

Where theta are the weights and theta' those of the target network (van Hasselt et al. 2016,
arXiv:1509.06461)::

    a* = argmax_a Q(s', a; theta)        over the items that the policy may choose
    y  = r + g Q(s', a*; theta')         (without the last term at an end)

docs/12_dqn.md derives it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from recsys_rl.errors import UserError
from recsys_rl.functional.losses import bootstrapped
from recsys_rl.models.policy import NetworkPolicy
from recsys_rl.models.q_network import QNetwork
from recsys_rl.models.shapes import Shapes
from recsys_rl.models.target_network import copied, follow, load_target, target_state
from recsys_rl.settings.shared import QConfig, TargetConfig
from recsys_rl.types import Obs, Transitions

Q = TypeVar("Q", bound=QConfig)


class QLearner(NetworkPolicy[Q]):
    """A Q-network with a target network, whose best item is the policy."""

    model: QNetwork

    def __init__(
        self,
        model: QNetwork,
        config: Q,
        num_updates: int,
        generators: Mapping[str, torch.Generator],
        average: Callable[[Tensor], None] | None = None,
    ) -> None:
        """As NetworkPolicy. Raises UserError for actions of several positions."""
        check_single_items(model.shapes, type(self).__name__.lower())
        super().__init__(model, config, num_updates, generators, average)
        model.temperature = config.temperature
        self.target = copied(model)

    @torch.no_grad()
    def targets(self, batch: Transitions) -> Tensor:
        """The targets y (B,) of the transitions, within what is possible."""
        after = self.model.propose(batch.next_obs, True, self.generators["policy"])
        best = self.model.eligible(after).argmax(1, keepdim=True)  # (B, 1)
        value = self.target.q(after).gather(1, best).squeeze(1)  # (B,)
        return targets_of(batch, value, self.config)

    def q_of(self, obs: Obs, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Q (B, C) of the alternatives, the places (B,) of ``items`` (B, 1) among them, and their Q (B,)."""
        q, places = self.model.q(obs), obs.places_of(items)
        return q, places.squeeze(1), q.gather(1, places).squeeze(1)

    def step(self, loss: Tensor) -> None:
        """A gradient step down ``loss``; the target network follows."""
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        follow(self.target, self.optimizer.parameters, self.config.tau)

    def state_dict(self) -> dict[str, Tensor]:
        """Weights of both networks, optimiser and count of updates, on the CPU."""
        return super().state_dict() | target_state(self.target)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of ``state_dict``. Raises KeyError, RuntimeError or ValueError if it doesn't fit.

        A state without updates, as at the start from another run's weights, makes the two networks equal.
        """
        super().load_state_dict(state)
        load_target(self.target, state, self.model, trained=self.updates > 0)


def check_single_items(shapes: Shapes, algo: str) -> None:
    """Raise UserError for actions of several positions, as there is no value of a slate."""
    if shapes.slate_size > 1 or len(shapes.action_sizes) > 1:
        raise UserError(
            f"{algo} chooses one item at a time, and here each step shows a slate of several: choose --algo "
            "ppo or a2c, or bc to learn from a log."
        )


def targets_of(batch: Transitions, value: Tensor, config: TargetConfig) -> Tensor:
    """r + g V(s') (B,) with the ``value`` (B,) of the next states, within what is possible, if that is known.

    No value follows an end. A time limit is one only without ``bootstrap_time_limit``.
    """
    ended = batch.terminated if config.bootstrap_time_limit else batch.terminated | batch.truncated
    targets = bootstrapped(
        batch.rewards, config.gamma if batch.discounts is None else batch.discounts, value, ended
    )
    if batch.possible is None:
        return targets
    return targets.clamp(batch.possible[:, 0], batch.possible[:, 1])
