"""Seconds and steps of training until strangers get 0.90 and 0.95 of what the oracle would give them.

    python -m benchmarks.time_to_quality [--seeds 5] [--budget 1000000] [--only SYSTEM[/SETTINGS] ...]
                                         [--threads N] [--json FILE] [--csv FILE] [--smoke]

`drift` with 1,000 synthetic items; a seed changes items, users, weights and all noise, and systems
take turns on each seed. The mean return of one session of each held-out user is compared with the
optimum, which is known in closed form (``recsys_rl.env.drift.best_return``), for the sampled and for
the greedy policy. That is looked at every 2,048 steps (every update, where one is longer), and later
whenever the run has grown by 2 %. Nothing is chosen by these looks but when to stop: when both
policies have reached both levels, or when the budget is spent.

Seconds are those of training from the first rollout on: compilation counts, while evaluation,
imports, logs and checkpoints do not. A row has medians over seeds, where a seed that never got there
counts as never, the range over the seeds that did, and how many did.

Who is compared, all with networks [128, 64]:

- ours with the preset of `recsys-rl train` as it stands (two-tower head, 100,000 steps), and ours with
  one logit per item, as the peers have it, over the whole budget;
- each peer at our settings (the preset's, annealed over the whole budget), with ReLU;
- each peer at settings that its own pages give for PPO on discrete actions, with tanh: Stable-Baselines3's
  and SBX's defaults (as 8 users x 256 steps) and the tuned ones of rl-baselines3-zoo for CartPole-v1;
  those of Tianshou's own PPO example (test/discrete/test_ppo_discrete.py); and those of TorchRL's PPO
  script for Atari, in steps of an agent.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from dataclasses import dataclass, field, replace
from functools import partial

from benchmarks.harness import tables, turns
from benchmarks.harness.settings import SB3_DEFAULTS, Act, Settings, Train
from benchmarks.harness.turns import Row, System
from benchmarks.harness.world import World, make_world
from benchmarks.peers import PEERS, ours
from recsys_rl.agents.ppo import PPOConfig
from recsys_rl.env.drift import best_return
from recsys_rl.experience.rollout import play
from recsys_rl.settings.config import Config
from recsys_rl.types import Action, Obs

LEVELS = (0.90, 0.95)
POLICIES = ("sampled", "greedy")
EVERY, GROWTH = 2048, 1.02  # steps between two looks, at least, and later the growth between them

PRESET = Config(algo="ppo", env="drift")
assert isinstance(PRESET.agent_config, PPOConfig)
OURS = PRESET.agent_config
CARTPOLE = replace(
    SB3_DEFAULTS,
    lr=1e-3,
    gamma=0.98,
    gae_lambda=0.8,
    update_epochs=20,
    batch_size=256,
    n_steps=32,
    anneal_lr=True,
)
TIANSHOU = replace(SB3_DEFAULTS, num_envs=20, n_steps=100, normalize_advantage=False)
ATARI = replace(
    SB3_DEFAULTS,
    lr=2.5e-4,
    clip_eps=0.1,
    ent_coef=0.01,
    vf_coef=1.0,
    update_epochs=3,
    batch_size=256,
    n_steps=128,
    anneal_lr=True,
)

OWN: dict[str, dict[str, Settings]] = {  # the steps are set to the budget
    "stable-baselines3": {
        "defaults": Settings(SB3_DEFAULTS, 0),
        "zoo": Settings(CARTPOLE, 0, anneal_clip=True),
    },
    "sbx": {"defaults": Settings(SB3_DEFAULTS, 0), "zoo": Settings(CARTPOLE, 0, anneal_clip=True)},
    "tianshou": {"example": Settings(TIANSHOU, 0)},
    "torchrl": {"script": Settings(ATARI, 0, anneal_clip=True)},
}


class Policy:
    """A peer's policy as an Agent that can play."""

    def __init__(self, act: Act) -> None:
        self._act = act

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        items = self._act(obs.context, greedy)
        return Action(items.unsqueeze(-1), obs.context.new_zeros(len(items)))


@dataclass
class OpenRun:
    """One run: a clock that stands still while held-out users play, and when each level was reached."""

    world: World
    seed: int
    per_update: int
    total_steps: int
    seconds: float = 0.0
    step: int = -1  # before the first rollout
    next_look: float = EVERY
    resumed: float = 0.0
    best: dict[str, float] = field(default_factory=lambda: dict.fromkeys(POLICIES, -math.inf))
    reached: dict[tuple[str, float], tuple[float, int]] = field(default_factory=dict)  # seconds, step

    def between(self, act: Act) -> bool:
        if self.step < 0:
            self.step = 0
        else:
            self.seconds += time.perf_counter() - self.resumed
            self.step += self.per_update
        if self.step >= min(self.next_look, self.total_steps):
            self.look(act)
            self.next_look = max(self.step + EVERY, self.step * GROWTH)
        self.resumed = time.perf_counter()
        return len(self.reached) < len(LEVELS) * len(POLICIES)

    def look(self, act: Act) -> None:
        for policy in POLICIES:
            share = heldout_share(self.world, act, self.seed, greedy=policy == "greedy")
            self.best[policy] = max(self.best[policy], share)
            for level in LEVELS:
                if share >= level:
                    self.reached.setdefault((policy, level), (self.seconds, self.step))


def heldout_share(world: World, act: Act, seed: int, greedy: bool) -> float:
    """Mean return of one session of each held-out user, as a share of the optimum."""
    users = world.population.heldout
    optimum = best_return(
        world.population.profile[users], world.catalogue.embedding, world.config.env_config
    ).mean()
    env = world.env(len(users), seed, heldout=True)
    return (play(env, Policy(act), users, greedy).returns.mean() / optimum).item()


def course(train: Train, settings: Settings, world: World, seed: int) -> Row:
    """Train once; {"course": what happened}."""
    total_steps = settings.num_updates * settings.per_update
    run = OpenRun(world, seed, settings.per_update, total_steps)
    train(world.env(settings.ppo.num_envs, seed), settings, seed, run.between)
    return {"course": run}


def systems(budget: int) -> list[System]:
    our_settings = Settings(OURS, budget, activation="relu")
    preset = replace(our_settings, total_steps=min(budget, PRESET.train_config.total_timesteps))
    two_tower, dense = (
        partial(ours.train, replace(PRESET.model_config, head=head)) for head in ("two-tower", "dense")
    )
    chosen = [
        System("recsys_rl", "preset", "recsys-rl", "recsys_rl", partial(course, two_tower, preset)),
        System("recsys_rl", "dense", "recsys-rl", "recsys_rl", partial(course, dense, our_settings)),
    ]
    for name, peer in PEERS.items():
        for settings_name, settings in (OWN[name] | {"ours": our_settings}).items():
            train = partial(course, peer.train, replace(settings, total_steps=budget))
            chosen.append(System(name, settings_name, peer.package, peer.module, train))
    return chosen


def summary(system: System, rounds: list[Row]) -> list[Row]:
    """The rows of a system: one for each policy, or one alone that says what went wrong."""
    row = turns.first_columns(system)
    if "note" in rounds[-1]:
        return [row | rounds[-1]]
    courses: list[OpenRun] = [row["course"] for row in rounds]
    row["steps_per_s"] = statistics.median(run.step / run.seconds for run in courses)
    rows = []
    for policy in POLICIES:
        best = [run.best[policy] for run in courses]
        mine: Row = {"policy": policy, "best_share": statistics.median(best), "best_share_low": min(best)}
        for level in LEVELS:
            mine |= _time_to(courses, policy, level)
        if mine[f"seconds_to_{LEVELS[-1]:.2f}"] is None:
            mine["note"] = f"{LEVELS[-1]:.2f} not reached within {courses[0].total_steps:,} steps"
        rows.append(row | mine)
    return rows


def _time_to(courses: list[OpenRun], policy: str, level: float) -> Row:
    """Medians over all seeds (None where the median seed never got there), range over those that did."""
    never = (math.inf, math.inf)
    times = [run.reached.get((policy, level), never) for run in courses]
    seconds = [time for time, _ in times if time < math.inf]
    return {
        f"seconds_to_{level:.2f}": _finite(statistics.median(time for time, _ in times)),
        f"seconds_to_{level:.2f}_low": min(seconds, default=None),
        f"seconds_to_{level:.2f}_high": max(seconds, default=None),
        f"steps_to_{level:.2f}": _finite(statistics.median(step for _, step in times)),
        f"seeds_to_{level:.2f}": f"{len(seconds)} of {len(courses)}",
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def main() -> None:
    parser = tables.parser(__doc__, "seeds", 5)
    parser.add_argument("--budget", type=int, default=1_000_000, help="steps of training at most")
    names = dict.fromkeys(name for system in systems(1) for name in (system.name, _full_name(system)))
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="these systems alone")
    args = tables.parse(parser, "time_to_quality")
    budget, seeds = (1, 1) if args.smoke else (args.budget, args.seeds)
    chosen = [system for system in systems(budget) if {system.name, _full_name(system)} & {*args.only}]
    way = turns.attempt if args.smoke else turns.apart
    rounds: list[list[Row]] = [[] for _ in chosen]
    for seed in range(seeds):
        world = make_world(seed, 20, 20) if args.smoke else make_world(seed)
        for system, mine in zip(chosen, rounds, strict=True):
            if not mine or "note" not in mine[-1]:
                mine.append(way(system, world, seed))
                outcome = mine[-1].get("note", "done")
                print(f"{_full_name(system)}, seed {seed}: {outcome}", file=sys.stderr, flush=True)
    rows = [row for system, mine in zip(chosen, rounds, strict=True) for row in summary(system, mine)]
    add_ratios(rows)
    tables.publish(rows, args)


def _full_name(system: System) -> str:
    return f"{system.name}/{system.settings}"


def add_ratios(rows: list[Row]) -> None:
    """Write into each row its seconds to 0.95 over those of our preset with the same kind of policy."""
    name = f"seconds_to_{LEVELS[-1]:.2f}"
    ours = {row.get("policy"): row.get(name) for row in rows if row["settings"] == "preset"}
    for row in rows:
        base = ours.get(row.get("policy"))
        if base and row.get(name):
            row["seconds_over_ours"] = row[name] / base


if __name__ == "__main__":
    tables.run(main)
