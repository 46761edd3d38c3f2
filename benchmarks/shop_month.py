"""Do discounts pay on `shop`? Purchases, revenue and margin in the first visit and over a month of visits.

    python -m benchmarks.shop_month [--users 400] [--policy NAME=CHECKPOINT ...]

Each fixed rule shows a video and a product by the profile on each screen, with one coupon throughout: none,
or 10 % or 25 %. ``--policy`` adds policies that were trained with ``--discounts``. All play the lives of the
same held-out and training users with the same noise, up to 35 days, once with the default ``reference_rate``
and once with 0, where nobody gets used to a discount. A row for each policy and time: sums for each user, and
their gain over the first policy's sums for the same user, with the half width of a 95 % interval over users.
Goods that are sent back count on the day on which they come back, and at the latest on the last screen of the
life. Rows are appended to benchmarks/results/shop_month.csv.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness import tables
from benchmarks.harness.turns import Row
from recsys_rl.checkpoint import load
from recsys_rl.env.assortment import COUPONS
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.env.retail import Retailer, by_profile
from recsys_rl.env.shop import ShopConfig
from recsys_rl.errors import UserError
from recsys_rl.make import agent_of, make_env, make_world
from recsys_rl.protocols import Policy
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.types import Action, Obs, World

STREAMS = ("purchased", "revenue", "margin", "returned")
TIMES = ("the first visit", "days 1 to 7", "days 22 to 35", "all 35 days")


class Discounter:
    """A retailer who shows videos and products by the profile, and always the same coupon."""

    def __init__(self, world: World, env: RecEnv, discount: float) -> None:
        self.retailer = Retailer(world.catalogue, env.interface, by_profile, 1000, pairs=True)
        named = world.catalogue.attributes
        same = (named["kind"] == world.catalogue.classes("kind").index("coupon")) & (
            (named["discount"] - discount).abs() < 1e-6
        )
        self.coupon = int(same.nonzero()[0])

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        items = self.retailer.act(obs).items
        items[:, 2] = self.coupon
        return Action.certain(items)


@torch.inference_mode()
def lives(env: RecEnv, policy: Policy, users: Tensor) -> Mapping[str, tuple[Tensor, Tensor]]:
    """For each of TIMES the sums (N, M) of STREAMS, and the number of visits (N,)."""
    names = [stream.name for stream in env.streams]
    at = [names.index(name) for name in STREAMS]
    obs, alive = env.reset(users), torch.ones(len(users), dtype=torch.bool)
    sums = {time: torch.zeros(len(users), len(at)) for time in TIMES}
    visits = {time: torch.zeros(len(users)) for time in TIMES}
    while bool(alive.any()):
        assert env.session.visit is not None and env.session.day is not None
        visit, day, first = env.session.visit, env.session.day, env.session.steps == 0
        there = dict(zip(TIMES, (visit == 0, day < 7, day >= 21, day >= 0), strict=True))
        step = env.step_without_reset(policy.act(obs).items)
        for time, counts in there.items():
            counts = counts & alive
            sums[time] += step.streams[:, at] * counts.unsqueeze(1)
            visits[time] += counts & first
        alive &= ~(step.terminated | step.truncated)
        obs = step.obs
    return {time: (sums[time], visits[time]) for time in TIMES}


def rows(config: Config, count: int, trained: Mapping[str, Path]) -> list[Row]:
    assert isinstance(config.env_config, ShopConfig)
    without = replace(config, env_config=replace(config.env_config, reference_rate=0.0))
    return [row for one in (config, without) for row in _of_rate(one, count, trained)]


def _of_rate(config: Config, count: int, trained: Mapping[str, Path]) -> list[Row]:
    assert isinstance(config.env_config, ShopConfig)
    world = make_world(config)
    users = torch.arange(count) % len(world.population.user_ids)
    result: list[Row] = []
    policies: dict[str, Policy] = {}
    for discount in COUPONS:
        env = make_env(config, world, count, torch.Generator().manual_seed(0), training=False)
        assert isinstance(env, RecEnv)
        policies[f"always {100 * discount:g} %"] = Discounter(world, env, discount)
    policies |= {name: agent_of(load(path)) for name, path in trained.items()}
    firsts: dict[str, Tensor] = {}
    for name, policy in policies.items():
        env = make_env(config, world, count, torch.Generator().manual_seed(0), training=False)
        assert isinstance(env, RecEnv)
        for time, (sums, visits) in lives(env, policy, users).items():
            row: Row = {"reference_rate": config.env_config.reference_rate, "policy": name, "time": time}
            row |= {"users": count, "visits": float(visits.mean())}
            gains = sums - firsts.setdefault(time, sums)
            for end, values in (("", sums), ("_gain", gains)):
                width = 1.96 * values.std(0) / count**0.5
                for stream, mean, half in zip(STREAMS, values.mean(0).tolist(), width.tolist(), strict=True):
                    row |= {f"{stream}{end}": mean, f"{stream}{end}_half": half}
            result.append(row)
    return result


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--users", type=int, default=400)
    parser.add_argument("--policy", nargs="*", default=[], help="NAME=CHECKPOINT")
    args = tables.parse(parser, "shop_month")
    trained: dict[str, Path] = {}
    for text in args.policy:
        name, equals, path = text.partition("=")
        if not equals:
            raise UserError(f"--policy is {text!r}: give NAME=CHECKPOINT.")
        trained[name] = Path(path)
    sizes = {"discounts": True, "visits": 35}
    settings = {"algo": "ppo", "env": "shop", "env_config": sizes}
    if args.smoke:
        settings |= {"data_config": {"data": "synthetic", "num_users": 30}}
        settings["env_config"] = {**sizes, "num_items": 60, "max_episode_steps": 3, "visits": 4}
        args.users = 8
    tables.publish(rows(from_dict(Config, settings), args.users, trained), args)


if __name__ == "__main__":
    tables.run(main)
