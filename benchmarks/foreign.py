"""Ours on other people's environments: one preset, beside Stable-Baselines3's PPO with its own defaults.

    python -m benchmarks.foreign [--only cartpole coat ...] [--seeds 0-4] [--cached]

Both train for 200,000 steps per seed, ours by the preset of ``--env gym:...`` whatever the environment,
Stable-Baselines3 by `PPO("MlpPolicy", env)`, with the parts of an observation in one flat vector. Where a
rule of one line is known, it plays as well. Then both play the same 100 episodes on unseen seeds, greedily
(its `deterministic=True`) and sampled. Each row of
benchmarks/results/foreign.csv is one environment, system and seed. A row that is there is not run again:
ours as long as recsys_rl/ is of the same commit, a peer's as long as its version is the same. The whole takes
hours, ``--only`` minutes; ``--cached`` runs nothing and prints the table of the newest rows.

The last column says whether ours holds: the 95 % interval of the difference (paired by seed, Student's t)
excludes that ours lies below by more than a tenth of the way from random to the better of the two; on the
wide environments (``*``) its mean must lie above as well.
"""

from __future__ import annotations

import csv
import importlib.util
import itertools
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium.wrappers import FlattenObservation
from torch import Tensor

from benchmarks import foreign_envs
from benchmarks.harness import tables, turns
from benchmarks.harness.turns import Row
from recsys_rl.evaluation.custom import Model
from recsys_rl.evaluation.rivals.baselines import RandomPolicy
from recsys_rl.experience.rollout import collect, play
from recsys_rl.foreign.gym import GymEnv
from recsys_rl.functional.top_k import highest
from recsys_rl.make import make_env
from recsys_rl.protocols import Policy
from recsys_rl.settings.config import Config, from_dict, overlay
from recsys_rl.training.begin import begin
from recsys_rl.types import Action, Obs
from recsys_rl.utils.metrics import interval
from recsys_rl.utils.seeding import parse_seeds

NEVER_REPORTED = 100  # seeds from here on are for choosing hyperparameters
UNSEEN = 10_000  # added to the seed of training: the seed of the episodes that are played at the end
OURS, PEER, RANDOM, RULE = "recsys_rl", "stable-baselines3", "random", "rule"
POLICIES = {"greedy": "return_mean", "sampled": "sampled_mean"}  # columns of the file


class Sizes(NamedTuple):
    """Of one run."""

    steps: int  # of training
    episodes: int  # played at the end


WHOLE, SMOKE = Sizes(200_000, 100), Sizes(512, 3)


@dataclass(frozen=True)
class Environment:
    """An environment that both train on."""

    id: str  # as gymnasium.make takes it
    module: str = "gymnasium"  # what has to be importable
    wide: bool = False  # hundreds of discrete actions
    file: Path | None = None  # what has to be on the disk
    # Scores (N, C) of a simple rule, from the rest (N, R) of the observation and the candidates (N, C, F).
    rule: Callable[[Tensor, Tensor], Tensor] | None = None

    def missing(self) -> str | None:
        """Why it can't be played here, or None."""
        if self.file is not None and not self.file.exists():
            return f"{self.file} is missing: COAT_MATRIX names another place"
        return None if installed(self.module) else f"{self.module} is not installed"


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


MADE_HERE = "benchmarks.foreign_envs:"
ENVIRONMENTS = {
    "cartpole": Environment("CartPole-v1"),
    "coat": Environment(f"{MADE_HERE}Coat-v0", wide=True, file=foreign_envs.COAT),
    "taxi": Environment(f"{MADE_HERE}TaxiUnmasked-v0"),
    "acrobot": Environment("Acrobot-v1"),
    "lunarlander": Environment("LunarLander-v3", "Box2D"),
    "interest-evolution": Environment(f"{MADE_HERE}InterestEvolution-v0", "recsim"),
    "long-term-satisfaction": Environment(
        f"{MADE_HERE}LongTermSatisfaction-v0", "recsim", rule=lambda rest, docs: docs[..., 0]
    ),
    "interest-evolution-slates": Environment(
        f"{MADE_HERE}InterestEvolutionSlates-v0",
        "recsim",
        rule=lambda rest, docs: (docs @ rest[:, 4:24].unsqueeze(2)).squeeze(2),  # interests times topics
    ),
    "sardine": Environment(f"{MADE_HERE}Sardine-v0", "sardine", wide=True),
}


def random(env_id: str, seed: int, sizes: Sizes) -> tuple[Policy, GymEnv]:
    """Every action with the same probability."""
    env = unseen_episodes(env_id, seed, sizes)
    generator = torch.Generator().manual_seed(seed)
    return RandomPolicy(env.interface.action_sizes, generator, env.interface.slate_size), env


class ByRule:
    """Shows the candidates with the highest scores of a rule."""

    def __init__(self, rule: Callable[[Tensor, Tensor], Tensor], env: GymEnv) -> None:
        self.rule, self.interface = rule, env.interface

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        rest, candidates = self.interface.split_candidates(obs.context)
        assert candidates is not None
        return Action.certain(highest(self.rule(rest, candidates), self.interface.slate_size))


def one_line(env_id: str, seed: int, sizes: Sizes) -> tuple[Policy, GymEnv]:
    """The environment's rule."""
    [rule] = [env.rule for env in ENVIRONMENTS.values() if env.id == env_id and env.rule is not None]
    env = unseen_episodes(env_id, seed, sizes)
    return ByRule(rule, env), env


def ours(env_id: str, seed: int, sizes: Sizes, **sections: Row) -> tuple[Policy, GymEnv]:
    """PPO by the preset of `gym:`, as `recsys-rl train` does it; ``sections`` are of other settings."""
    settings = overlay(sections, {"train_config": {"seed": seed, "total_timesteps": sizes.steps}})
    config = from_dict(Config, {"algo": "ppo", "env": f"gym:{env_id}", **settings})
    run = begin(config, None, torch.device("cpu"))
    obs = run.env.observe()
    for _ in range(run.num_updates):
        rollout, obs = collect(run.env, run.agent, obs, config.agent_config.n_steps)
        run.agent.update(rollout)
    assert isinstance(run.env, GymEnv)
    episodes = torch.Generator().manual_seed(UNSEEN + seed)
    env = make_env(config, run.world, sizes.episodes, episodes, training=False)
    assert isinstance(env, GymEnv)
    env.load_statistics(run.env.statistics())
    return run.agent, env


def stable_baselines3(env_id: str, seed: int, sizes: Sizes) -> tuple[Policy, GymEnv]:
    """Its PPO as its documentation shows it, with no option but the seed and the device."""
    from stable_baselines3 import PPO

    game = gymnasium.make(env_id)
    if isinstance(game.observation_space, gymnasium.spaces.Dict):
        game = FlattenObservation(game)
    model = PPO("MlpPolicy", game, seed=seed, device="cpu")
    model.learn(sizes.steps)
    env = unseen_episodes(env_id, seed, sizes, candidate_features="none")
    return Model(PEER, model, env), env


def unseen_episodes(env_id: str, seed: int, sizes: Sizes, candidate_features: str = "auto") -> GymEnv:
    return GymEnv(
        env_id,
        sizes.episodes,
        UNSEEN + seed,
        candidate_features=candidate_features,
        training=False,
        allow_module=True,
    )


Train = Callable[[str, int, Sizes], tuple[Policy, GymEnv]]
SYSTEMS: dict[str, Train] = {RANDOM: random, RULE: one_line, PEER: stable_baselines3, OURS: ours}


def measure(train: Train, env_id: str, seed: int, sizes: Sizes) -> Row:
    """Train, then play the unseen episodes: greedily, and once more by sampling."""
    np.random.seed(seed)  # noqa: NPY002  (RecSim draws from it)
    started = time.perf_counter()
    agent, env = train(env_id, seed, sizes)
    seconds = time.perf_counter() - started
    greedy, sampled = (play(env, agent, greedy=way) for way in (True, False))
    return {
        "return_mean": greedy.returns.double().mean().item(),
        "sampled_mean": sampled.returns.double().mean().item(),
        "length_mean": greedy.lengths.double().mean().item(),
        "seconds": round(seconds, 1),
    }


def version_of(system: str) -> str:
    """The last commit of recsys_rl/, with + where the files differ from it, or the version of a peer."""
    if system in (RANDOM, RULE):
        return "-"
    if system != OURS:
        return turns.package_version(system) or "not installed"
    try:
        return _git("log", "-1", "--format=%h") + ("+" if _git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown+"


def _git(*words: str) -> str:
    words = ("git", *words, "--", "recsys_rl")
    done = subprocess.run(words, cwd=tables.ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def read(path: Path) -> list[Row]:
    """The rows of the file, with numbers as numbers; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    integers, real = ("seed", "steps"), ("return_mean", "sampled_mean", "length_mean", "seconds")
    return [
        row | {name: int(row[name]) for name in integers} | {name: float(row[name]) for name in real}
        for row in rows
    ]


def append(path: Path, row: Row) -> None:
    """One more line, so that two processes can share the file."""
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def find(rows: Iterable[Row], **wanted: Any) -> Row | None:
    """The newest row that has these values."""
    matches = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return matches[-1] if matches else None


def run_once(rows: list[Row], path: Path | None, name: str, system: str, seed: int, sizes: Sizes) -> None:
    """Add the row of this run to ``rows`` and to the file, unless it is there."""
    if system == RULE and ENVIRONMENTS[name].rule is None:
        return
    version = version_of(system)
    known = {"env": name, "system": system, "version": version, "seed": seed, "steps": sizes.steps}
    if find(rows, **known) is not None and not version.endswith("+"):
        return
    row = tables.about() | known | measure(SYSTEMS[system], ENVIRONMENTS[name].id, seed, sizes)
    print(f"{name} {system} seed {seed}: {row['return_mean']:.2f}, {row['seconds']:.0f} s", file=sys.stderr)
    rows.append(row)
    if path is not None:
        append(path, row)


def summary(name: str, rows: Sequence[Row], seeds: Sequence[int], policy: str = "greedy") -> list[Row]:
    """A row per system: mean over seeds with its interval; ours also against Stable-Baselines3.

    ``policy``: greedy, or sampled.
    """
    table, means, column = [], {}, POLICIES[policy]
    for system in SYSTEMS:
        by_seed = {seed: find(rows, env=name, system=system, seed=seed) for seed in seeds}
        means[system] = {seed: row[column] for seed, row in by_seed.items() if row is not None}
        values = list(means[system].values())
        if values:
            over = interval(torch.tensor(values))
            line = {"mean": over.mean, "low": over.low, "high": over.high, "worst": min(values)}
            about = {"env": name, "policy": policy, "system": system, "seeds": len(values)}
            table.append(about | line)
    both = sorted(set(means[OURS]) & set(means[PEER]))
    if both and means[RANDOM]:
        mine, theirs = (torch.tensor([means[system][seed] for seed in both]) for system in (OURS, PEER))
        floor = sum(means[RANDOM].values()) / len(means[RANDOM])
        table[-1] |= compare(mine, theirs, floor, ENVIRONMENTS[name].wide)
    if name == "coat" and policy == "greedy" and ENVIRONMENTS[name].missing() is None:
        exact = foreign_envs.references(foreign_envs.liked(foreign_envs.ratings_of_coat()))
        about = {"env": name, "policy": policy}
        table += [about | {"system": system, "mean": value} for system, value in exact.items()]
    return table


def compare(mine: Tensor, theirs: Tensor, floor: float, wide: bool) -> Row:
    """Ours minus theirs (S,) over seeds, and whether ours holds (the head of this file says when)."""
    over = interval(mine - theirs)
    way = max(mine.mean().item(), theirs.mean().item()) - floor
    known = len(mine) > 1  # one seed has no interval
    holds = over.low >= -0.1 * way and (over.mean > 0 or not wide) if known else None
    return {"minus_sb3": over.mean, "minus_low": over.low, "minus_high": over.high, "holds": holds}


def markdown(table: Sequence[Row]) -> str:
    """The table of the docs: a line per environment for the greedy policies, and one for the sampled."""
    lines = [
        "| environment | random | rule | Stable-Baselines3 | ours | difference | holds |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    played = [row for row in table if "system" in row]  # the others say why not
    for name, policy in dict.fromkeys((row["env"], row["policy"]) for row in played):
        rows = {row["system"]: row for row in played if (row["env"], row["policy"]) == (name, policy)}
        cells = [_cell(rows.get(system), "mean", "low", "high") for system in SYSTEMS]
        difference = _cell(rows.get(OURS), "minus_sb3", "minus_low", "minus_high", "+")
        holds = {True: "yes", False: "no", None: ""}[rows.get(OURS, {}).get("holds")]
        star = " *" if ENVIRONMENTS[name].wide else ""
        lines.append(f"| {' | '.join([f'{name}{star}, {policy}', *cells, difference, holds])} |")
        exact = [f"{system} {row['mean']:.3g}" for system, row in rows.items() if system not in SYSTEMS]
        if exact:
            lines.append(f"| {name}, computed: {', '.join(exact)} | | | | | | |")
    return "\n".join(lines)


def text(results: Path) -> str:
    """The table of the docs, from the rows of the file alone."""
    rows = read(results / "foreign.csv")
    seeds = sorted({row["seed"] for row in rows if row["seed"] < NEVER_REPORTED})
    both = [summary(name, rows, seeds, policy) for name in ENVIRONMENTS for policy in POLICIES]
    return markdown([row for table in both for row in table if row["system"] in SYSTEMS])


def _cell(row: Row | None, mean: str, low: str, high: str, sign: str = "") -> str:
    if row is None or mean not in row:
        return ""
    digits = ".0f" if abs(row[mean]) >= 100 else ".1f" if abs(row[mean]) >= 20 else ".2f"
    text = format(row[mean], sign + digits)
    if math.isnan(row[low]):
        return text
    return f"{text} ({row[low]:{sign}{digits}} to {row[high]:{sign}{digits}})"


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=ENVIRONMENTS, default=list(ENVIRONMENTS), metavar="NAME")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--seeds", type=parse_seeds, default="0-4", help="as in 0-4 or 0,3,7 (default: 0-4)")
    parser.add_argument("--cached", action="store_true", help="run nothing; the newest rows of the file")
    args = tables.parse(parser, "foreign")
    torch.set_num_threads(args.threads or 1)
    sizes, seeds = (SMOKE, [0]) if args.smoke else (WHOLE, args.seeds)
    rows = [] if args.smoke else read(args.csv)
    notes = {name: ENVIRONMENTS[name].missing() for name in args.only}
    if not args.cached:
        here = [name for name, note in notes.items() if note is None]
        systems = [system for system in args.systems if system != PEER or installed("stable_baselines3")]
        for seed, name, system in itertools.product(seeds, here, systems):
            run_once(rows, args.csv, name, system, seed, sizes)
    table = [row for name in args.only for policy in POLICIES for row in summary(name, rows, seeds, policy)]
    table += [{"env": name, "note": note} for name, note in notes.items() if note is not None]
    args.csv = None  # has a row per run already
    tables.publish(table, args)
    print(f"\n{markdown(table)}")


if __name__ == "__main__":
    tables.run(main)
