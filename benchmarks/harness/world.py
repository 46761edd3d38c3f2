"""Made-up items and users, the same for all systems of a benchmark."""

from __future__ import annotations

from dataclasses import dataclass

from recsys_rl import make, types
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.types import Catalogue, Population
from recsys_rl.utils.seeding import generators


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
