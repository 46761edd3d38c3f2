"""A toy platform whose steps forbid items at random, for tests of what honours the mask."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from recsys_rl.env.satiation import Satiation, SatiationConfig, SatiationState
from recsys_rl.records import Platform
from recsys_rl.types import Catalogue, Feedback


@dataclass(frozen=True)
class ForbiddingConfig(SatiationConfig):
    """The settings."""

    forbidden: float = 0.7
    """Share of the items that a step forbids to a user, at random; the first five are never forbidden."""
    strict: bool = True
    """A forbidden item in the environment is an error."""
    mask_seed: int = 0
    """Of what is forbidden."""


@dataclass(frozen=True)
class ForbiddingState(SatiationState):
    number: Tensor  # (N,): of the user
    step: Tensor  # (N,)


@dataclass(frozen=True)
class Forbidding(Satiation):
    """Users of `satiation`. In the environment, a step that shows a forbidden item is an error."""

    config: ForbiddingConfig

    def sample(self, users: Tensor) -> ForbiddingState:
        return ForbiddingState(**vars(super().sample(users)), number=users, step=torch.zeros_like(users))

    def permits(self, user_state: ForbiddingState, items: Tensor | None = None) -> Tensor:
        if items is None:
            items = torch.arange(self.catalogue.num_items).expand(len(user_state.step), -1)
        key = user_state.number * 7919 + user_state.step * 104_729 + self.config.mask_seed * 15_485_863
        chance = ((key.unsqueeze(1) + items * 1_299_709) * 2_654_435_761 >> 16) % 1000
        return (chance >= 1000 * self.config.forbidden) | (items < 5)

    def respond(
        self,
        user_state: Any,
        items: Tensor,
        shown: Tensor,
        generator: torch.Generator | None,
    ) -> Feedback:
        if self.config.strict and generator is not None and not bool(shown.all()):
            raise AssertionError("a policy has shown a forbidden item, or one a second time")
        return super().respond(user_state, items, shown, generator)

    def advance(self, user_state: Any, items: Tensor, feedback: Feedback) -> tuple[Any, Tensor]:
        after, leaves = super().advance(user_state, items, feedback)
        later: Any = after
        return replace(later, step=user_state.step + 1), leaves


def add_creators(world: Any, seed: int) -> Any:
    """Creators with three items each."""
    catalogue: Catalogue = world.catalogue
    creator = torch.arange(catalogue.num_items) // 3
    return world._replace(
        catalogue=replace(catalogue, attributes={**catalogue.attributes, "creator": creator})
    )


PLATFORM = Platform(ForbiddingConfig, Forbidding, add_attributes=add_creators)
