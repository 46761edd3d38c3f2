"""Reinforcement learning for recommender systems: PPO and A2C from scratch.

The names in ``__all__`` are the public interface; docs/api.md shows each in an example. Each is imported at
its first use, so ``import recsys_rl`` itself does not load torch.

The import registers the platforms with Gymnasium, under the ids of ``gymnasium_id``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gymnasium.envs.registration import register, registry

from recsys_rl.agents import AGENTS
from recsys_rl.data import SOURCES
from recsys_rl.env import PLATFORMS, WITHOUT_ID
from recsys_rl.env import gymnasium_id as gymnasium_id
from recsys_rl.errors import UserError
from recsys_rl.utils.lazily import imported_at_first_use
from recsys_rl.version import __version__ as __version__

if TYPE_CHECKING:
    from recsys_rl.env.rec_env import RecEnv
    from recsys_rl.evaluation.evaluate import evaluate
    from recsys_rl.evaluation.options import EvaluateConfig
    from recsys_rl.experience.rollout import collect, play
    from recsys_rl.logs.describe.data import describe
    from recsys_rl.logs.ope.ope import ope
    from recsys_rl.logs.users.fit_users import fit_users
    from recsys_rl.make import make_agent, make_env, make_world
    from recsys_rl.recommender import Recommender, load
    from recsys_rl.settings.config import Config
    from recsys_rl.training.train import train, updates
    from recsys_rl.types import Action, Catalogue, Obs, Population, World

__all__ = [
    "AGENTS",
    "PLATFORMS",
    "SOURCES",
    "Action",
    "Catalogue",
    "Config",
    "EvaluateConfig",
    "Obs",
    "Population",
    "RecEnv",
    "Recommender",
    "UserError",
    "World",
    "collect",
    "describe",
    "evaluate",
    "fit_users",
    "load",
    "make_agent",
    "make_env",
    "make_world",
    "ope",
    "play",
    "register_platform",
    "train",
    "updates",
]

__getattr__ = imported_at_first_use(
    __name__,
    {
        "recsys_rl.settings.config": ("Config",),
        "recsys_rl.env.rec_env": ("RecEnv",),
        "recsys_rl.experience.rollout": ("collect", "play"),
        "recsys_rl.make": ("make_agent", "make_env", "make_world"),
        "recsys_rl.types": ("Action", "Catalogue", "Obs", "Population", "World"),
        "recsys_rl.evaluation.evaluate": ("evaluate",),
        "recsys_rl.evaluation.options": ("EvaluateConfig",),
        "recsys_rl.logs.describe.data": ("describe",),
        "recsys_rl.logs.ope.ope": ("ope",),
        "recsys_rl.logs.users.fit_users": ("fit_users",),
        "recsys_rl.recommender": ("Recommender", "load"),
        "recsys_rl.training.train": ("train", "updates"),
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def register_platform(platform: str) -> str:
    """Register a platform of your own, as ``my_file:PLATFORM``, with Gymnasium, and return its id.

    Gymnasium's ids have no second colon, so the module must be importable where this is called, and in each
    process that makes the environment. Raises UserError for a name that is not a platform's with users.
    """
    from recsys_rl.settings.names import has_own_world, platform_of

    if platform not in PLATFORMS:
        platform_of(platform)
    if platform in WITHOUT_ID or has_own_world(platform):
        raise UserError(f"{platform} has no users to play: give a platform with users.")
    _register(platform)
    return gymnasium_id(platform)


def _register(platform: str) -> None:
    """The entry points are strings: nothing heavy is imported before an environment is made."""
    if gymnasium_id(platform) not in registry:
        register(
            gymnasium_id(platform),
            entry_point="recsys_rl.foreign.ids:RecSysEnv",
            vector_entry_point="recsys_rl.foreign.ids:RecSysVectorEnv",
            kwargs={"platform": platform},
        )


def register_ids() -> None:
    """Register each platform with Gymnasium; the import of this package does so, and reads no data."""
    for platform in PLATFORMS:
        if platform not in WITHOUT_ID:
            _register(platform)


register_ids()
