"""The users of a platform: pure functions of the state that the simulator hides."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from recsys_rl.types import Feedback

UserState = Any  # a frozen dataclass of (N, ...) tensors; each user model brings its own


class UserModel(Protocol):
    """Users of one platform. No method changes its arguments or remembers anything.

    Rows never mix: row n of every result depends on row n of the arguments (and on its own noise).
    """

    repeats: ClassVar[bool]
    """May an item be shown twice in one session?"""

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

    def visible(self, user_state: UserState) -> Tensor:
        """The user embedding that a recommender may see, (N, D)."""
        ...

    def respond(
        self, user_state: UserState, items: Tensor, skipped: Tensor, generator: torch.Generator | None
    ) -> Feedback:
        """The users' response to ``items`` (N, K); ``skipped`` (N, K) marks what could not be shown.

        Without a generator there is no noise: the expected feedback, which planners simulate with.
        """
        ...

    def advance(self, user_state: UserState, items: Tensor, feedback: Feedback) -> tuple[UserState, Tensor]:
        """The state afterwards, and who leaves (N,) bool."""
        ...

    def expected_reward(self, user_state: UserState, block: slice = slice(None)) -> Tensor:
        """Expected reward of showing each item of that block now, (N, b): what the myopic oracle knows.

        Without a block, of the whole catalogue, (N, I), which is too much where that is large.
        """
        ...
