"""Users whose rating of every item is known, and who leave when items are too much alike.

A matrix R (U, I) has the rating of each user for each item, and d (I, I) the distances between items. Showing
item i to user u at step t, after the items i_1 ... i_{t-1} of the session::

    reward_t = clip(R[u, i] + rating_noise * N(0, 1), low, high)          [the matrix's own units]
    leaves_t = min of d[i, i_k] over k = t - window ... t - 1  <  threshold

low and high are the ends of the matrix's scale. The reward of the step that ends a session counts. The game,
which has no noise, is EasyRL4Rec's for the data Coat and KuaiRec (Yu, Gao et al. 2024, "EasyRL4Rec: An
easy-to-use library for reinforcement learning based recommender systems", SIGIR, arXiv:2402.15164; the rule
of leaving after Gao et al. 2023, "Alleviating Matthew effect of offline reinforcement learning in interactive
recommendation", SIGIR). The distance is Euclidean: between the columns of a matrix of ratings, which the data
bring, or between rows of tags.

A policy sees the last items, their ratings and the clock. It doesn't see the user: there is no profile. What
it learns of the user is in the ratings of the session. ``relative`` makes them relative to the session so
far: rating_k - mean(rating_1 ... rating_{t-1}).

``ratings`` chooses between two matrices of the data: a policy learns with the estimated ratings, and is
tested with the true ones. Distances are the same in both.

    recsys-rl train --env benchmarks.coat.matrix_users:PLATFORM --data synthetic

Data without a matrix: R[u, i] = 1 + 4 sigmoid(4 (taste_u . e_i - 1/4)), and d between the columns of R.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from torch import Tensor

from benchmarks.coat.factorise import MOST_CELLS
from recsys_rl.errors import FieldError
from recsys_rl.records import Platform
from recsys_rl.settings.fields import NonNegative, Size
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.types import Catalogue, Feedback, Population, Signal, Stream, UserError, World

RATINGS, TRUE_RATINGS, DISTANCE = "ratings", "true_ratings", "distance"
"""Names of the attributes: of users (U, I), and of items (I, I)."""
FAVOURITES = 50
"""Number of a user's best items that ``tiresomeness`` averages over."""


@dataclass(frozen=True)
class MatrixConfig(EnvConfig):
    """Users with a known rating of every item, who leave when items are alike."""

    ratings: Literal["estimated", "true"] = "estimated"
    """The matrix that rewards come from: estimated from a part of the data, or true, where the data have
    both."""
    distance: Literal["columns", "tags"] = "columns"
    """The distance between items: of the columns of the data's matrix, or the root of the number of tags in
    which they differ."""
    window: Size = 7
    """Previous items with which a new one is compared."""
    threshold: NonNegative = 6.0
    """The session ends with an item that is closer than this to one of the window; 0 = never."""
    repeats: bool = True
    """Items may be shown twice in a session. An item that is repeated within the window ends it."""
    history_length: Size = 30
    """Latest items of the session in the observation, with their ratings."""
    relative: bool = False
    """Show each rating as its distance from the mean of the session so far, which a history of the whole
    session needs."""
    clock: bool = True
    """Show the share of the session that is over."""
    rating_noise: NonNegative = 0.0
    """Standard deviation of a rating around the matrix. For training in estimates: with their error, the
    policy meets ratings as far from them as people's are."""


@dataclass(frozen=True)
class MatrixState:
    user: Tensor  # (N,) int64: row of the matrix; U stands for the mean training user
    recent: Tensor  # (N, W) int64: the last items, latest last, -1 padding first
    present: Tensor  # (N,): 1 until the user leaves, then 0


@dataclass(frozen=True)
class MatrixUsers:
    """The user model. Raises UserError if the data lack the chosen matrix, or tags."""

    catalogue: Catalogue
    population: Population
    config: MatrixConfig
    streams: ClassVar[tuple[Stream, ...]] = (Stream("rating"),)
    slate_size: ClassVar[int] = 1
    bounds: ClassVar[Mapping[str, float]] = MappingProxyType({})

    def __post_init__(self) -> None:
        users, items = self.population.attributes, self.catalogue.attributes
        if RATINGS not in users or DISTANCE not in items:
            raise UserError(
                "These data hold no matrix of ratings and distances: make the world with make_world, which "
                "adds those that the data lack."
            )
        if self.config.ratings == "true" and TRUE_RATINGS not in users:
            raise FieldError(
                "env_config.ratings",
                f"is 'true', but the data ({self.catalogue.source}) have one matrix alone: leave it out.",
            )
        if self.config.distance == "tags" and not self.catalogue.tag_names:
            raise FieldError(
                "env_config.distance",
                f"is 'tags', but the items of the data ({self.catalogue.source}) have none: leave it out.",
            )

    @property
    def repeats(self) -> bool:
        return self.config.repeats

    @property
    def history_length(self) -> int:
        return self.config.history_length

    @property
    def relative(self) -> bool:
        return self.config.relative

    @property
    def context(self) -> tuple[str, ...]:
        last = "relative_signals" if self.relative else "last_signals"
        return ("last_item", last, "clock") if self.config.clock else ("last_item", last)

    @cached_property
    def signals(self) -> tuple[Signal, ...]:
        """The rating, within the range of the data's matrices."""
        known = [self.population.attributes[name] for name in (RATINGS, TRUE_RATINGS) if name in self._users]
        low, high = (
            min(float(ratings.min()) for ratings in known),
            max(float(ratings.max()) for ratings in known),
        )
        return (Signal("rating", low=low, high=high),)

    @property
    def assumptions(self) -> str:
        """Part of a sentence about ratings that the data lack, else ""."""
        if DISTANCE not in self.catalogue.drawn:
            return ""
        return "the data hold no matrix of ratings, so ratings follow from affinity"

    @property
    def _users(self) -> Mapping[str, Tensor]:
        return self.population.attributes

    @cached_property
    def matrix(self) -> Tensor:
        """(U + 1, I): the ratings of each user, and their mean over training users."""
        chosen = self._users[TRUE_RATINGS if self.config.ratings == "true" else RATINGS]  # (U, I)
        return torch.cat([chosen, chosen[self.population.train].mean(0, keepdim=True)])

    @cached_property
    def close(self) -> Tensor:
        """(I, I) bool: True if the two items are closer than the threshold."""
        if self.config.distance == "tags":
            tags = self.catalogue.tags
            return (
                torch.cdist(tags, tags, compute_mode="donot_use_mm_for_euclid_dist") < self.config.threshold
            )
        return self.catalogue.attributes[DISTANCE] < self.config.threshold

    def sample(self, users: Tensor) -> MatrixState:
        return MatrixState(
            user=users,
            recent=torch.full((len(users), self.config.window), -1, device=users.device),
            present=torch.ones(len(users), device=users.device),
        )

    def possible(self, user_state: MatrixState) -> bool:
        user, recent = user_state.user, user_state.recent
        known = (user >= 0) & (user < len(self.matrix) - 1)
        items = (recent >= -1) & (recent < self.catalogue.num_items)
        return bool(known.all()) and bool(items.all()) and bool((user_state.present == 1).all())

    def visible(self, user_state: MatrixState) -> dict[str, Tensor]:
        return {}

    def respond(
        self, user_state: MatrixState, items: Tensor, shown: Tensor, generator: torch.Generator | None
    ) -> Feedback:
        rating = self.matrix[user_state.user.unsqueeze(1), items]  # (N, 1)
        if generator is not None and self.config.rating_noise:
            noise = torch.randn(items.shape, generator=generator, device=items.device)
            (scale,) = self.signals
            rating = (rating + self.config.rating_noise * noise).clamp(scale.low, scale.high)
        return Feedback(rating.masked_fill(~shown, 0).unsqueeze(-1), shown)

    def rewards(self, feedback: Feedback) -> Tensor:
        return feedback.signals.sum(1)  # (N, 1): rating

    def advance(
        self, user_state: MatrixState, items: Tensor, feedback: Feedback
    ) -> tuple[MatrixState, Tensor]:
        shown, recent = feedback.shown, user_state.recent  # (N, 1), (N, W)
        alike = self.close[recent.clamp_min(0), items] & (recent >= 0)  # (N, W)
        leaves = alike.any(1) & shown.squeeze(1)
        pushed = torch.cat([recent[:, 1:], items], 1)
        present = user_state.present * ~leaves
        return replace(user_state, recent=torch.where(shown, pushed, recent), present=present), leaves

    def expected_reward(self, user_state: MatrixState, block: slice = slice(None)) -> Tensor:
        return self.matrix[:, block].index_select(0, user_state.user)

    def prospects(self, user_state: MatrixState, block: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """The rating of each item, and the change of ``patience``: -1 if the user leaves with it, (N, b)."""
        rating, recent = self.expected_reward(user_state, block), user_state.recent
        ends = torch.zeros_like(rating, dtype=torch.bool)
        for item in recent.unbind(1):  # (N,)
            ends |= self.close[:, block].index_select(0, item.clamp_min(0)) & (item >= 0).unsqueeze(1)
        return rating, -ends.to(rating) * user_state.present.unsqueeze(1)

    def patience(self, user_state: MatrixState) -> Tensor:
        return user_state.present

    def tiresomeness(self, user_state: MatrixState) -> Tensor:
        """(N, I): share of the user's FAVOURITES best items that each item would keep away for a window."""
        ratings = self.expected_reward(user_state)
        top = ratings.topk(min(FAVOURITES, ratings.shape[1])).indices  # (N, F)
        return self.close[top].float().mean(1)

    def as_known(self, user_state: MatrixState) -> MatrixState:
        """The state of the mean training user: a recommender knows no more at the start of a session."""
        return replace(user_state, user=torch.full_like(user_state.user, len(self.matrix) - 1))


def add_matrix(world: World, seed: int) -> World:
    """The world with ratings that follow from affinity, and their distances, where the data have none.

    Raises UserError if the matrices would be too large, and for users without ratings of items that have the
    distances of a matrix of the data: other people, whose ratings are unknown.
    """
    catalogue, population = world
    lacks_ratings, lacks_distance = (
        RATINGS not in population.attributes,
        DISTANCE not in catalogue.attributes,
    )
    if lacks_ratings and not lacks_distance and DISTANCE not in catalogue.drawn:
        raise UserError(
            f"The ratings of these users are unknown ({population.source}), and the items have a matrix of "
            "ratings of other users: play its own users (evaluate without --users)."
        )
    cells = max(len(population.user_ids), catalogue.num_items) * catalogue.num_items
    if (lacks_ratings or lacks_distance) and cells > MOST_CELLS:
        raise UserError(
            f"A matrix of ratings of {len(population.user_ids):,} users and {catalogue.num_items:,} items, "
            f"and one of distances between items, need too much memory ({cells:,} cells, at most "
            f"{MOST_CELLS:,}): give fewer --num-items."
        )
    if lacks_ratings:
        affinity = population.taste @ catalogue.embedding.T  # (U, I)
        ratings = 1 + 4 * (4 * (affinity - 0.25)).sigmoid()
        population = dataclasses.replace(population, attributes={**population.attributes, RATINGS: ratings})
    if lacks_distance:
        rows = population.train
        columns = population.attributes[RATINGS][rows].T.contiguous()  # (I, U)
        distances = torch.cdist(columns, columns)  # (I, I)
        catalogue = dataclasses.replace(
            catalogue,
            attributes={**catalogue.attributes, DISTANCE: distances},
            drawn=(*catalogue.drawn, DISTANCE),
        )
    return World(catalogue, population)


PLATFORM = Platform(
    MatrixConfig,
    users=MatrixUsers,
    add_attributes=add_matrix,
    presets={
        "*": {"env_config": {"max_episode_steps": 30}, "agent_config": {"gamma": 0.9}},
    },
)
