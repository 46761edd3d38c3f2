"""A toy platform of slates for tests: three items a step, two reward streams, a hidden signal, own dials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from recsys_rl.data.synthetic import synthetic_world
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.records import Platform
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.types import Catalogue, Feedback, Population, Signal, Stream, World


@dataclass(frozen=True)
class FeedConfig(EnvConfig):
    """The settings."""

    slate_size: int = 3
    fatigue: float = 0.4
    """Patience that a slate without any pleasure costs."""
    jitter: float = 0.0
    """Standard deviation of the watched share."""


@dataclass(frozen=True)
class FeedState:
    taste: Tensor  # (N, D)
    patience: Tensor  # (N,)


@dataclass(frozen=True)
class Feed:
    """Users who watch what fits, the first places more; a paid item (attribute ``bid``) pleases less.

    watched_k = sigmoid(4 u . e_k) / (1 + k), pleasure_k = watched_k - bid_k / 2, k = 0 .. K - 1. The streams
    are the mean of ``watched`` over places, and the sum of bid_k watched_k, at half the weight.
    """

    catalogue: Catalogue
    population: Population
    config: FeedConfig
    repeats: ClassVar[bool] = False
    assumptions: ClassVar[str] = ""
    context: ClassVar[tuple[str, ...]] = ("profile", "last_item", "last_signals", "clock", "streak")
    signals: ClassVar[tuple[Signal, ...]] = (
        Signal("pleasure", visible=False, low=-0.5),
        Signal("watched"),
        Signal("paid"),
    )
    streams: ClassVar[tuple[Stream, ...]] = (Stream("watch"), Stream("revenue", 0.5))
    bounds: ClassVar[Mapping[str, float]] = MappingProxyType({"profile": 1.0})

    @property
    def slate_size(self) -> int:
        return self.config.slate_size

    def sample(self, users: Tensor) -> FeedState:
        return FeedState(self.population.taste[users], torch.ones(len(users)))

    def possible(self, user_state: FeedState) -> bool:
        return bool(((user_state.patience > 0) & (user_state.patience <= 1)).all())

    def visible(self, user_state: FeedState) -> dict[str, Tensor]:
        return {"profile": user_state.taste}

    def respond(
        self, user_state: FeedState, items: Tensor, shown: Tensor, generator: torch.Generator | None
    ) -> Feedback:
        fit = (user_state.taste.unsqueeze(1) * self.catalogue.embedding[items]).sum(-1)  # (N, K)
        watched = (4 * fit).sigmoid() / torch.arange(1, items.shape[1] + 1)
        if generator is not None:
            noise = torch.randn(items.shape, generator=generator)
            watched = (watched + self.config.jitter * noise).clamp(0, 1)
        bid = self.catalogue.attributes["bid"][items]  # (N, K)
        signals = torch.stack([watched - bid / 2, watched, bid * watched], -1)  # (N, K, 3)
        return Feedback(signals.masked_fill(~shown.unsqueeze(-1), 0), shown)

    def rewards(self, feedback: Feedback) -> Tensor:
        _, watched, paid = feedback.signals.unbind(-1)  # (N, K) each
        return torch.stack([watched.mean(1), paid.sum(1)], -1)

    def advance(self, user_state: FeedState, items: Tensor, feedback: Feedback) -> tuple[FeedState, Tensor]:
        pleasure = feedback.signals[:, :, 0].mean(1)  # (N,)
        patience = (user_state.patience - self.config.fatigue * (0.4 - pleasure)).clamp_max(1)
        return replace(user_state, patience=patience), patience <= 0

    def expected_reward(self, user_state: FeedState, block: slice = slice(None)) -> Tensor:
        watched = (4 * user_state.taste @ self.catalogue.embedding[block].T).sigmoid()  # (N, b)
        return watched * (1 / self.slate_size + 0.5 * self.catalogue.attributes["bid"][block])

    def prospects(self, user_state: FeedState, block: slice = slice(None)) -> tuple[Tensor, Tensor]:
        watched = (4 * user_state.taste @ self.catalogue.embedding[block].T).sigmoid()  # (N, b)
        pleasure = watched - self.catalogue.attributes["bid"][block] / 2
        return self.expected_reward(user_state, block), self.config.fatigue * pleasure / self.slate_size

    def patience(self, user_state: FeedState) -> Tensor:
        return user_state.patience

    def tiresomeness(self, user_state: FeedState) -> Tensor:
        return user_state.taste.new_zeros(len(user_state.taste), self.catalogue.num_items)

    def as_known(self, user_state: FeedState) -> FeedState:
        return user_state


def add_attributes(world: World, seed: int) -> World:
    """Creators with six items each, and a bid on every fifth item."""
    places = torch.arange(world.catalogue.num_items)
    named = dict(world.catalogue.attributes) | {"creator": places // 6, "bid": (places % 5 == 0).float()}
    return world._replace(catalogue=replace(world.catalogue, attributes=named))


PLATFORM = Platform(FeedConfig, Feed, add_attributes=add_attributes)


def feed_env(
    num_envs: int = 5,
    seed: int = 0,
    num_items: int = 30,
    history_length: int | None = None,
    config: FeedConfig | None = None,
) -> RecEnv:
    """Sessions of four steps over made-up items, with creators and bids."""
    config = config or FeedConfig(num_items=num_items, embedding_dim=4, max_episode_steps=4)
    made_up = synthetic_world(num_items, 40, config.embedding_dim, 0.5, 0)
    catalogue, population = add_attributes(World(*made_up), 0)
    user_model = Feed(catalogue, population, config)
    generator = torch.Generator().manual_seed(seed)
    return RecEnv(user_model, catalogue, config, population.train, num_envs, generator, history_length)
