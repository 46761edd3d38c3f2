"""`drift` for everybody, and each peer's PPO on it behind one small interface.

``train(env, dials, seed, between)`` builds a peer's agent and trains it. ``between(act)`` is called
before the first rollout and after each update; training ends when it returns False or after
``dials.total_steps``. ``act(context, greedy)`` is the policy as it stands, for a whole batch.

What each peer sees is our batched environment, through the vector interface of its own:
benchmarks/sb3.py, tianshou_ppo.py and torchrl_ppo.py say how.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from recsys_rl import make, types
from recsys_rl.agents.ppo import PPO, PPOConfig
from recsys_rl.config import Config, from_dict
from recsys_rl.dials import ModelConfig
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.experience.rollout import collect
from recsys_rl.types import Catalogue, Population
from recsys_rl.utils.allocator import keep_freed_memory
from recsys_rl.utils.seeding import generators

HIDDEN = (128, 64)

Act = Callable[[Tensor, bool], Tensor]
"""Context (N, F) float32, and whether to be greedy -> items (N,) int64."""
Between = Callable[[Act], bool]
Train = Callable[[RecEnv, "Dials", int, Between], None]


@dataclass(frozen=True)
class Dials:
    """PPO's dials, whoever runs it."""

    ppo: PPOConfig
    total_steps: int
    activation: Literal["tanh", "relu"] = "tanh"
    anneal_clip: bool = False  # the clip range falls linearly to zero; ours has no such dial

    @property
    def per_update(self) -> int:
        return self.ppo.num_envs * self.ppo.n_steps

    @property
    def num_updates(self) -> int:
        return max(1, self.total_steps // self.per_update)

    def remaining(self, step: int) -> float:
        """Share of the run that is left at ``step``: 1 at the start, 0 at the end."""
        return max(0.0, 1 - step / self.total_steps)

    def lr(self, remaining: float) -> float:
        return self.ppo.lr * (remaining if self.ppo.anneal_lr else 1)

    def ent_coef(self, remaining: float) -> float:
        return self.ppo.ent_coef * (remaining if self.ppo.anneal_ent else 1)

    def clip_eps(self, remaining: float) -> float:
        return self.ppo.clip_eps * (remaining if self.anneal_clip else 1)


SB3_DEFAULTS = PPOConfig(  # Stable-Baselines3's, as 8 users x 256 steps
    lr=3e-4,
    gamma=0.99,
    gae_lambda=0.95,
    ent_coef=0.0,
    max_grad_norm=0.5,
    update_epochs=10,
    batch_size=64,
    n_steps=256,
    num_envs=8,
    anneal_lr=False,
    anneal_ent=False,
)


@dataclass(frozen=True)
class World:
    """Synthetic items and users, the same for all systems of a run."""

    catalogue: Catalogue
    population: Population
    config: Config

    def env(self, num_envs: int, seed: int, heldout: bool = False) -> RecEnv:
        world, generator = types.World(self.catalogue, self.population), generators(seed, "users")["users"]
        made = make.make_env(self.config, world, num_envs, generator, heldout=heldout)
        assert isinstance(made, RecEnv)
        return made


def make_world(seed: int, num_items: int = 1000, num_users: int = 2000, env: str = "drift") -> World:
    settings = {
        "env": env,
        "data_config": {"data": "synthetic", "num_users": num_users},
        "env_config": {"num_items": num_items},
        "train_config": {"seed": seed},
    }
    config = from_dict(Config, settings)
    return World(*make.make_world(config), config)


def our_agent(env: RecEnv, dials: Dials, seed: int, model_config: ModelConfig) -> PPO:
    """Our PPO with these dials, as `recsys-rl train` makes it."""
    keep_freed_memory()
    config = Config(agent_config=dials.ppo, model_config=model_config)
    streams = generators(seed, "model", "policy", "shuffle")
    cpu = torch.device("cpu")
    agent = make.make_agent(config, env.interface, env.catalogue, dials.num_updates, streams, cpu)
    return cast(PPO, agent)


def time_cycles(env: RecEnv, agent: PPO, dials: Dials) -> tuple[float, float]:
    """Seconds of all rollouts and of all updates but the first."""
    obs = env.reset()
    rollout_s = update_s = 0.0
    for update in range(dials.num_updates):
        started = time.perf_counter()
        rollout, obs = collect(env, agent, obs, dials.ppo.n_steps)
        collected = time.perf_counter()
        agent.update(rollout)
        if update > 0:
            rollout_s += collected - started
            update_s += time.perf_counter() - collected
    return rollout_s, update_s


def seconds_per_update(train: Train, env: RecEnv, dials: Dials) -> float:
    """Of a peer: from the end of its first update to the end of its last."""
    times: list[float] = []

    def between(act: Act) -> bool:
        times.append(time.perf_counter())
        return True

    train(env, dials, 0, between)
    return (times[-1] - times[1]) / (len(times) - 2)


def _stable_baselines3(env: RecEnv, dials: Dials, seed: int, between: Between) -> None:
    import stable_baselines3

    from benchmarks import sb3

    activation = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[dials.activation]
    sb3.train(stable_baselines3.PPO, activation, env, dials, seed, between)


def _sbx(env: RecEnv, dials: Dials, seed: int, between: Between) -> None:
    import flax.linen
    import sbx

    from benchmarks import sb3

    activation = {"tanh": flax.linen.tanh, "relu": flax.linen.relu}[dials.activation]
    sb3.train(sbx.PPO, activation, env, dials, seed, between)


def _tianshou(env: RecEnv, dials: Dials, seed: int, between: Between) -> None:
    from benchmarks import tianshou_ppo

    tianshou_ppo.train(env, dials, seed, between)


def _torchrl(env: RecEnv, dials: Dials, seed: int, between: Between) -> None:
    from benchmarks import torchrl_ppo

    torchrl_ppo.train(env, dials, seed, between)


@dataclass(frozen=True)
class Peer:
    package: str  # the distribution
    module: str  # what it is imported as
    train: Train


PEERS = {
    "stable-baselines3": Peer("stable-baselines3", "stable_baselines3", _stable_baselines3),
    "sbx": Peer("sbx-rl", "sbx", _sbx),
    "tianshou": Peer("tianshou", "tianshou", _tianshou),
    "torchrl": Peer("torchrl", "torchrl", _torchrl),
}
