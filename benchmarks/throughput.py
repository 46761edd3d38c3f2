"""Environment steps per second of training: ours and each peer on the same environment, network, settings.

    python -m benchmarks.throughput [--rounds 3] [--threads N] [--original DIR] [--json FILE] [--csv FILE]
    python -m benchmarks.throughput --smoke

Everybody trains PPO on `drift` with 1,000 synthetic items, networks [128, 64] with tanh and one logit
per item, a separate critic, Adam, and the same rollout, minibatch and epochs; peers see our batched
environment through the vector interface of their own (one file each in benchmarks/peers/), in a process
of its own. Peers come with `pip install -e ".[peers]"`. The repository that the
formulation is from has one set of settings; --original names a checkout of it (benchmarks/peers/original.py).

"floor" is the matrix products alone, measured in the same rounds: each sample's forward passes, and
in the update the backward passes, which have two products to each of the forward pass (one in the
first layer, whose inputs need no gradient). ``update_share_of_floor`` is the floor's seconds of an
update divided by the seconds that ``agent.update`` took, and ``rollout_share_of_floor`` the same of
``collect``. --threads is for torch; SBX's JAX chooses its own.

"flagship" is our own path, with its presets and without peers: `satiation`, the two-tower head over
sums of the session's history. Its floor has the products of the update alone, and is measured in turns
with the updates, in the same process. ``share_low`` and ``share_high`` are the range of
``update_share_of_floor`` over the rounds.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import tables, turns
from benchmarks.harness.settings import HIDDEN, SB3_DEFAULTS, Settings, Train
from benchmarks.harness.turns import Row, System
from benchmarks.harness.world import World, make_world
from benchmarks.peers import PEERS, seconds_per_update
from benchmarks.peers.original import WHERE, check, original
from benchmarks.peers.ours import our_agent, time_cycles
from recsys_rl.agents.ppo import PPOConfig
from recsys_rl.models.encoders import SessionSum
from recsys_rl.models.item_columns import item_features
from recsys_rl.models.towers import TOWER_SIZE
from recsys_rl.settings.shared import ModelConfig
from recsys_rl.types import UserError


def settings(num_envs: int, n_steps: int, batch_size: int, update_epochs: int, updates: int) -> Settings:
    """``updates`` are timed, after one that is not. Those that cost no time are Stable-Baselines3's."""
    ppo = replace(
        SB3_DEFAULTS,
        num_envs=num_envs,
        n_steps=n_steps,
        batch_size=batch_size,
        update_epochs=update_epochs,
    )
    return Settings(ppo, total_steps=(1 + updates) * num_envs * n_steps)


SETTINGS = {"batched": settings(64, 32, 512, 4, updates=8), "original": settings(8, 256, 64, 10, updates=4)}
SMOKE = {"batched": settings(4, 8, 16, 1, updates=1)}


def ours(world: World, settings: Settings) -> Row:
    """Our trainer without its log, with the network that all peers have."""
    return timed(
        world, settings, ModelConfig(head="dense", hidden_dims=HIDDEN, activation=settings.activation)
    )


def flagship(world: World, settings: Settings) -> Row:
    """Our trainer without its log, with the network of the preset, in turns with its update's products."""
    products: list[float] = []
    row = timed(
        world, settings, world.config.model_config, lambda: products.append(flagship_floor(world, settings))
    )
    floor_s = statistics.mean(products[1:])  # of the updates that are timed
    return row | {
        "floor_steps_per_s": settings.per_update / floor_s,
        "update_share_of_floor": floor_s / row["update_s"],
    }


def timed(
    world: World, settings: Settings, model_config: ModelConfig, between: Callable[[], None] = lambda: None
) -> Row:
    env = world.env(settings.ppo.num_envs, seed=0)
    agent = our_agent(env, settings, 0, model_config)
    rollout_s, update_s = time_cycles(env, agent, settings, between)
    cycles = settings.num_updates - 1
    return {
        "steps_per_s": cycles * settings.per_update / (rollout_s + update_s),
        "rollout_s": rollout_s / cycles,
        "update_s": update_s / cycles,
    }


def peer(train: Train, world: World, settings: Settings) -> Row:
    env = world.env(settings.ppo.num_envs, seed=0)
    return {"steps_per_s": settings.per_update / seconds_per_update(train, env, settings)}


def floor(world: World, settings: Settings) -> Row:
    """Seconds of the matrix products of one rollout and one update, and steps per second of the two."""
    first, second = (world.config.env_config.state_dim, HIDDEN[0]), HIDDEN
    last = (HIDDEN[1], world.catalogue.num_items)
    passes = settings.ppo.update_epochs * settings.per_update / settings.ppo.batch_size
    rollout_s = update_s = 0.0
    for inputs, outputs in (first, second, last, first, second):  # of the actor, and of the critic
        x, w = torch.randn(settings.ppo.num_envs, inputs), torch.randn(outputs, inputs)
        rollout_s += settings.ppo.n_steps * _seconds(torch.mm, x, w.T)
        x = torch.randn(settings.ppo.batch_size, inputs)
        y = torch.randn(settings.ppo.batch_size, outputs)
        update_s += passes * (_seconds(torch.mm, x, w.T) + _seconds(torch.mm, y.T, x))
        if (inputs, outputs) != first:  # the observation needs no gradient
            update_s += passes * _seconds(torch.mm, y, w)
    steps_per_s = settings.per_update / (rollout_s + update_s)
    return {"steps_per_s": steps_per_s, "rollout_s": rollout_s, "update_s": update_s}


def flagship_floor(world: World, settings: Settings) -> float:
    """Seconds of the matrix products of one update of the two-tower network over sums of the history."""
    config, batch = world.config, settings.ppo.batch_size
    hidden, length = config.model_config.hidden_dims, config.env_config.max_episode_steps
    num_items, features = item_features(world.catalogue).shape
    num_sums, tower = 2 * len(SessionSum.DECAYS), features + TOWER_SIZE
    sums = torch.randn(batch, num_sums, length), torch.randn(batch, length, features)
    # Forwards, and backwards for the weights of the sums: features need no gradient.
    one_pass = _seconds(torch.bmm, *sums)
    one_pass += _seconds(torch.bmm, torch.randn(batch, num_sums, features), sums[1].mT)
    first = config.env_config.state_dim + num_sums * features
    of_batch = [(first, hidden[0]), *itertools.pairwise(hidden)]  # of the actor, and of the critic
    of_batch = [*of_batch, *of_batch, (hidden[-1], 1), (hidden[-1], tower), (tower, num_items)]
    for inputs, outputs in of_batch:
        x, w, y = torch.randn(batch, inputs), torch.randn(inputs, outputs), torch.randn(batch, outputs)
        one_pass += _seconds(torch.mm, x, w) + _seconds(torch.mm, x.T, y) + _seconds(torch.mm, y, w.T)
    x, w, y = (
        torch.randn(*size)
        for size in ((num_items, features), (features, TOWER_SIZE), (num_items, TOWER_SIZE))
    )
    one_pass += _seconds(torch.mm, x, w) + _seconds(torch.mm, x.T, y)
    return settings.ppo.update_epochs * settings.per_update / batch * one_pass


def _seconds(work: Callable[..., Any], *arguments: Any, times: int = 30) -> float:
    for _ in range(5):
        work(*arguments)
    started = time.perf_counter()
    for _ in range(times):
        work(*arguments)
    return (time.perf_counter() - started) / times


def table(
    world: World,
    name: str,
    settings: Settings,
    rounds: int,
    way: Callable[..., Row],
    folder: Path | None = None,
) -> tuple[list[Row], float]:
    """The rows of one set of settings, and the floor's steps per second. ``folder`` holds the original."""
    systems = [
        System("floor", name, "torch", "recsys_rl", floor),
        System("recsys_rl", name, "recsys-rl", "recsys_rl", ours),
        *(System(key, name, of.package, of.module, partial(peer, of.train)) for key, of in PEERS.items()),
    ]
    if name == "original":
        systems.append(System("original", name, "the original", "torch", partial(original, folder)))
    least, own, *others = rows = turns.interleaved(systems, rounds, world, settings, way=way)
    for phase in ("rollout", "update"):
        own[f"{phase}_share_of_floor"] = least[f"{phase}_s"] / own[f"{phase}_s"]
    turns.add_ratios(rows, own["steps_per_s"])
    return [row | {"floor_steps_per_s": least["steps_per_s"]} for row in (own, *others)], least["steps_per_s"]


def flagship_run(updates: int) -> tuple[World, Settings]:
    """`satiation` and the preset's settings; ``updates`` are timed, after one that is not."""
    world = make_world(seed=0, env="satiation")
    ppo = world.config.agent_config
    assert isinstance(ppo, PPOConfig)
    return world, Settings(ppo, total_steps=(1 + updates) * ppo.num_envs * ppo.n_steps)


def own_table(world: World, settings: Settings, rounds: int, way: Callable[..., Row]) -> Row:
    """The row of the flagship, and the range of its share over the rounds."""
    system = System("recsys_rl", "flagship", "recsys-rl", "recsys_rl", flagship)
    rows = [way(system, world, settings) for _ in range(rounds)]
    shares = [row["update_share_of_floor"] for row in rows]
    row = turns.first_columns(system) | turns.medians(rows) | {"ours_over_it": 1.0}
    return row | {"share_low": min(shares), "share_high": max(shares)}


def main() -> None:
    made = tables.parser(__doc__)
    made.add_argument("--original", type=Path, metavar="DIR", help=f"{WHERE}, to be timed as well")
    args = tables.parse(made, "throughput")
    if args.smoke and args.original is not None:
        raise UserError("--smoke has no settings of the original's: leave --original out.")
    check(args.original)
    world = make_world(seed=0)
    rounds, way = (1, turns.attempt) if args.smoke else (args.rounds, turns.apart)
    rows: list[Row] = []
    floors: dict[str, float] = {}
    for name, settings in (SMOKE if args.smoke else SETTINGS).items():
        of_table, floors[name] = table(world, name, settings, rounds, way, args.original)
        rows += of_table
    rows.append(own_table(*flagship_run(updates=1 if args.smoke else 6), rounds, way))
    tables.publish(rows, args, floor_steps_per_s=floors["batched"])


if __name__ == "__main__":
    tables.run(main)
