"""Retention of PPO trained on whole lives and on single visits, on `short-video`.

    python -m benchmarks.once.lives [--seeds 2] [--first-seed 0] [--steps 300000] [--num-items 1000]
        [--visit-steps 200] [--lives 4] [--day-discounts 0 0.5]

Both have the same settings and number of steps, and the same observation; training on lives is repeated for
each of ``--day-discounts`` (default: the platform's). Each policy then plays several lives of 35 days with
each held-out user, and the mean over a user's lives counts. Intervals (95 %, Student's t) are over the users
of all seeds; the differences to single visits are paired by user.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import tables
from benchmarks.harness.turns import Row
from recsys_rl.checkpoint import load
from recsys_rl.env.short_video import ShortVideoConfig
from recsys_rl.evaluation.columns import active_days
from recsys_rl.experience.rollout import Sessions, play
from recsys_rl.make import agent_of, make_env
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.training.train import train
from recsys_rl.utils.metrics import interval

WHOLE = 35


def settings(args: Any, day_discount: float | None, seed: int) -> Config:
    """PPO on `short-video`, on whole lives with this discount of a day; None: on single visits."""
    sizes: dict[str, Any] = {"num_items": args.num_items, "max_episode_steps": args.visit_steps}
    if day_discount is not None:
        sizes |= {"visits": WHOLE, "day_discount": day_discount}
    fields: dict[str, Any] = {
        "env": "short-video",
        "env_config": sizes,
        "train_config": {"total_timesteps": args.steps, "eval_interval": 0, "seed": seed},
    }
    if args.smoke:
        fields["data_config"] = {"data": "synthetic", "num_users": 40}
        fields["env_config"] |= {"embedding_dim": 4}
        fields["agent_config"] = {"num_envs": 8, "n_steps": 32, "batch_size": 64}
    return from_dict(Config, fields)


def lives(config: Config, number: int) -> Sessions:
    """Train, and play this number of whole lives with each held-out user, one user after another."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = load(train(config, folder=Path(folder) / "run", quiet=True))
    world = checkpoint.world
    users, seed = world.population.heldout.repeat_interleave(number), config.train_config.seed
    lifelong = from_dict(
        Config, {"env": config.env, "env_config": {**vars(config.env_config), "visits": WHOLE}}
    )
    env = make_env(lifelong, world, len(users), torch.Generator().manual_seed(seed), heldout=True)
    return play(env, agent_of(checkpoint), users).summed()


def row(name: str, samples: list[torch.Tensor]) -> Row:
    """Mean and interval of the values (n,) of the users of each seed."""
    estimate = interval(torch.cat(samples))
    return {"value": name, "mean": estimate.mean, "low": estimate.low, "high": estimate.high}


def columns(sessions: Sessions, number: int) -> dict[str, torch.Tensor]:
    """Numbers (U,) of the users, each the mean over their ``number`` lives."""
    assert sessions.days is not None
    measures = {f"D{day}": (sessions.days == day).any(0) for day in (1, 7, 30)}
    measures |= {
        "churn": sessions.left,
        "active days": active_days(sessions.days),
        "return of a life": sessions.returns,
        "videos of a visit": sessions.lengths / active_days(sessions.days),
    }
    return {name: values.double().view(-1, number).mean(1) for name, values in measures.items()}


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=300_000, help="of each training")
    parser.add_argument("--num-items", type=int, default=1000)
    parser.add_argument("--visit-steps", type=int, default=200, help="most videos of a visit")
    parser.add_argument("--lives", type=int, default=4, help="of each held-out user")
    parser.add_argument("--day-discounts", type=float, nargs="+", default=[ShortVideoConfig.day_discount])
    args = tables.parse(parser, "lives", folder=Path(__file__).parent)
    torch.set_num_threads(args.threads or 1)
    if args.smoke:
        args.seeds, args.steps, args.num_items, args.visit_steps, args.lives = 1, 512, 20, 4, 2
    trained = {"single visits": None} | {
        f"lives, a day {discount:g}": discount for discount in args.day_discounts
    }
    rows: list[Row] = []
    by_kind: dict[str, dict[str, list[torch.Tensor]]] = {}
    for kind, day_discount in trained.items():
        values: dict[str, list[torch.Tensor]] = {}
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            sessions = lives(settings(args, day_discount, seed), args.lives)
            of_users = columns(sessions, args.lives)
            for name, measured in of_users.items():
                values.setdefault(name, []).append(measured)
            means = {name: round(measured.mean().item(), 3) for name, measured in of_users.items()}
            print(kind, "seed", seed, means, flush=True)
        by_kind[kind] = values
        rows += [{"trained": kind, **row(name, samples)} for name, samples in values.items()]
    for kind in list(trained)[1:]:
        for name, single in by_kind["single visits"].items():
            gap = [one - two for one, two in zip(by_kind[kind][name], single, strict=True)]
            rows.append({"trained": f"{kind} - single visits", **row(name, gap)})
    tables.publish(rows, args)


if __name__ == "__main__":
    tables.run(main)
