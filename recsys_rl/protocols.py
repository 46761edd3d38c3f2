"""Roles: what a policy, a learner, a user model and an environment must be able to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from recsys_rl.dials import AgentConfig, DataConfig, EnvConfig
from recsys_rl.types import (
    Action,
    Catalogue,
    Feedback,
    Interface,
    Obs,
    Rollout,
    Signal,
    Step,
    Stream,
    World,
)

UserState = Any  # a frozen dataclass of (N, ...) tensors; each user model brings its own


class Policy(Protocol):
    """Everything that decides."""

    def act(self, obs: Obs, greedy: bool = False) -> Action: ...


class Learner(Policy, Protocol):
    """A policy that improves itself from a record of its actions."""

    def value(self, obs: Obs) -> Tensor: ...

    def update(self, rollout: Rollout) -> dict[str, float]: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


class Env(Protocol):
    """N sessions stepped together."""

    num_envs: int
    interface: Interface

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The M kinds of reward."""
        ...

    @property
    def signals(self) -> tuple[Signal, ...]:
        """All signals in ``Step.feedback``, hidden ones too; () where there is no feedback."""
        ...

    def reset(self, users: Tensor | None = None) -> Obs: ...

    def step(self, items: Tensor) -> Step: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...

    def observe(self) -> Obs:
        """The observation that waits for an answer now, as after ``load_state_dict``."""
        ...

    def statistics(self) -> dict[str, Tensor]:
        """The statistics of a normalisation, which evaluation needs too; empty where there is none."""
        ...

    def load_statistics(self, state: Mapping[str, Tensor]) -> None:
        """Take them from a state that may hold more. Raises UserError where they don't fit."""
        ...

    def close(self) -> None: ...


class UserModel(Protocol):
    """The users of a platform: pure functions of the state that the simulator hides.

    No method changes its arguments or remembers anything. Rows never mix: row n of every result depends on
    row n of the arguments (and on its own noise).
    """

    repeats: ClassVar[bool]
    """May an item be shown twice in one session?"""

    @property
    def context(self) -> tuple[str, ...]:
        """Names of the pieces of the context: those of session.py, and those that ``visible`` hands in.

        The first is an embedding of the user, (N, D), as baselines read it.
        """
        ...

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The S signals of each shown item."""
        ...

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The M kinds of reward."""
        ...

    @property
    def slate_size(self) -> int:
        """K: items that one step shows."""
        ...

    @property
    def bounds(self) -> Mapping[str, float]:
        """The largest absolute value of each piece of ``visible``."""
        ...

    @property
    def assumptions(self) -> str:
        """Part of a sentence: an assumption in place of what the data lack; "" where there is none."""
        ...

    def sample(self, users: Tensor) -> UserState:
        """The state at the start of a session of these users, (N,) rows of the population."""
        ...

    def possible(self, user_state: UserState) -> bool:
        """True where sessions under way can be in this state, whose numbers are all finite.

        A checkpoint's is checked before a run goes on with it.
        """
        ...

    def visible(self, user_state: UserState) -> Mapping[str, Tensor]:
        """Pieces of the context that the session can't know, by name, (N, size) each: the profile, say."""
        ...

    def respond(
        self, user_state: UserState, items: Tensor, skipped: Tensor, generator: torch.Generator | None
    ) -> Feedback:
        """The users' response to ``items`` (N, K); ``skipped`` (N, K) marks what could not be shown.

        The signals of a skipped place are 0, and any item may stand there. Without a generator there is no
        noise: the expected feedback, which planners simulate with.
        """
        ...

    def rewards(self, feedback: Feedback) -> Tensor:
        """The reward streams (N, M)."""
        ...

    def advance(self, user_state: UserState, items: Tensor, feedback: Feedback) -> tuple[UserState, Tensor]:
        """The state afterwards, and who leaves (N,) bool."""
        ...

    def expected_reward(self, user_state: UserState, block: slice = slice(None)) -> Tensor:
        """Expected reward of showing each item of that block now, (N, b): what the myopic oracle knows.

        In a slate, of the item on its own.

        Without a block, of the whole catalogue, (N, I), which is too much where that is large.
        """
        ...


@runtime_checkable
class PatientUsers(UserModel, Protocol):
    """Users who may leave, of a model that predicts their patience: one to plan with."""

    def prospects(self, user_state: UserState, block: slice = ...) -> tuple[Tensor, Tensor]: ...

    def tiresomeness(self, user_state: UserState) -> Tensor: ...

    def as_known(self, user_state: UserState) -> UserState: ...


@runtime_checkable
class SolvedUsers(Protocol):
    """A user model whose optimum is known."""

    def best_items(self, user_state: UserState) -> Tensor: ...  # (N, K)


class Clock(Protocol):
    @property
    def steps(self) -> Tensor: ...


class Simulator(Protocol):
    """An environment of simulated users, seen from inside: baselines and references are handed one."""

    @property
    def user_model(self) -> UserModel: ...

    @property
    def user_state(self) -> UserState: ...

    @property
    def session(self) -> Clock: ...

    @property
    def interface(self) -> Interface: ...

    @property
    def catalogue(self) -> Catalogue: ...

    def expected_reward(self, block: slice) -> Tensor: ...


# Records: a platform, an algorithm and a source each end with one, and three dicts name them (config.py).

Preset = Mapping[str, Mapping[str, Any]]  # fields by section, as in a TOML file


@dataclass(frozen=True)
class Platform:
    """A kind of environment.

    ``users`` makes the user model of a world, and is a class with the attribute ``repeats``. A slate size
    other than 1 is a field ``slate_size`` of ``config`` or an attribute of that class. A platform
    without users brings a world of its own: its settings have the form ``<platform>:<name>``, ``check``
    raises UserError for a name that can't be one, and ``env`` makes the environment.
    """

    config: type[Any]  # its section env_config
    users: Any = None
    env: Callable[..., Env] | None = None
    check: Callable[[str], None] | None = None
    presets: Mapping[str, Preset] = field(default_factory=dict)  # by algorithm, upon those of "*"


@dataclass(frozen=True)
class Algorithm:
    """A learner, and its section agent_config."""

    config: type[AgentConfig]
    agent: Callable[..., Learner]


@dataclass(frozen=True)
class Source:
    """A kind of data, and its section data_config.

    ``make_world`` raises UserError where the data don't serve. ``made_up``: it has exactly num_items items.
    """

    config: type[DataConfig]
    make_world: Callable[[Any, EnvConfig, int], World]  # from its settings, the sizes and the seed
    made_up: bool = False
