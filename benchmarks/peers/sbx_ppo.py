"""SBX (Stable-Baselines3 in JAX) on our batched `drift`."""

from __future__ import annotations

import flax.linen
import sbx

from benchmarks.harness.settings import Between, Settings
from benchmarks.peers.sb3 import learn
from recsys_rl.env.rec_env import RecEnv


def train(env: RecEnv, settings: Settings, seed: int, between: Between) -> None:
    activation = {"tanh": flax.linen.tanh, "relu": flax.linen.relu}[settings.activation]
    learn(sbx.PPO, activation, env, settings, seed, between)
