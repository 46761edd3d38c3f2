"""Users stepped per second by the simulators alone, with random actions.

    python -m benchmarks.simulator [--rounds 3] [--threads N] [--only SETTINGS ...] [--json FILE] [--csv FILE]
                                   [--smoke]

Ours is `satiation` on 1,000 synthetic items: ``RecEnv.step`` with everything it normally gives back
(observations with history, feedback, autoreset), for N = 4,096 and N = 64 users, on items drawn
uniformly anew for each step. One step of N users counts N. The drawing is part of the time, for all.
The rows `short-video`, `long-video`, `social-feed`, `shop` and `tutor` are the same for these platforms with
N = 4,096; the slates of `long-video` have six items, drawn without repetition. ``--only short-video
long-video`` measures these alone.

Each row also has the steps per second of processor time, which other work on the machine affects less. With
more than one thread this time includes that of threads that wait for each other.

The peers step one user at a time, so theirs are steps and resets of one environment:

- RecSim (`pip install recsim-no-tf`, the package without TensorFlow): its interest evolution and its
  long-term satisfaction environment, made as its tutorials make them (10 candidates, drawn anew at
  each step) but with slates of 1. It scores 10 candidates where ours has a catalogue of 1,000.
- SARDINE (`pip install sardine-rec`): `sardine/SingleItem-BoredInf-v0`, one item a step out of 1,000,
  and users who get bored of what they saw and change: its configuration nearest to `satiation`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from benchmarks.harness import tables, turns
from benchmarks.harness.turns import Row, System
from benchmarks.harness.world import World, make_world
from recsys_rl.utils.allocator import keep_freed_memory

WARM_UP = 0.1  # share of the seconds, spent before the clock starts


def ours(num_envs: int, world: World, seconds: float) -> Row:
    keep_freed_memory()
    env = world.env(num_envs, seed=0)
    generator = torch.Generator().manual_seed(0)
    env.reset()

    def step() -> int:
        env.step(random_slates(world.catalogue.num_items, num_envs, env.interface.slate_size, generator))
        return num_envs

    with torch.inference_mode():
        return per_second(step, seconds)


def random_slates(num_items: int, num_envs: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """(N, K) int64 items drawn uniformly, none twice in a slate.

    Each place is drawn from the items that the places before it have left: a number counts up past each of
    these that is at most as large, the smallest first.
    """
    slates = torch.randint(num_items, (num_envs, 1), generator=generator)
    for index in range(1, size):
        drawn = torch.randint(num_items - index, (num_envs,), generator=generator)
        for taken in slates.sort(1).values.unbind(1):
            drawn = drawn + (drawn >= taken)
        slates = torch.cat([slates, drawn.unsqueeze(1)], 1)
    return slates


def platform(env: str, num_envs: int, world: World, seconds: float) -> Row:
    """``ours`` on another platform, with as many items and users as ``world``."""
    users = len(world.population.user_ids)
    return ours(num_envs, make_world(0, world.catalogue.num_items, users, env), seconds)


def recsim(environment: str, world: World, seconds: float) -> Row:
    import importlib

    made = importlib.import_module(f"recsim.environments.{environment}").create_environment(
        {"num_candidates": 10, "slate_size": 1, "resample_documents": True, "seed": 0}
    )
    rng = np.random.default_rng(0)
    made.reset()

    def step() -> int:
        done = made.step(rng.integers(10, size=1))[2]
        if done:
            made.reset()
        return 1

    return per_second(step, seconds)


def sardine(environment: str, world: World, seconds: float) -> Row:
    import gymnasium
    import sardine as package  # noqa: F401  (registers its environments)

    made = gymnasium.make(f"sardine/{environment}", disable_env_checker=True)  # the checker costs time
    rng = np.random.default_rng(0)
    made.reset(seed=0)

    def step() -> int:
        _, _, terminated, truncated, _ = made.step(rng.integers(1000, size=1))
        if terminated or truncated:
            made.reset()
        return 1

    return per_second(step, seconds)


def per_second(step: Callable[[], int], seconds: float) -> Row:
    """Users stepped per second, and per second of processor time; ``step`` returns how many it stepped."""
    _run(step, WARM_UP * seconds)
    started, worked = time.perf_counter(), time.process_time()
    users = _run(step, seconds)
    passed, work = time.perf_counter() - started, time.process_time() - worked
    return {"steps_per_s": users / passed, "steps_per_cpu_s": users / work}


def _run(step: Callable[[], int], seconds: float) -> int:
    users, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        users += step()
    return users


OTHERS = ("short-video", "long-video", "social-feed", "shop", "tutor")
RECSIM, SARDINE = ("interest_evolution", "long_term_satisfaction"), "SingleItem-BoredInf-v0"
SYSTEMS = [
    *(System("recsys_rl", f"N={n}", "recsys-rl", "recsys_rl", partial(ours, n)) for n in (4096, 64)),
    *(System("recsys_rl", env, "recsys-rl", "recsys_rl", partial(platform, env, 4096)) for env in OTHERS),
    *(System("recsim", name, "recsim-no-tf", "recsim", partial(recsim, name)) for name in RECSIM),
    System("sardine", SARDINE, "sardine-rec", "sardine", partial(sardine, SARDINE)),
]


def main() -> None:
    parser = tables.parser(__doc__)
    names = [system.settings for system in SYSTEMS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="measure these rows alone")
    args = tables.parse(parser, "simulator")
    world = make_world(seed=0, env="satiation")
    rounds, seconds = (1, 0.2) if args.smoke else (args.rounds, 3.0)
    way = turns.attempt if args.smoke else turns.apart
    chosen = [system for system in SYSTEMS if system.settings in args.only]
    rows = turns.interleaved(chosen, rounds, world, seconds, way=way)
    if chosen[0] is SYSTEMS[0]:
        turns.add_ratios(rows, rows[0]["steps_per_s"])
    tables.publish(rows, args)


if __name__ == "__main__":
    tables.run(main)
