"""The parts of a simulator that baselines and oracles use; they are given one and never import it.

env/user_model.py and env/rec_env.py say what each method does.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from recsys_rl.config import EnvConfig
from recsys_rl.types import Catalogue, Feedback


class Users(Protocol):
    """A user model."""

    repeats: ClassVar[bool]

    def sample(self, users: Tensor) -> Any: ...

    def respond(
        self, user_state: Any, items: Tensor, skipped: Tensor, generator: torch.Generator | None
    ) -> Feedback: ...

    def advance(self, user_state: Any, items: Tensor, feedback: Feedback) -> tuple[Any, Tensor]: ...

    def expected_reward(self, user_state: Any, block: slice) -> Tensor: ...


@runtime_checkable
class PatientUsers(Users, Protocol):
    """Users who may leave, of a model that says what each item does to their patience: one to plan with."""

    def prospects(self, user_state: Any, block: slice = ...) -> tuple[Tensor, Tensor]: ...

    def tiresomeness(self, user_state: Any) -> Tensor: ...

    def as_known(self, user_state: Any) -> Any: ...


@runtime_checkable
class SolvedUsers(Protocol):
    """A user model whose optimum is known."""

    def best_items(self, user_state: Any) -> Tensor: ...


class Clock(Protocol):
    @property
    def steps(self) -> Tensor: ...


class World(Protocol):
    """An environment, seen from inside."""

    @property
    def user_model(self) -> Users: ...

    @property
    def user_state(self) -> Any: ...

    @property
    def session(self) -> Clock: ...

    @property
    def config(self) -> EnvConfig: ...

    @property
    def catalogue(self) -> Catalogue: ...

    def expected_reward(self, block: slice) -> Tensor: ...
