"""`learned`: users who were learned from a log of decisions (recsys-rl fit-users).

An ensemble of networks gives each signal of a shown item as a distribution, and the probability that the
user leaves after the step (logs/users/network.py has the equations). Hidden state of a user: which network
plays the session, drawn at its first step, and what the networks keep of the session.

Given this state, the signals of a step are drawn independently of each other. The pieces of the context
that no session derives, such as the profile and the hour, are in each step of each session of a user those of
one decision: the first one of their first session in the log, in the order of its rows. A user with logged
sessions at noon and at night always plays at the hour of the first one. Rewards are those of the log's
platform.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from recsys_rl.data.catalogue_hash import catalogue_hash
from recsys_rl.errors import FieldError, UserError, amount
from recsys_rl.logs.users.facts import UserFacts
from recsys_rl.logs.users.file import LearnedFile, load_users
from recsys_rl.objective.weighted import stream_weights
from recsys_rl.protocols import ResponseNetwork
from recsys_rl.records import Platform, WorldFile
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.types import Catalogue, Feedback, Population, Signal, Stream

BLOCK = 2**17  # items times users that pass the networks together
SCORE_COST = 32
"""The time of an item's mean reward by one network, over that by a simulator's equations: about 1,500 ns, and
26 to 101 ns on three platforms."""


@dataclass(frozen=True)
class LearnedConfig(EnvConfig):
    """Users who were learned from a log; the file brings items, users and sizes."""

    user_model: str | None = None
    """The file of learned users (recsys-rl fit-users). It brings the items, the users and the sizes."""

    def __post_init__(self) -> None:
        # A checkpoint finds it from any folder. Another type is refused by the check of the fields.
        if isinstance(self.user_model, str) and self.user_model:
            object.__setattr__(self, "user_model", str(Path(self.user_model).absolute()))


def learned_file(config: LearnedConfig) -> LearnedFile:
    """The learned users of the settings. Raises UserError if the file is missing or can't be used."""
    return _file_of({"user_model": config.user_model})


def _file_of(given: Mapping[str, Any]) -> LearnedFile:
    if given.get("user_model") is None:
        raise UserError("learned needs its users: give --user-model FILE of recsys-rl fit-users.")
    return load_users(given["user_model"])


def learned_users(catalogue: Catalogue, population: Population, config: LearnedConfig) -> LearnedUsers:
    """The users of the file in this world, with its networks on the world's device.

    Raises UserError if they were learned on other items, or in sessions of another length.
    """
    file = learned_file(config)
    if catalogue_hash(catalogue) != file.facts.catalogue:
        raise UserError(
            f"{config.user_model} holds users who were learned on another catalogue than that of this world: "
            "give the users, or the checkpoint, of the same items."
        )
    steps, own = config.max_episode_steps, file.facts.interface.session_length
    if steps != own:
        raise FieldError(
            "env_config.max_episode_steps",
            f"is {steps}: the users of {config.user_model} were learned in sessions of {own} steps; give "
            f"{own}.",
        )
    network = file.network.to(catalogue.embedding.device)
    return LearnedUsers(catalogue, population, config, file.facts, network)


@dataclass(frozen=True)
class LearnedState:
    given: Mapping[str, Tensor]  # (N, size) each: pieces of the context
    memory: Mapping[str, Tensor]  # (N, ...) each: what the networks keep of the session
    member: Tensor  # (N,) int64: the network of the session; -1 before it is drawn


@dataclass(frozen=True)
class LearnedUsers:
    """The user model."""

    catalogue: Catalogue
    population: Population
    config: LearnedConfig
    facts: UserFacts
    network: ResponseNetwork
    repeats: ClassVar[bool] = False

    def __post_init__(self) -> None:
        # An object has that of its log; the class has that of most platforms, for checks without a file.
        object.__setattr__(self, "repeats", self.facts.interface.repeats)

    @property
    def context(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.facts.interface.context)

    @cached_property
    def signals(self) -> tuple[Signal, ...]:
        """The signals of the log, and the noise that ``advance`` needs."""
        noise = (Signal("network", False, high=self.network.num_members), Signal("chance", False))
        return (*self.facts.signals, *noise)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The reward streams of the log's platform."""
        return self.facts.streams

    @property
    def slate_size(self) -> int:
        return self.facts.interface.slate_size

    @property
    def history_length(self) -> int:
        return self.facts.interface.history_length

    @property
    def relative(self) -> bool:
        return self.facts.interface.relative

    @property
    def score_cost(self) -> int:
        """See protocols.CostlyUsers. The first step of a session is scored by the mean of all networks."""
        return SCORE_COST * self.network.num_members

    @cached_property
    def bounds(self) -> Mapping[str, float]:
        return {name: float(values.abs().max()) for name, values in self._given.items()}

    @property
    def assumptions(self) -> str:
        """Part of a sentence: the log of which these users are a model."""
        return f"users learned from {self.facts.log}, by {amount(self.network.num_members, 'network')}"

    def sample(self, users: Tensor) -> LearnedState:
        given = {name: values.index_select(0, users) for name, values in self._given.items()}
        return LearnedState(given, self.network.begin(given, len(users)), torch.full_like(users, -1))

    def possible(self, user_state: LearnedState) -> bool:
        steps, member = user_state.memory["steps"], user_state.member
        known = (member >= -1) & (member < self.network.num_members) & (steps >= 0)
        return bool(known.all())

    def visible(self, user_state: LearnedState) -> Mapping[str, Tensor]:
        return user_state.given

    def respond(
        self, user_state: LearnedState, items: Tensor, shown: Tensor, generator: torch.Generator | None
    ) -> Feedback:
        member, memory, noise = user_state.member, user_state.memory, None
        chance = self.catalogue.embedding.new_full((len(items),), 0.5)
        if generator is not None:
            # Drawn for every row, so that the stream of random numbers does not depend on the sessions.
            noise = torch.rand(
                *items.shape, len(self.facts.signals), generator=generator, device=items.device
            )
            of_session = torch.rand(2, len(items), generator=generator, device=items.device)
            drawn = (of_session[0] * self.network.num_members).long()  # (N,)
            member, chance = torch.where(member < 0, drawn, member), of_session[1]
        if noise is None:
            of_log = self.network.expected(memory, items, member)  # (N, K, S)
        else:
            of_log = self.network.drawn(memory, items, member, noise)
        hidden = torch.stack([member + 1.0, chance], 1).unsqueeze(1).expand(-1, items.shape[1], -1)
        signals = torch.cat([of_log, hidden], -1)  # (N, K, S + 2)
        return Feedback(signals.masked_fill_(~shown.unsqueeze(-1), 0), shown)

    def rewards(self, feedback: Feedback) -> Tensor:
        return feedback.signals[..., :-2].sum(1) @ self._of_signals  # (N, M)

    def advance(
        self, user_state: LearnedState, items: Tensor, feedback: Feedback
    ) -> tuple[LearnedState, Tensor]:
        signals, shown = feedback.signals, feedback.shown
        drawn, chance = signals[..., -2].amax(1).long() - 1, signals[..., -1].amax(1)  # (N,) each
        member = torch.where(user_state.member < 0, drawn, user_state.member)
        memory, leaves = self.network.after(user_state.memory, items, shown, signals[..., :-2], member)
        own = leaves.gather(1, member.clamp_min(0).unsqueeze(1)).squeeze(1)
        probability = torch.where(member < 0, leaves.mean(1), own)  # (N,)
        return replace(user_state, memory=memory, member=member), chance > 1 - probability

    def expected_reward(self, user_state: LearnedState, block: slice = slice(None)) -> Tensor:
        """The mean reward (N, b) of showing each item of the block now, by the networks of the session."""
        items = torch.arange(self.catalogue.num_items, device=user_state.member.device)[block]
        member = user_state.member
        signals = [
            self.network.expected(user_state.memory, block.expand(len(member), -1), member)
            for block in items.split(max(1, BLOCK // max(1, len(member))))
        ]
        return torch.cat(signals, 1) @ self._reward_of_signals

    @cached_property
    def _given(self) -> Mapping[str, Tensor]:
        """(U', size) each: the first pieces of the context of all users of the population.

        People of whom the file knows nothing have the pieces of others, one after another, but for their own
        profile, if that is the first piece.
        """
        ids, known = self.population.user_ids, self.facts.users.to(self.population.user_ids)
        nearest = torch.searchsorted(known, ids).clamp_max(len(known) - 1)  # (U',)
        there = known[nearest] == ids
        row = torch.where(there, nearest, torch.arange(len(ids), device=ids.device) % len(known))
        given = {name: values.to(ids.device)[row] for name, values in self.facts.given.items()}
        first, profile = self.context[0], self.population.profile
        if first in given and given[first].shape == profile.shape:
            given[first] = torch.where(there.unsqueeze(1), given[first], profile)
        return given

    @cached_property
    def _reward_of_signals(self) -> Tensor:
        """(S,): the reward is the sum of the signals times these numbers."""
        return self._of_signals @ stream_weights(self.facts.streams).to(self._of_signals)

    @cached_property
    def _of_signals(self) -> Tensor:
        return self.facts.of_signals.to(self.catalogue.embedding.device)


PLATFORM = Platform(
    LearnedConfig,
    users=learned_users,
    file=WorldFile(("user_model",), _file_of),
    presets={
        "*": {"agent_config": {"gamma": 0.99, "gae_lambda": 0.95}},
        "ppo": {"agent_config": {"lr": 1e-3}, "train_config": {"total_timesteps": 600_000}},
        "a2c": {"train_config": {"total_timesteps": 300_000}},
        "dqn": {"train_config": {"total_timesteps": 300_000}},
    },
    question="How good is a policy that was trained with users learned from a log?",
    example="--env learned --user-model users.pt",
)
