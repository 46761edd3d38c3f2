"""What a larger catalogue costs: 1,000 to 1,000,000 clustered items on `drift`, by a two-stage policy.

    python -m benchmarks.catalogue [--rounds 3] [--threads N] [--json FILE] [--csv FILE] [--smoke]
    python -m benchmarks.catalogue --curve FILE.svg [--seeds 3]

The first form times whole training cycles (rollout and update) with the same settings at every size: 64
users x 32 steps, minibatches of 256, 4 epochs, networks [128, 64], 64 candidates of which 16 are
drawn, item embeddings of size 256, in a memory-mapped table. ``ms_per_step`` is the time of a cycle
divided by its 32 steps of all users, ``rollout_ms`` and ``update_ms`` its parts, ``times_smallest``
how much of it the smallest catalogue costs. Each size has a process of its own and tells its peak
resident memory, mapped pages of the table included: ``rss_over_table`` is that divided by the table's
size, and ``above_bare_over_table`` the same without what `import torch` alone takes (``bare_mb``).
``index_s`` is what building the index took, once, before the clock starts. Stable-Baselines3
(`pip install -e ".[peers]"`) has one logit per item, and goes as far as its tensors let it.

The second form trains on 1,000,000 items with embeddings of size 32, the default, and writes what
share of the optimum held-out users get, over steps and for each seed, and beside it the share of `mf`,
the ranking by profile without learning. The optimum is exact, by a look at all items in blocks. Its
rows go to benchmarks/results/million.csv.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import tables, turns
from benchmarks.harness.memory import peak_mb
from benchmarks.harness.settings import Settings
from benchmarks.harness.turns import Row, System
from benchmarks.harness.world import World
from benchmarks.peers import PEERS, seconds_per_update
from benchmarks.peers.ours import our_agent, time_cycles
from recsys_rl.agents.ppo import PPOConfig
from recsys_rl.env.drift import best_return
from recsys_rl.evaluation.report.learning_curve import learning_curve_svg
from recsys_rl.evaluation.rivals.rankers import Rule, RuleWeights
from recsys_rl.experience.rollout import collect, play
from recsys_rl.make import make_world
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.settings.shared import ModelConfig
from recsys_rl.types import UserError
from recsys_rl.utils.metrics import interval

SIZES, SMOKE_SIZES = (1_000, 10_000, 100_000, 1_000_000), (200, 2_000)
PEER_LIMIT = 100_000  # of a million logits, a minibatch alone is a gigabyte, and an update holds several
NUM_HELDOUT = 256  # that the curve is measured on
MB = 1e6


def clustered(num_items: int, dim: int, seed: int, folder: str) -> World:
    settings = {
        "env": "drift",
        "data_config": {"data": "clustered", "cache_dir": folder},
        "env_config": {"num_items": num_items, "embedding_dim": dim},
        "train_config": {"seed": seed},
    }
    config = from_dict(Config, settings)
    return World(*make_world(config), config)


def settings_of(smoke: bool, updates: int) -> Settings:
    ppo = Config(algo="ppo", env="drift").agent_config
    assert isinstance(ppo, PPOConfig)
    ppo = replace(ppo, num_envs=8, n_steps=4, batch_size=16) if smoke else ppo
    return Settings(ppo, total_steps=updates * ppo.num_envs * ppo.n_steps, activation="relu")


# One size, in a process of its own.


def ours(world: World, settings: Settings, candidates: int) -> Row:
    env = world.env(settings.ppo.num_envs, seed=0)
    agent = our_agent(env, settings, 0, ModelConfig(candidates=candidates))
    started = time.perf_counter()
    assert agent.model.retriever is not None
    _ = agent.model.retriever.rows  # builds the index
    row: Row = {"index_s": time.perf_counter() - started}
    rollout_s, update_s = time_cycles(env, agent, settings)
    steps = (settings.num_updates - 1) * settings.ppo.n_steps
    row |= {"rollout_ms": 1e3 * rollout_s / steps, "update_ms": 1e3 * update_s / steps}
    return row | {"ms_per_step": 1e3 * (rollout_s + update_s) / steps}


def peer(world: World, settings: Settings, candidates: int) -> Row:
    env = world.env(settings.ppo.num_envs, seed=0)
    per_update = seconds_per_update(PEERS["stable-baselines3"].train, env, settings)
    return {"ms_per_step": 1e3 * per_update / settings.ppo.n_steps}


MEASURES = {"recsys_rl": ours, "stable-baselines3": peer}


def worker(order: str) -> None:
    """Measure what the JSON ``order`` says, and print the row as JSON."""
    system, num_items, smoke, updates, dim, candidates, threads, folder = json.loads(order)
    if threads:
        torch.set_num_threads(threads)
    world = clustered(num_items, dim, 0, folder)
    settings = settings_of(smoke, updates)
    row = MEASURES[system](world, settings, candidates)
    row["steps_per_s"] = 1e3 * settings.ppo.num_envs / row["ms_per_step"]
    print(json.dumps(row | {"num_items": num_items, "rss_mb": peak_mb()}))


def apart(code: str, *arguments: str) -> str:
    """Standard output of that Python in a process of its own."""
    here = {"PYTHONPATH": str(tables.ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=os.environ | here, capture_output=True, text=True
    )
    if done.returncode:
        last_line = (done.stderr.strip().splitlines() or [""])[-1]
        raise RuntimeError(last_line or f"ended by signal {-done.returncode}, as when memory runs out")
    return done.stdout


def measured(system: str, num_items: int, order: Sequence[Any]) -> Row:
    """One round of one size; a peer's steps are so long where items are many that one update is enough."""
    smoke, updates, *rest = order
    if system != "recsys_rl":
        updates = 2
        if num_items > PEER_LIMIT:
            return {"note": f"not run: over {PEER_LIMIT} items its logits outgrow the memory"}
    code = "import sys; from benchmarks.catalogue import worker; worker(sys.argv[1])"
    output = apart(code, json.dumps([system, num_items, smoke, updates, *rest]))
    row: Row = json.loads(output.splitlines()[-1])
    print(f"{system}, {num_items:,} items: {row['ms_per_step']:.1f} ms a step", file=sys.stderr, flush=True)
    return row


def cost(args: Any, folder: str) -> tuple[list[Row], float]:
    """The table, all its rows measured by turns, and the resident memory of `import torch` alone."""
    updates, dim, candidates, rounds = (2, 8, 16, 1) if args.smoke else (4, 256, 64, args.rounds)
    bare_mb = float(apart("import torch; from benchmarks.harness.memory import peak_mb; print(peak_mb())"))
    sb3 = PEERS["stable-baselines3"]
    systems = [
        System(name, f"I={size}", package, module, partial(measured, name, size))
        for size in (SMOKE_SIZES if args.smoke else SIZES)
        for name, package, module in (
            ("recsys_rl", "recsys-rl", "recsys_rl"),
            ("stable-baselines3", sb3.package, sb3.module),
        )
    ]
    rows = turns.interleaved(systems, rounds, (args.smoke, updates, dim, candidates, args.threads, folder))
    smallest: dict[str, float] = {}
    for row in rows:
        if row["steps_per_s"]:
            table_mb = 4 * row["num_items"] * dim / MB
            least = smallest.setdefault(row["system"], row["ms_per_step"])
            row["times_smallest"] = row["ms_per_step"] / least
            row |= {"table_mb": table_mb, "rss_over_table": row["rss_mb"] / table_mb}
            row["above_bare_over_table"] = (row["rss_mb"] - bare_mb) / table_mb
    return rows, bare_mb


# The curve.


def learning(seed: int, smoke: bool, folder: str) -> list[Row]:
    """Train as `recsys-rl train` does, and look at held-out users every few updates."""
    num_items, candidates = (2_000, 16) if smoke else (1_000_000, 64)
    settings = settings_of(smoke, 4 if smoke else 48)
    world = clustered(num_items, Config(algo="ppo", env="drift").env_config.embedding_dim, seed, folder)
    heldout = world.population.heldout[:NUM_HELDOUT]
    best = best_return(world.population.profile[heldout], world.catalogue.embedding, world.config.env_config)
    ranking = Rule(world.catalogue, RuleWeights.zeros())
    by_profile = play(world.env(len(heldout), seed, heldout=True), ranking, heldout, greedy=True).returns
    env = world.env(settings.ppo.num_envs, seed)
    agent = our_agent(env, settings, seed, ModelConfig(candidates=candidates))
    obs, rows, seconds = env.reset(), [], 0.0
    for update in range(settings.num_updates + 1):
        if update % (1 if smoke else 4) == 0:
            row: Row = {"system": "recsys_rl", "settings": f"seed {seed}", "num_items": num_items}
            row |= {"step": update * settings.per_update, "seconds": seconds}
            for name, greedy in (("share_of_oracle", False), ("greedy_share_of_oracle", True)):
                returns = play(world.env(len(heldout), seed, heldout=True), agent, heldout, greedy).returns
                row[name] = (returns.sum() / best.sum()).item()
            row["mf_share_of_oracle"] = (by_profile.sum() / best.sum()).item()
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
        if update < settings.num_updates:
            started = time.perf_counter()
            rollout, obs = collect(env, agent, obs, settings.ppo.n_steps)
            agent.update(rollout)
            seconds += time.perf_counter() - started
    return rows


def draw(rows: Sequence[Row], path: Path) -> None:
    """The greedy policy's share, mean and 95 % interval over seeds."""
    steps = sorted({row["step"] for row in rows})
    shares = [[r["greedy_share_of_oracle"] for r in rows if r["step"] == step] for step in steps]
    estimates = [interval(torch.tensor(values)) for values in shares]
    references = {"oracle": 1.0, "mf": statistics.mean(row["mf_share_of_oracle"] for row in rows)}
    curve = {"step": steps} | {
        name: [getattr(estimate, name) for estimate in estimates] for name in ("mean", "low", "high")
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(learning_curve_svg(curve, references, name="ppo-greedy"))
    except OSError as error:
        raise UserError(
            f"--curve {path} can't be written ({error.strerror}): choose another place."
        ) from error


def main() -> None:
    made = tables.parser(__doc__)
    made.add_argument("--curve", type=Path, help="measure the learning curve instead, and draw it here")
    made.add_argument("--seeds", type=int, default=3, help="of the curve")
    args = tables.parse(made, "catalogue")
    if args.curve is not None and args.csv == tables.RESULTS / "catalogue.csv":
        args.csv = args.csv.with_name("million.csv")  # its rows are of another kind
    with tempfile.TemporaryDirectory() as folder:
        if args.curve is None:
            rows, bare_mb = cost(args, folder)
            tables.publish(rows, args, bare_mb=bare_mb)
        else:
            seeds = 2 if args.smoke else args.seeds
            rows = [row for seed in range(seeds) for row in learning(seed, args.smoke, folder)]
            draw(rows, args.curve)
            tables.publish(rows, args)


if __name__ == "__main__":
    tables.run(main)
