"""Other implementations of PPO, trained on our batched `drift`; one file each.

Each sees our environment through its own vector interface; the files explain how. ``train`` is described in
benchmarks/harness/settings.py.
"""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass

from benchmarks.harness.settings import Act, Between, Settings, Train
from recsys_rl.env.rec_env import RecEnv


@dataclass(frozen=True)
class Peer:
    """A library with a PPO. Its file is imported when it trains, as the library may be missing."""

    package: str  # the distribution
    module: str  # the name for imports
    file: str  # in this folder

    def train(self, env: RecEnv, settings: Settings, seed: int, between: Between) -> None:
        train: Train = importlib.import_module(f"benchmarks.peers.{self.file}").train
        train(env, settings, seed, between)


PEERS = {
    "stable-baselines3": Peer("stable-baselines3", "stable_baselines3", "sb3"),
    "sbx": Peer("sbx-rl", "sbx", "sbx_ppo"),
    "tianshou": Peer("tianshou", "tianshou", "tianshou_ppo"),
    "torchrl": Peer("torchrl", "torchrl", "torchrl_ppo"),
}


def seconds_per_update(train: Train, env: RecEnv, settings: Settings) -> float:
    """The mean time of a peer's updates with their rollouts, without the first."""
    times: list[float] = []

    def between(act: Act) -> bool:
        times.append(time.perf_counter())
        return True

    train(env, settings, 0, between)
    return (times[-1] - times[1]) / (len(times) - 2)
