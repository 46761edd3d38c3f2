"""`drift`, the formulation of the original project: shown items move the user towards themselves.

With user embedding u (norm 1 at the start), items e_i and step t counted from 0::

    r_t     = (u_t . e_i) * reward_decay**t       [dot product; unbounded, about -1 .. 2]
    u_{t+1} = u_t + user_drift * e_i

The reward is discounted here, as in the original formulation, and the agent discounts it again with gamma. So
the agent's return is sum((gamma * reward_decay)**t ...). Evaluation sums r_t without gamma.

The observation is the user's embedding and the last item's, without the rewards: of a user whose embedding is
withheld nothing can be learned, unless ``history_length`` adds them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from recsys_rl.functional import rows
from recsys_rl.functional.top_k import blocked_top_k
from recsys_rl.records import Platform, VisitPieces
from recsys_rl.settings.fields import CountOrZero, NonNegative, Share
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.types import Catalogue, Feedback, Population, Signal, Stream


@dataclass(frozen=True)
class DriftConfig(EnvConfig):
    """Users who drift towards the items that they are shown."""

    reward_decay: Share = 0.99
    """The reward of step t is multiplied by reward_decay**t."""
    user_drift: NonNegative = 0.05
    """Share of a shown item's embedding that is added to the user's."""
    history_length: CountOrZero = 0
    """Latest items of the session in the observation, with their rewards; 0 = none, as in the original
    formulation. With them a policy can learn the taste of a user without a profile."""


@dataclass(frozen=True)
class DriftState:
    user: Tensor  # (N, D)
    step: Tensor  # (N,) int64: steps of this session so far


@dataclass(frozen=True)
class Drift:
    """The user model. Nobody leaves; the time limit ends the session."""

    catalogue: Catalogue
    population: Population
    config: DriftConfig
    repeats: ClassVar[bool] = True
    context: ClassVar[tuple[str, ...]] = ("user", "last_item")
    signals: ClassVar[tuple[Signal, ...]] = (Signal("match", low=-math.inf, high=math.inf),)
    streams: ClassVar[tuple[Stream, ...]] = (Stream("match"),)
    slate_size: ClassVar[int] = 1
    assumptions: ClassVar[str] = ""

    @property
    def history_length(self) -> int:
        return self.config.history_length

    @property
    def bounds(self) -> dict[str, float]:
        """The norm of a user grows by at most ``user_drift`` in each step."""
        return {"user": 1.0 + abs(self.config.user_drift) * self.config.max_episode_steps}

    def sample(self, users: Tensor) -> DriftState:
        return DriftState(self.population.profile.index_select(0, users), torch.zeros_like(users))

    def possible(self, user_state: DriftState) -> bool:
        step = user_state.step
        return bool(((step >= 0) & (step < self.config.max_episode_steps)).all())

    def visible(self, user_state: DriftState) -> dict[str, Tensor]:
        return {"user": user_state.user}

    def respond(
        self, user_state: DriftState, items: Tensor, shown: Tensor, generator: torch.Generator | None
    ) -> Feedback:
        match = rows.dot_rows(user_state.user, self.catalogue.embedding, items)  # (N, K)
        match.mul_(self._decay(user_state)).masked_fill_(~shown, 0)
        return Feedback(match.unsqueeze(-1), shown)

    def rewards(self, feedback: Feedback) -> Tensor:
        return feedback.signals.sum(1)  # (N, 1)

    def advance(self, user_state: DriftState, items: Tensor, feedback: Feedback) -> tuple[DriftState, Tensor]:
        user = drifted(self.config, self.catalogue, user_state.user, items, feedback)
        return DriftState(user, user_state.step + 1), feedback.shown.new_zeros(len(items))

    def expected_reward(self, user_state: DriftState, block: slice = slice(None)) -> Tensor:
        return user_state.user @ self.catalogue.embedding[block].T * self._decay(user_state)

    def best_items(self, user_state: DriftState) -> Tensor:
        """(N, 1): the best item to repeat for the rest of the session (see ``best_return``)."""

        def appeal(block: slice) -> Tensor:
            appeal = user_state.user @ self.catalogue.embedding[block].T  # (N, b)
            return appeal.masked_fill_(~self.catalogue.available[block], -torch.inf)

        return blocked_top_k(appeal, len(user_state.user), self.catalogue.num_items, 1)[1]

    def _decay(self, user_state: DriftState) -> Tensor:
        return self.decays.index_select(0, user_state.step)  # (N, 1)

    @cached_property
    def decays(self) -> Tensor:
        """(T, 1): reward_decay**t for each step of a session."""
        steps = torch.arange(self.config.max_episode_steps, device=self.catalogue.embedding.device)
        return (self.config.reward_decay ** steps.float()).unsqueeze(-1)


def drifted(
    config: DriftConfig, catalogue: Catalogue, user: Tensor, items: Tensor, feedback: Feedback
) -> Tensor:
    """The embedding (N, D) of users after a step with ``items`` (N, K)."""
    return rows.add_rows(user, catalogue.embedding, items, feedback.shown, config.user_drift)


VISIT_PIECES = VisitPieces(
    begin=lambda config, catalogue, profiles, hours: {"user": profiles},
    after=lambda config, catalogue, known, items, seen: {
        "user": drifted(config, catalogue, known["user"], items, seen)
    },
    pieces=lambda config, catalogue, known: known,
)


def best_return(user: Tensor, embedding: Tensor, config: DriftConfig) -> Tensor:
    """The largest return of a whole session, in closed form, for items of unit norm.

    Let m be max_i u_0 . e_i. As e_i . e_j <= 1, the reward of step t is at most
    (m + user_drift * t) * reward_decay**t. Repeating the best item attains this bound at every step::

        R* = sum_t (m + user_drift * t) * reward_decay**t,   t = 0 .. max_episode_steps - 1

    Rewards are linear in the user, so the same holds for the mean of several users: the best list for
    everybody repeats the item with the highest mean first reward.

    Args: ``user`` (N, D), ``embedding`` (I, D) of unit norm. Returns: (N,).
    """
    best = blocked_top_k(lambda block: user @ embedding[block].T, len(user), len(embedding), 1)[0]  # (N, 1)
    t = torch.arange(config.max_episode_steps, dtype=user.dtype, device=user.device)  # (T,)
    return ((best + config.user_drift * t) * config.reward_decay**t).sum(-1)


PLATFORM = Platform(
    DriftConfig,
    users=Drift,
    visit_pieces=VISIT_PIECES,
    presets={"ppo": {"agent_config": {"batch_size": 256}}, "a2c": {"agent_config": {"lr": 5e-3}}},
    question="Can a policy learn when each item that it shows moves the user's taste?",
)
