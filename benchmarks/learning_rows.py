"""Rows of the tables of benchmarks.learning, each by itself.

    python -m benchmarks.learning_rows tutor --rows expert [--seeds 0-4]
    python -m benchmarks.learning_rows shop --rows ppo ppo-greedy expected --keep runs   # after a new network

A row is found with the steps of the task's training, and plays the same held-out users with the same noise as
in the table of `recsys-rl evaluate`. So a row that is younger than the trainings joins their tables. `expert`
is the policy of benchmarks.experts, `searched-stock` that of benchmarks/searched_stock.py. With
``--keep FOLDER`` there are the rows of the algorithm, too: its runs are trained in
FOLDER/<task>-<seed>/<algorithm>/, or taken from there, as by benchmarks.learning. Appends a CSV row per task,
seed and row; its column train_seconds stays empty.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks import learning, searched_stock
from benchmarks.experts import policy
from benchmarks.harness import tables
from benchmarks.harness.runs import checkpoint_in, trained
from recsys_rl.checkpoint import load
from recsys_rl.cli.train import train_options
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.errors import UserError, listed
from recsys_rl.evaluation.checkpoints import Entry
from recsys_rl.evaluation.options import EvaluateConfig
from recsys_rl.evaluation.play import PLANNERS
from recsys_rl.evaluation.players import Player, Table, custom_players, heldout_users, learned
from recsys_rl.evaluation.row_makers import RowMakers
from recsys_rl.experience.rollout import play
from recsys_rl.make import make_world
from recsys_rl.settings.config import Config
from recsys_rl.utils.allocator import keep_freed_memory
from recsys_rl.utils.metrics import interval
from recsys_rl.utils.seeding import generators, parse_seeds, stream_seed

SMOKE = (
    *("--data", "synthetic", "--num-users", "50", "--num-items", "60"),
    *("--max-episode-steps", "4", "--total-timesteps", "400"),
)


def rows_of(
    task: str, seed: int, rows: Sequence[str], smoke: bool = False, keep: Path | None = None
) -> list[learning.Row]:
    """The rows of one seed, without the columns of their origin. Raises UserError for a row of no table."""
    algo, words = learning.TASKS[task]
    words = ["--algo", algo, "--seed", str(seed), *words]
    config = train_options(words).config
    if config.platform.users is None:
        raise UserError(f"{task} has no users, and its table no rivals: give a task of a platform.")
    if smoke:
        words = [*words, *SMOKE]
        config = train_options(words).config
    world = make_world(config)
    users = heldout_users(world, EvaluateConfig.max_users, EvaluateConfig.seed)
    streams = generators(EvaluateConfig.seed, "evaluation users", "policy", "shuffle", "random")
    table = Table(config, world, users, EvaluateConfig.seed, torch.device("cpu"), streams)
    env = table.env()
    assert isinstance(env, RecEnv)
    steps = steps_of(config)
    makers = RowMakers(table, env, steps, None).makers()
    if config.platform.users in policy.EXPERTS:
        makers[policy.NAME] = partial(expert_of, table, env, steps)
    if env.interface.profile:
        makers[searched_stock.NAME] = partial(stocked, table, env, steps)
    if keep is not None:
        makers |= trained_rows(keep.resolve() / f"{task}-{seed}" / algo, algo, words, table, env)
    known = [name for name in makers if name not in PLANNERS]  # those play fewer users
    for row in rows:
        if row not in known:
            raise UserError(f"--rows has {row}, and the rows of {task} are {listed(known)}.")
    found = []
    for row in rows:
        player = makers[row]()
        for stream in ("evaluation users", "policy"):
            streams[stream].manual_seed(stream_seed(table.seed, stream))
        sessions = play(env, player.agent, users, player.greedy)
        earned = interval(sessions.returns)
        found.append(
            {
                "task": task,
                "seed": seed,
                "policy": row,
                "return_mean": earned.mean,
                "length_mean": sessions.lengths.double().mean().item(),
                "users": len(users),
                "return_low": earned.low,
                "return_high": earned.high,
            }
        )
        print(f"{task}, seed {seed}, {row}: {earned.mean:.2f}; {player.note}", flush=True)
    return found


def expert_of(table: Table, env: RecEnv, steps: int) -> Player:
    """`expert`, as `recsys-rl evaluate --policy` plays it."""
    return custom_players({policy.NAME: policy.expert}, table, env, table, steps)[policy.NAME]


def stocked(table: Table, env: RecEnv, steps: int) -> Player:
    """`searched` with a stock and a hinge (searched_stock.py)."""
    noise = generators(0, searched_stock.NAME)[searched_stock.NAME]  # the same result for each seed of users
    trainees = table.trainees(env.interface, noise)
    agent, note = searched_stock.search(trainees, table.config.platform.split, steps)
    return Player(agent, note=note)


def trained_rows(
    folder: Path, algo: str, words: Sequence[str], table: Table, env: RecEnv
) -> dict[str, Callable[[], Player]]:
    """The rows of the checkpoint of the training ``words``, which ``folder`` keeps."""
    trained(folder, algo, ["train", "--threads", "1", *words])
    path = checkpoint_in(folder, algo)
    players = learned([Entry(path, load(path), algo)], table, env)
    return {name: partial(_same, player) for name, player in players.items()}


def _same(player: Player) -> Player:
    return player


def steps_of(config: Config) -> int:
    """The steps of the training with these settings, which are whole updates."""
    update = config.agent_config.steps_per_update
    return int(max(1, config.train_config.total_timesteps // update) * update)


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("tasks", nargs="+", choices=learning.TASKS)
    parser.add_argument("--rows", nargs="+", required=True, help="names of rows of the table, as in expert")
    parser.add_argument("--seeds", type=parse_seeds, default="0-4", help="as in 0-4 or 0,3,7 (default: 0-4)")
    parser.add_argument("--keep", type=Path, help="folder of trained runs, for the rows of the algorithm")
    args = tables.parse(parser, "learning")
    torch.set_num_threads(args.threads or 1)
    keep_freed_memory()
    about = {name: value for name, value in tables.about().items() if name in learning.COLUMNS}
    file = Path(os.devnull) if args.smoke else args.csv
    for task in args.tasks:
        for seed in args.seeds:
            append(file, [about | row for row in rows_of(task, seed, args.rows, args.smoke, args.keep)])


def append(file: Path, rows: Sequence[learning.Row]) -> None:
    """Add the rows to the CSV file of benchmarks.learning."""
    is_new = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, learning.COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    tables.run(main)
