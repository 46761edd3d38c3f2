"""SBX (Stable-Baselines3 in JAX) on our batched `drift`."""

from __future__ import annotations

import flax.linen
import sbx

from benchmarks.harness.dials import Between, Dials
from benchmarks.peers.sb3 import learn
from recsys_rl.env.rec_env import RecEnv


def train(env: RecEnv, dials: Dials, seed: int, between: Between) -> None:
    activation = {"tanh": flax.linen.tanh, "relu": flax.linen.relu}[dials.activation]
    learn(sbx.PPO, activation, env, dials, seed, between)
