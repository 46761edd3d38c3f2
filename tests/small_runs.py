"""Small worlds and toy environments for proofs about agents, and the training loop in five lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from recsys_rl.agents.a2c import A2C
from recsys_rl.agents.ppo import PPO
from recsys_rl.data.synthetic import synthetic_world
from recsys_rl.experience.rollout import collect
from recsys_rl.make import make_agent, make_env
from recsys_rl.protocols import Env
from recsys_rl.settings.config import Config, from_dict, overlay
from recsys_rl.types import Interface, Obs, Signal, Step, Stream, World, empty_world
from recsys_rl.utils.seeding import generators
from tests.tiny_world import with_genres

CPU = torch.device("cpu")
OWN_KINDS = ("shop", "social-feed", "tutor")
"""Platforms that draw the kinds of their items."""


def settings(algo: str, env: str, **sections: Mapping[str, Any]) -> Config:
    """The preset of ``algo`` on ``env`` with other values in some sections; users and items are made up."""
    made_up = {} if env.startswith("gym:") else {"data_config": {"data": "synthetic"}}
    return from_dict(Config, overlay({"algo": algo, "env": env, **made_up}, sections))


def world(config: Config) -> World:
    """A synthetic world of that size, with six genres: always the same. Empty for gym: environments.

    For the gated head its items are of three kinds: 3/4 of the items, 1/5, and the rest.
    """
    if config.env.startswith("gym:"):
        return empty_world()
    size, num_users = config.env_config, config.data_config.num_users
    catalogue, population = synthetic_world(size.num_items, num_users, size.embedding_dim, 0.2, 0)
    rng = torch.Generator().manual_seed(0)
    genres = (torch.rand(size.num_items, 6, generator=rng) < 0.3).float()
    made = World(with_genres(catalogue, genres, "abcdef"), population)
    if config.model_config.head == "gated" and config.env not in OWN_KINDS:
        share = (torch.arange(size.num_items) + 0.5) / size.num_items
        kinds = (share > 0.75).long() + (share > 0.95).long()
        attributes = {**made.catalogue.attributes, "kind": kinds}
        made = World(replace(made.catalogue, attributes=attributes), population)
    add_attributes = config.platform.add_attributes
    return made if add_attributes is None else add_attributes(made, 0)


def begin(config: Config, num_updates: int = 10, seed: int = 0) -> tuple[Env, PPO | A2C]:
    """A new environment over ``world(config)`` and a new agent for it; ``seed`` is that of their streams."""
    place = world(config)
    streams = generators(seed, "model", "users", "policy", "shuffle")
    env = make_env(config, place, config.agent_config.num_envs, streams["users"])
    agent = make_agent(config, env.interface, place.catalogue, num_updates, streams, CPU)
    return env, cast("PPO | A2C", agent)


def learn(env: Env, agent: PPO | A2C, num_updates: int) -> list[dict[str, float]]:
    """``num_updates`` updates from a fresh reset on; the diagnostics of each."""
    obs, metrics = env.reset(), []
    for _ in range(num_updates):
        rollout, obs = collect(env, agent, obs, agent.config.n_steps)
        metrics.append(agent.update(rollout) | {"reward": rollout.streams.mean().item()})
    return metrics


class Toy:
    """N users with rewards that are a function of observation and action; a time limit ends sessions.

    The context is the step of the session, one-hot (N, length). ``terminates``: the end is a true one.
    """

    streams: tuple[Stream, ...] = (Stream("reward"),)
    signals: tuple[Signal, ...] = ()

    def __init__(
        self,
        num_envs: int,
        length: int,
        rewards: Callable[[Tensor, Tensor], Tensor],
        *,
        terminates: bool = False,
        num_arms: int = 2,
    ) -> None:
        self.num_envs, self.length = num_envs, length
        self.interface = Interface((("clock", length),), (num_arms,))
        self.rewards, self.terminates = rewards, terminates
        self.clock = torch.zeros(num_envs, dtype=torch.int64)

    def reset(self, users: Tensor | None = None) -> Obs:
        # Staggered, so that a rollout meets every step of a session equally often.
        self.clock = torch.arange(self.num_envs) % self.length
        return self.observe()

    def observe(self) -> Obs:
        return self.seen(self.clock)

    def seen(self, clock: Tensor) -> Obs:
        """After the last step the context stays the same."""
        last = self.length - 1
        return Obs(torch.nn.functional.one_hot(clock.clamp_max(last), self.length).float())

    def step(self, items: Tensor) -> Step:
        reward = self.rewards(self.clock, items[:, 0] if items.shape[1] == 1 else items)
        after = self.clock + 1
        ended = after == self.length
        self.clock = torch.where(ended, 0, after)
        never = torch.zeros_like(ended)
        ends = (ended, never) if self.terminates else (never, ended)
        return Step(self.observe(), self.seen(after), reward, *ends, reward.unsqueeze(1))

    def state_dict(self) -> dict[str, Tensor]:
        return {"clock": self.clock}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.clock = state["clock"]

    def statistics(self) -> dict[str, Tensor]:
        return {}

    def load_statistics(self, state: Mapping[str, Tensor]) -> None: ...

    def close(self) -> None: ...


def toy_agent(config: Config, env: Env, num_updates: int, seed: int = 0) -> PPO | A2C:
    streams = generators(seed, "model", "policy", "shuffle")
    agent = make_agent(config, env.interface, empty_world().catalogue, num_updates, streams, CPU)
    return cast("PPO | A2C", agent)
