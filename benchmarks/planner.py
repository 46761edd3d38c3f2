"""Has the planner converged? Its return with wider searches, on training users.

    python -m benchmarks.planner [--env satiation] [--users 64] [--seed 100] [--only 0 4]

The search of recsys_rl/evaluation/rivals/references.py against twice its first items, prices, steps looked
ahead or futures: what its search on this platform has (``references.Search``). Seed 100 is in no other table.
Where the response without noise is the expected one, users respond without noise, so that what was planned is
what happens, and a gain is exact for these users. Elsewhere the gain has an interval (95 %, paired by user;
all searches meet the same random numbers until their first different slate).
"""

from __future__ import annotations

import itertools
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.harness import tables
from benchmarks.harness.turns import Row
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation.rivals import references
from recsys_rl.experience.rollout import play
from recsys_rl.make import make_env, make_world
from recsys_rl.protocols import UncertainUsers, UserModel
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.types import Feedback
from recsys_rl.utils.metrics import interval


def doubled(prices: tuple[float, ...]) -> tuple[float, ...]:
    """Twice as many prices: those given, one halfway between each two, and twice the largest."""
    between = [(low + high) / 2 for low, high in itertools.pairwise(prices)]
    return tuple(sorted([*prices, *between, 2 * max(prices)]))


def searches(user_model: UserModel, length: int) -> dict[str, dict[str, Any]]:
    """By name: the constants of references.py to replace, for the search in sessions of ``length`` steps."""
    uncertain = isinstance(user_model, UncertainUsers)
    if length > references.LONG_SESSION and not uncertain:
        patience, weariness = references.LONG_PRICES
        return {
            "as it is": {},
            "twice the first items": {"LONG_FIRST_ITEMS": 2 * references.LONG_FIRST_ITEMS},
            "twice the prices of patience": {"LONG_PRICES": (doubled(patience), weariness)},
            "twice the prices of weariness": {"LONG_PRICES": (patience, doubled(weariness))},
            "twice the steps": {"LONG_LOOKAHEAD": 2 * references.LONG_LOOKAHEAD},
        }
    assert length <= references.LOOKAHEAD  # the horizon is the whole session
    if uncertain:
        patience, weariness = references.UNCERTAIN_PRICES
        return {
            "as it is": {},
            "twice the prices of patience": {"UNCERTAIN_PRICES": (doubled(patience), weariness)},
            "twice the prices of weariness": {"UNCERTAIN_PRICES": (patience, doubled(weariness))},
            "twice the futures": {"FUTURES": 2 * references.FUTURES},
        }
    return {
        "as it is": {},
        "twice the first items": {"FIRST_ITEMS": 2 * references.FIRST_ITEMS},
        "twice the prices of patience": {"PATIENCE_PRICES": doubled(references.PATIENCE_PRICES)},
        "twice the prices of weariness": {"WEARINESS_PRICES": doubled(references.WEARINESS_PRICES)},
    }


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument(
        "--env", default="satiation", choices=["satiation", "short-video", "long-video", "social-feed"]
    )
    parser.add_argument("--users", type=int, default=64, help="training users, evenly spread")
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--data", default="movielens", help="as of recsys-rl train")
    parser.add_argument("--only", type=int, nargs="+", help="places of the searches, from 0 on; 0 is needed")
    args = tables.parse(parser, "planner")
    if args.only and args.only[0] != 0:
        parser.error("--only begins with 0, the search as it is: gains are against it")
    torch.set_num_threads(args.threads or 1)
    sizes, data = {}, {"data": args.data}
    if args.smoke:
        sizes, data = {"num_items": 60, "max_episode_steps": 4}, {"data": "synthetic", "num_users": 50}
        args.users = 4
    settings = {
        "env": args.env,
        "env_config": sizes,
        "data_config": data,
        "train_config": {"seed": args.seed},
    }
    config = from_dict(Config, settings)
    world = make_world(config)
    train = world.population.train
    users = train[torch.arange(args.users) * len(train) // args.users]
    rows: list[Row] = []
    before: Tensor | None = None
    first = make_env(config, world, 1, torch.Generator())
    assert isinstance(first, RecEnv)
    named = list(searches(first.user_model, config.env_config.max_episode_steps).items())
    if any(not 0 <= index < len(named) for index in args.only or ()):
        parser.error(f"--only has places 0 to {len(named) - 1} here")
    for name, search in [named[index] for index in args.only or range(len(named))]:
        env = make_env(config, world, args.users, torch.Generator().manual_seed(0))
        assert isinstance(env, RecEnv)
        kind, started = type(env.user_model), time.monotonic()
        noise = nullcontext() if isinstance(env.user_model, UncertainUsers) else quiet(kind)
        with noise, mock.patch.dict(vars(references), search):
            earned = play(env, references.Planner(env), users).returns
        row: Row = {"env": args.env, "search": name, "users": args.users, "return_mean": earned.mean().item()}
        if before is None:
            before = earned
        else:
            gain, mean = interval(earned - before), before.mean().item()
            row |= {"gain": gain.mean / mean, "gain_low": gain.low / mean, "gain_high": gain.high / mean}
        rows.append(row | {"seconds": time.monotonic() - started})
        print(rows[-1], flush=True)
    tables.publish(rows, args)


def quiet(kind: type[UserModel]) -> AbstractContextManager[Any]:
    """Users of this kind respond without noise, as the planner simulates them."""
    noisy = kind.respond

    def respond(self: Any, state: Any, items: Tensor, shown: Tensor, _: torch.Generator | None) -> Feedback:
        return noisy(self, state, items, shown, None)

    return mock.patch.object(kind, "respond", respond)


if __name__ == "__main__":
    tables.run(main)
