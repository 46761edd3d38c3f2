"""Reinforcement learning for recommender systems: PPO and A2C from scratch.

Its platforms are registered with Gymnasium, by the ids of ``gymnasium_id``, as soon as both are imported.
"""

from __future__ import annotations

from recsys_rl.env import PLATFORMS, WITHOUT_ID
from recsys_rl.utils.after_import import after_import

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


after_import("gymnasium", register_ids)  # which takes a while to load, and most runs need none of it
