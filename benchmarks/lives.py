"""Retention of PPO trained on whole lives and on single visits, on `short-video`.

    python -m benchmarks.lives [--seeds 2] [--steps 300000] [--num-items 1000] [--visit-steps 200]

Both have the same settings and number of steps, and the same observation. Each then plays one life of 35
days with each held-out user, with the same noise. Intervals (95 %, Student's t) are over the users of all
seeds; the difference is paired by user.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import tables
from benchmarks.harness.turns import Row
from recsys_rl.checkpoint import load
from recsys_rl.config import Config, from_dict
from recsys_rl.evaluation.lives import active_days
from recsys_rl.experience.rollout import Sessions, play
from recsys_rl.make import make_env
from recsys_rl.run import agent_of
from recsys_rl.utils.metrics import interval
from recsys_rl.workflows.train import train

WHOLE = 35


def settings(args: Any, visits: int, seed: int) -> Config:
    """PPO on `short-video` with episodes of that many visits."""
    sizes = {"num_items": args.num_items, "max_episode_steps": args.visit_steps, "visits": visits}
    found: dict[str, Any] = {
        "env": "short-video",
        "env_config": sizes,
        "train_config": {"total_timesteps": args.steps, "eval_interval": 0, "seed": seed},
    }
    if args.gamma is not None:
        found["agent_config"] = {"gamma": args.gamma}
    if args.smoke:
        found["data_config"] = {"data": "synthetic", "num_users": 40}
        found["env_config"] |= {"embedding_dim": 4}
        found["agent_config"] = {"num_envs": 8, "n_steps": 32, "batch_size": 64}
    return from_dict(Config, found)


def lives(config: Config) -> Sessions:
    """Train, and play one whole life with each held-out user."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = load(train(config, folder=Path(folder) / "run", quiet=True))
    world = checkpoint.world
    users, seed = world.population.heldout, config.train_config.seed
    whole = from_dict(Config, {"env": config.env, "env_config": {**vars(config.env_config), "visits": WHOLE}})
    env = make_env(whole, world, len(users), torch.Generator().manual_seed(seed), heldout=True)
    return play(env, agent_of(checkpoint), users).summed(0)


def row(name: str, samples: list[torch.Tensor]) -> Row:
    """Mean and interval of the values (n,) of the users of each seed."""
    found = interval(torch.cat([x.double() for x in samples]))
    return {"value": name, "mean": found.mean, "low": found.low, "high": found.high}


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300_000, help="of each training")
    parser.add_argument("--num-items", type=int, default=1000)
    parser.add_argument("--visit-steps", type=int, default=200, help="most videos of a visit")
    parser.add_argument("--gamma", type=float, help="discount of both, in place of the preset")
    args = tables.parse(parser, "lives")
    torch.set_num_threads(args.threads or 1)
    if args.smoke:
        args.seeds, args.steps, args.num_items, args.visit_steps = 1, 512, 20, 4
    rows: list[Row] = []
    found: dict[str, dict[str, list[torch.Tensor]]] = {}
    for trained, visits in (("single visits", 1), ("whole lives", WHOLE)):
        values: dict[str, list[torch.Tensor]] = {}
        for seed in range(args.seeds):
            sessions = lives(settings(args, visits, seed))
            assert sessions.days is not None
            of_users = {f"D{day}": (sessions.days == day).any(0).double() for day in (1, 7, 30)}
            of_users |= {
                "churn": sessions.left.double(),
                "active days": active_days(sessions.days).double(),
                "return of a life": sessions.returns,
                "videos of a visit": sessions.lengths / active_days(sessions.days),
            }
            for name, x in of_users.items():
                values.setdefault(name, []).append(x)
            print(
                trained,
                "seed",
                seed,
                {name: round(x.mean().item(), 3) for name, x in of_users.items()},
                flush=True,
            )
        found[trained] = values
        rows += [{"trained": trained, **row(name, x)} for name, x in values.items()]
    single, whole = found["single visits"], found["whole lives"]
    for name, ours in whole.items():
        gap = [one.double() - two.double() for one, two in zip(ours, single[name], strict=True)]
        rows.append({"trained": "whole lives - single visits", **row(name, gap)})
    tables.publish(rows, args)


if __name__ == "__main__":
    tables.run(main)
