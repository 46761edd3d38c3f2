"""Double Q-learning, which DQN, CQL and BCQ share: the target network and its targets.

Where theta are the weights and theta' those of the target network (van Hasselt et al. 2016,
arXiv:1509.06461)::

    a* = argmax_a Q(s', a; theta)        over the items that the policy may choose
    y  = r + g Q(s', a*; theta')         (without the last term at an end)

docs/12_dqn.md derives it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from recsys_rl.dials import QConfig
from recsys_rl.errors import UserError
from recsys_rl.functional.losses import bootstrapped
from recsys_rl.models.actor_critic import Shapes
from recsys_rl.models.policy import NetworkPolicy
from recsys_rl.models.q_network import QNetwork
from recsys_rl.models.target_network import copied, follow, load_target, target_state
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
        discounts = self.config.gamma if batch.discounts is None else batch.discounts
        ended = ended_rows(batch, self.config.bootstrap_time_limit)
        return capped(bootstrapped(batch.rewards, discounts, value, ended), batch)

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


def ended_rows(batch: Transitions, bootstrap_time_limit: bool) -> Tensor:
    """(B,) bool: no value follows. A time limit is an end only without ``bootstrap_time_limit``."""
    return batch.terminated if bootstrap_time_limit else batch.terminated | batch.truncated


def capped(returns: Tensor, batch: Transitions) -> Tensor:
    """``returns`` (B,) from the decisions of ``batch`` on, within what is possible, if that is known."""
    if batch.possible is None:
        return returns
    return returns.clamp(batch.possible[:, 0], batch.possible[:, 1])


class StartValues:
    """The mean value of the first states of sessions, beside the mean return of the same sessions.

    A value far above any return means that values run away; docs/11_offline.md has an example.
    """

    def __init__(self) -> None:
        self.sums: list[Tensor] = []  # (3,) each: of values, of returns, number of first states

    def add(self, batch: Transitions, values: Callable[[Transitions], Tensor]) -> None:
        """Take the ``values`` (n,) of those n rows of ``batch`` that begin a session."""
        if batch.steps is None or batch.returns_to_go is None:
            return
        first = (batch.steps == 0).nonzero().squeeze(1)
        if len(first):
            with torch.no_grad():
                found = values(batch.rows(first))
            count = found.new_tensor(len(first))
            self.sums.append(torch.stack([found.sum(), batch.returns_to_go[first].sum(), count]))

    def means(self) -> dict[str, float]:
        """``value_start`` and ``return_start``; NaN without a first state."""
        if not self.sums:
            return {"value_start": math.nan, "return_start": math.nan}
        value, returns, count = torch.stack(self.sums).sum(0).tolist()
        return {"value_start": value / count, "return_start": returns / count}
