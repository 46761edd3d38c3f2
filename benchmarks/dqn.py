"""Our double DQN on two of Gymnasium's games, beside Stable-Baselines3's DQN with the settings of its zoo.

    python -m benchmarks.dqn [--only cartpole acrobot] [--systems ...] [--seeds 0-4] [--cached]

Both train for 100,000 steps per seed: ours by the preset of `gym:` whatever the game,
Stable-Baselines3 by the settings that its zoo has tuned for this game (hyperparams/dqn.yml; one target
network and one estimator, as Mnih et al. 2015). Then both play the same 100 episodes on unseen seeds,
greedily. Each row of benchmarks/results/dqn.csv is one game, system and seed. A row that is there is not run
again: ours as long as recsys_rl/ is of the same commit, a peer's as long as its version is the same.
``--cached`` runs nothing and prints the table of the newest rows. A run takes one to ten minutes.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import torch

from benchmarks import foreign
from benchmarks.foreign import OURS, PEER, RANDOM, Sizes
from benchmarks.harness import newest, tables
from benchmarks.harness.returns import LABELS, LEARNED, Runs, duration, seeds_of, spread, vector
from benchmarks.harness.turns import Row
from recsys_rl.evaluation.custom import Model
from recsys_rl.foreign.gym import GymEnv
from recsys_rl.make import make_env
from recsys_rl.protocols import Policy
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.training.begin import begin
from recsys_rl.utils.metrics import interval
from recsys_rl.utils.seeding import parse_seeds

WHOLE, SMOKE = Sizes(100_000, 100), Sizes(2_048, 3)
ROWS = ("dqn-greedy", "dqn", "ppo-greedy", "ppo", "searched", "rule", "mf", "random")
"""The rows of ``catalogues``."""
TASKS = {
    "drift": {"drift-dqn": 100_000, "drift": 100_000},
    "satiation": {
        "satiation-dqn": 600_000,
        "satiation-dqn-long": 1_800_000,
        "make-train": 800_000,
    },
}
"""The tasks of ``catalogues`` on each platform and their steps.

The first has the seeds, and the last the simple policies.
"""
GAMES = {"cartpole": "CartPole-v1", "acrobot": "Acrobot-v1"}
# Of the zoo; sizes of the network, discount and policy are the same for both games.
ZOO: Mapping[str, Mapping[str, Any]] = {
    "CartPole-v1": {
        "learning_rate": 2.3e-3,
        "batch_size": 64,
        "buffer_size": 100_000,
        "learning_starts": 1_000,
        "target_update_interval": 10,
        "train_freq": 256,
        "gradient_steps": 128,
        "exploration_fraction": 0.16,
        "exploration_final_eps": 0.04,
    },
    "Acrobot-v1": {
        "learning_rate": 6.3e-4,
        "batch_size": 128,
        "buffer_size": 50_000,
        "learning_starts": 0,
        "target_update_interval": 250,
        "train_freq": 4,
        "gradient_steps": -1,
        "exploration_fraction": 0.12,
        "exploration_final_eps": 0.1,
    },
}


def ours(env_id: str, seed: int, sizes: Sizes) -> tuple[Policy, GymEnv]:
    """Double DQN by the preset of `gym:`, as `recsys-rl train --algo dqn` does it."""
    train = {"seed": seed, "total_timesteps": sizes.steps}
    config = from_dict(Config, {"algo": "dqn", "env": f"gym:{env_id}", "train_config": train})
    run = begin(config, None, torch.device("cpu"))
    for _ in range(run.num_updates):
        run.agent.update(run.experience.batch().data)
    episodes = torch.Generator().manual_seed(foreign.UNSEEN + seed)
    env = make_env(config, run.world, sizes.episodes, episodes, training=False)
    assert isinstance(env, GymEnv)
    env.load_statistics(run.env.statistics())
    return run.agent, env


def stable_baselines3(env_id: str, seed: int, sizes: Sizes) -> tuple[Policy, GymEnv]:
    """Its DQN with the settings of its zoo, at ``sizes.steps`` steps in place of the zoo's number."""
    from stable_baselines3 import DQN

    shared: dict[str, Any] = {"gamma": 0.99, "policy_kwargs": {"net_arch": [256, 256]}}
    model = DQN("MlpPolicy", gymnasium.make(env_id), seed=seed, device="cpu", **shared, **ZOO[env_id])
    model.learn(sizes.steps)
    env = foreign.unseen_episodes(env_id, seed, sizes)
    return Model(PEER, model, env), env


Train = Callable[[str, int, Sizes], tuple[Policy, GymEnv]]
SYSTEMS: dict[str, Train] = {RANDOM: foreign.random, PEER: stable_baselines3, OURS: ours}


def run_once(rows: list[Row], path: Path | None, game: str, system: str, seed: int, sizes: Sizes) -> None:
    """Add the row of this run to ``rows`` and to the file, unless it is there."""
    version = foreign.version_of(system)
    known = {"env": game, "system": system, "version": version, "seed": seed, "steps": sizes.steps}
    if foreign.find(rows, **known) is not None and not version.endswith("+"):
        return
    row = tables.about() | known | foreign.measure(SYSTEMS[system], GAMES[game], seed, sizes)
    print(f"{game} {system} seed {seed}: {row['return_mean']:.1f}, {row['seconds']:.0f} s", file=sys.stderr)
    rows.append(row)
    if path is not None:
        foreign.append(path, row)


def summary(game: str, rows: Sequence[Row], seeds: Sequence[int]) -> list[Row]:
    """A row per system: the mean greedy return over seeds with its interval, the worst seed, the seconds."""
    table = []
    for system in SYSTEMS:
        by_seed = [foreign.find(rows, env=game, system=system, seed=seed) for seed in seeds]
        played = [row for row in by_seed if row is not None]
        if played:
            values = [row["return_mean"] for row in played]
            over = interval(torch.tensor(values))
            seconds = sorted(row["seconds"] for row in played)[len(played) // 2]
            line = {"mean": over.mean, "low": over.low, "high": over.high, "worst": min(values)}
            table.append({"env": game, "system": system, "seeds": len(values), **line, "seconds": seconds})
    return table


def text(results: Path) -> str:
    """The table of the games of docs/12, from the rows of the file alone."""
    rows = foreign.read(results / "dqn.csv")
    seeds = sorted({row["seed"] for row in rows if row["seed"] < foreign.NEVER_REPORTED})
    names = {OURS: "**dqn (preset of `gym:`)**", PEER: "Stable-Baselines3's DQN (its zoo)", RANDOM: "random"}
    body = []
    for game, env_id in GAMES.items():
        row_of = {row["system"]: row for row in summary(game, rows, seeds)}
        for row in (row_of[system] for system in names if system in row_of):
            cells = [f"{row[name]:.1f}" for name in ("mean", "worst")]
            between = f"{row['low']:.1f} – {row['high']:.1f}" if row["seeds"] > 1 else ""
            body.append([env_id, names[row["system"]], cells[0], between, cells[1], str(row["seeds"])])
    head = ["game", "system", "return", "95 % interval", "worst seed", "seeds"]
    newest_row = max((row for row in rows if row["system"] == OURS), key=lambda row: str(row["date"]))
    said = (
        "Greedy policies after 100,000 steps, 100 episodes a seed; intervals (Student's t) over seeds; "
        f"`python -m benchmarks.dqn`,\n{newest.origin([newest_row])}."
    )
    return f"{newest.table(head, body)}\n\n{said}"


def catalogues(results: Path) -> str:
    """DQN on two catalogues, beside PPO and simple policies of the same seeds, with the steps of each."""
    body, said = [], []
    for env, steps in TASKS.items():
        known = {task: Runs(results, task) for task in steps if newest.read(results, "learning", task=task)}
        (own, *_), last = known.values(), list(known)[-1]
        for policy in ROWS:
            for task, runs in known.items():
                places = [(policy, seed) for seed in own.seeds if (policy, seed) in runs.by_place]
                its_own = task == last if policy not in LEARNED else ("dqn" in policy) == ("dqn" in task)
                if not (places and its_own):
                    continue
                values = [float(runs.by_place[policy]["return_mean"]) for policy in places]
                estimate = interval(vector(values))
                between = spread(estimate) if len(values) > 1 else ""
                trained = policy in (*LEARNED, "searched", "rule")
                cells = (
                    f"{steps[task]:,}" if trained else "",
                    f"{estimate.mean:.2f}",
                    between,
                    f"{min(values):.2f}",
                )
                body.append([f"`{env}`", LABELS[policy], *cells])
        of_ppo = "" if known[last].origin == own.origin else f"; the others {known[last].origin}"
        said.append(f"\n`{env}`: {seeds_of(own)}, {own.origin}, {duration(own.seconds)} a run{of_ppo}")
    head = ["platform", "policy", "steps", "return", "95 % interval", "worst seed"]
    return (
        f"{newest.table(head, body)}\n\nSteps of training, or of the search for `searched` and `rule`. "
        f"Intervals (Student's t) over seeds.{';'.join(said)}."
    )


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=GAMES, default=list(GAMES), metavar="NAME")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--seeds", type=parse_seeds, default="0-4", help="as in 0-4 or 0,3,7 (default: 0-4)")
    parser.add_argument("--cached", action="store_true", help="run nothing; the newest rows of the file")
    args = tables.parse(parser, "dqn")
    torch.set_num_threads(args.threads or 1)
    sizes, seeds = (SMOKE, [0]) if args.smoke else (WHOLE, args.seeds)
    rows = [] if args.smoke else foreign.read(args.csv)
    if not args.cached:
        here = foreign.installed("stable_baselines3")
        systems = [system for system in args.systems if system != PEER or here]
        for seed, game, system in itertools.product(seeds, args.only, systems):
            run_once(rows, args.csv, game, system, seed, sizes)
    table = [row for game in args.only for row in summary(game, rows, seeds)]
    args.csv = None  # has a row per run already
    tables.publish(table, args)


if __name__ == "__main__":
    tables.run(main)
