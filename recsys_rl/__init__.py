"""Reinforcement learning for recommender systems: PPO and A2C from scratch.

Importing this package registers ``recsys_rl/Drift-v0`` and ``recsys_rl/Satiation-v0`` with Gymnasium.
"""

from __future__ import annotations

from gymnasium.envs.registration import register as _register

__version__ = "0.1.0"

# The entry points are strings: nothing heavy is imported, and no data is read, before somebody makes one.
for _platform in ("drift", "satiation"):
    _register(
        f"recsys_rl/{_platform.title()}-v0",
        entry_point="recsys_rl.gymnasium_ids:RecSysEnv",
        vector_entry_point="recsys_rl.gymnasium_ids:RecSysVectorEnv",
        kwargs={"platform": _platform},
    )
