"""Our PPO, trained without its log and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from benchmarks.harness.settings import Between, Settings
from recsys_rl import make
from recsys_rl.agents.ppo import PPO
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.experience.rollout import collect
from recsys_rl.settings.config import Config
from recsys_rl.settings.shared import ModelConfig
from recsys_rl.types import Obs
from recsys_rl.utils.allocator import keep_freed_memory
from recsys_rl.utils.seeding import generators


def our_agent(env: RecEnv, settings: Settings, seed: int, model_config: ModelConfig) -> PPO:
    """Our PPO with these settings, as `recsys-rl train` makes it."""
    keep_freed_memory()
    config = Config(env="satiation", agent_config=settings.ppo, model_config=model_config)  # it has a history
    streams = generators(seed, "model", "policy", "shuffle")
    cpu = torch.device("cpu")
    agent = make.make_agent(config, env.interface, env.catalogue, settings.num_updates, streams, cpu)
    return cast(PPO, agent)


def time_cycles(
    env: RecEnv, agent: PPO, settings: Settings, between: Callable[[], None] = lambda: None
) -> tuple[float, float]:
    """Seconds of all rollouts and of all updates but the first. ``between`` follows each, not counted."""
    obs = env.reset()
    rollout_s = update_s = 0.0
    for update in range(settings.num_updates):
        started = time.perf_counter()
        rollout, obs = collect(env, agent, obs, settings.ppo.n_steps)
        collected = time.perf_counter()
        agent.update(rollout)
        if update > 0:
            rollout_s += collected - started
            update_s += time.perf_counter() - collected
        between()
    return rollout_s, update_s


def train(model_config: ModelConfig, env: RecEnv, settings: Settings, seed: int, between: Between) -> None:
    """Train as the peers do (benchmarks/harness/settings.py), with this network."""
    agent = our_agent(env, settings, seed, model_config)
    obs = env.reset()

    def act(context: Tensor, greedy: bool) -> Tensor:
        return agent.act(Obs(context), greedy).items[:, 0]

    for _ in range(settings.num_updates):
        if not between(act):
            return
        rollout, obs = collect(env, agent, obs, settings.ppo.n_steps)
        agent.update(rollout)
    between(act)
