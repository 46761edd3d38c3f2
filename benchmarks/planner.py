"""Has the planner of `satiation` converged? Its return with wider searches, on training users.

    python -m benchmarks.planner [--users 64] [--seed 100]

The search of recsys_rl/agents/references.py against twice its first items, twice its prices of patience and
twice its prices of weariness. The horizon is the whole session, so that there is no longer one. Seed 100 is
in no other table; without noise, so that what was planned is what happens.
"""

from __future__ import annotations

import itertools
import time
from unittest import mock

import torch

from benchmarks.harness import tables
from benchmarks.harness.turns import Row
from recsys_rl.agents import references
from recsys_rl.config import Config, from_dict
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.experience.rollout import play
from recsys_rl.make import make_env, make_world


def doubled(prices: tuple[float, ...]) -> tuple[float, ...]:
    """Twice as many prices (one fewer): those given, and one halfway between each two."""
    between = [(low + high) / 2 for low, high in itertools.pairwise(prices)]
    return tuple(sorted([*prices, *between]))


SEARCHES: dict[str, dict[str, object]] = {
    "as it is": {},
    "twice the first items": {"FIRST_ITEMS": 2 * references.FIRST_ITEMS},
    "twice the prices of patience": {"PATIENCE_PRICES": doubled(references.PATIENCE_PRICES)},
    "twice the prices of weariness": {"WEARINESS_PRICES": doubled(references.WEARINESS_PRICES)},
}


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--users", type=int, default=64, help="training users, evenly spread")
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--data", default="movielens", help="as of recsys-rl train")
    args = tables.parse(parser, "planner")
    torch.set_num_threads(args.threads or 1)
    sizes, data = {}, {"data": args.data}
    if args.smoke:
        sizes, data = {"num_items": 60, "max_episode_steps": 4}, {"data": "synthetic", "num_users": 50}
        args.users = 4
    settings = {
        "env": "satiation",
        "env_config": {"noise": 0.0, **sizes},
        "data_config": data,
        "train_config": {"seed": args.seed},
    }
    config = from_dict(Config, settings)
    world = make_world(config)
    train = world.population.train
    users = train[torch.arange(args.users) * len(train) // args.users]
    rows: list[Row] = []
    for name, search in SEARCHES.items():
        env = make_env(config, world, args.users, torch.Generator().manual_seed(0))
        assert isinstance(env, RecEnv)
        started = time.monotonic()
        with mock.patch.dict(vars(references), search):
            earned = play(env, references.Planner(env), users).returns.mean().item()
        gain = earned / rows[0]["return_mean"] - 1 if rows else None
        seconds = time.monotonic() - started
        rows.append({"search": name, "return_mean": earned, "gain": gain, "seconds": seconds})
    tables.publish(rows, args)


if __name__ == "__main__":
    tables.run(main)
