"""Reinforcement learning for recommender systems: PPO and A2C from scratch.

Its environments are registered with Gymnasium, ``recsys_rl/Drift-v0`` for example: a plugin that Gymnasium
finds by itself where this package is installed.
"""

from __future__ import annotations

import sys

from recsys_rl.env import PLATFORMS, WITHOUT_ID

__version__ = "0.1.0"


def gymnasium_id(platform: str) -> str:
    """``short-video`` -> ``recsys_rl/ShortVideo-v0``."""
    return f"recsys_rl/{''.join(word.title() for word in platform.split('-'))}-v0"


def register_ids() -> None:
    """Register each platform with Gymnasium.

    The entry points are strings: nothing heavy is imported, and no data is read, before somebody makes one.
    """
    from gymnasium.envs.registration import register, registry

    for platform in PLATFORMS:
        if platform not in WITHOUT_ID and gymnasium_id(platform) not in registry:
            register(
                gymnasium_id(platform),
                entry_point="recsys_rl.gymnasium_ids:RecSysEnv",
                vector_entry_point="recsys_rl.gymnasium_ids:RecSysVectorEnv",
                kwargs={"platform": platform},
            )


if "gymnasium" in sys.modules:  # of a checkout that is not installed
    register_ids()
