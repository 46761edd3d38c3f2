"""What does `expert` gain from the hidden stock that it follows?

    python -m benchmarks.expert satiation short-video long-video --seeds 0-4 [--steps 100000]

For each platform and seed, the numbers of its `expert` are searched twice with PPO's steps of training users:
as it is, and with the hidden stock of its walk held at the start of the session (patience, trust). Both then
play the held-out users. If following the stock pays, the second earns less. `gain` is paired by user (95 %).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.experts.form import Expert
from benchmarks.experts.policy import EXPERTS, ByEquations, search_expert
from benchmarks.harness import tables
from benchmarks.harness.turns import Row
from recsys_rl.evaluation.rivals.tuning import Trainees, training_part
from recsys_rl.experience.rollout import Sessions, play
from recsys_rl.make import make_env, make_user_model, make_world
from recsys_rl.protocols import Env
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.types import Population, UserError, World
from recsys_rl.utils.allocator import keep_freed_memory
from recsys_rl.utils.metrics import interval
from recsys_rl.utils.seeding import generators, parse_seeds

PLATFORMS = ("satiation", "short-video", "long-video")


def training_env(config: Config, world: World, people: Population, count: int, noise: torch.Generator) -> Env:
    trained_on = World(world.catalogue, people)
    return make_env(config, trained_on, count, noise, training=False)


def played(config: Config, world: World, expert: Expert, budget: int) -> tuple[Sessions, dict[str, Tensor]]:
    """Sessions of the held-out users, with the numbers that ``budget`` steps of training users find."""
    users, people = world.population.heldout, training_part(world.population)
    noise = torch.Generator().manual_seed(config.train_config.seed)
    env = make_env(config, world, len(users), noise, heldout=True, training=False)
    model, interface = make_user_model(config, world), env.interface
    stream = generators(0, "expert")["expert"]  # as in a table
    trainees = Trainees(partial(training_env, config, world), world.catalogue, people, interface, stream)
    values, _ = search_expert(trainees, expert, model, budget)
    numbers = dict(zip(expert.numbers, values.unbind(), strict=True))
    agent = ByEquations(expert, model, world.catalogue, interface, numbers)
    return play(env, agent, users), numbers


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("platforms", nargs="*", default=PLATFORMS)
    parser.add_argument("--seeds", type=parse_seeds, default="0-4", help="as in 0-4 or 0,3,7 (default: 0-4)")
    parser.add_argument("--steps", type=int, help="of each search (default: PPO's)")
    parser.add_argument("--only", choices=["followed", "held"], help="one of both")
    args = tables.parse(parser, "expert")
    torch.set_num_threads(args.threads or 1)
    keep_freed_memory()
    rows: list[Row] = []
    for name in args.platforms:
        for seed in args.seeds:
            rows += rows_of(name, seed, args)
    tables.publish(rows, args)


def rows_of(name: str, seed: int, args: argparse.Namespace) -> list[Row]:
    settings = {"env": name, "train_config": {"seed": seed}}
    if args.smoke:
        settings |= {
            "env_config": {"num_items": 60, "max_episode_steps": 4},
            "data_config": {"data": "synthetic", "num_users": 50},
        }
    config = from_dict(Config, settings)
    world, expert = make_world(config), EXPERTS.get(config.platform.users)
    if expert is None or expert.walk is None:
        raise UserError(f"No walk follows a stock on {name}: choose from {', '.join(PLATFORMS)}.")
    forms = {"followed": expert, "held": replace(expert, walk=expert.walk.held())}
    budget = 500 if args.smoke else args.steps or config.train_config.total_timesteps
    rows: list[Row] = []
    first: Tensor | None = None
    for form, its in forms.items():
        if args.only not in (None, form):
            continue
        started = time.process_time()
        sessions, numbers = played(config, world, its, budget)
        earned = interval(sessions.returns)
        row: Row = {
            "env": name,
            "seed": seed,
            "stock": expert.walk.stock,
            "walk": form,
            "steps": budget,
            "return_mean": earned.mean,
            "return_low": earned.low,
            "return_high": earned.high,
            "length_mean": sessions.lengths.float().mean().item(),
            "cpu_seconds": time.process_time() - started,
            "numbers": ", ".join(f"{key} {value.item():.3g}" for key, value in numbers.items()),
        }
        if first is None:
            first = sessions.returns
        else:
            gain = interval(first - sessions.returns)
            row |= {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high}
        rows.append(row)
        print(row, flush=True)
    return rows


if __name__ == "__main__":
    tables.run(main)
