"""The pictures of the categories over the session, for docs/02 and docs/06.

    recsys-rl train --env long-video
    python -m benchmarks.categories checkpoints/ppo.pt

writes docs/images/categories-long-video.svg: the picture of the report's page
(evaluation/report/categories.py) of the greedy policy, the yardstick and `myopic`, played by all held-out
users. The planners are not played, as they take minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.figures import IMAGES
from benchmarks.harness import tables
from recsys_rl.checkpoint import Checkpoint, load
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.errors import UserError
from recsys_rl.evaluation.checkpoints import Entry
from recsys_rl.evaluation.players import Player, Table, heldout_users, learned
from recsys_rl.evaluation.report.categories import categories, categories_svg
from recsys_rl.evaluation.row_makers import RowMakers
from recsys_rl.experience.rollout import Sessions, play
from recsys_rl.utils.files import write_text
from recsys_rl.utils.seeding import generators, stream_seed


def played(path: Path, checkpoint: Checkpoint, yardstick: str) -> dict[str, Sessions]:
    """The sessions of the greedy policy, the yardstick and `myopic`, with the same users and noise."""
    seed, world = checkpoint.config.train_config.seed, checkpoint.world
    streams = generators(seed, "evaluation users", "policy", "shuffle", "random")
    table = Table(checkpoint.config, world, heldout_users(world, 0, seed), seed, torch.device("cpu"), streams)
    env = table.env()
    assert isinstance(env, RecEnv)
    entry = Entry(path, checkpoint, checkpoint.config.algo)
    makers = RowMakers(table, env, checkpoint.step, None).makers()
    if yardstick not in makers:
        raise UserError(f"There is no row {yardstick}: --yardstick must be one of {', '.join(makers)}.")
    name = f"{entry.name}-greedy"
    players: dict[str, Player] = {name: learned([entry], table, env)[name]}
    players |= {row: makers[row]() for row in (yardstick, "myopic")}
    of_players = {}
    for row, player in players.items():
        streams["evaluation users"].manual_seed(stream_seed(seed, "evaluation users"))
        of_players[row] = play(env, player.agent, table.users, player.greedy)
    return of_players


def draw(path: Path, yardstick: str) -> Path:
    """Play, draw, and return the file of the picture; the returns are printed."""
    checkpoint = load(path, None)
    if checkpoint.world.is_empty:
        raise UserError(f"{path} is of {checkpoint.config.env}, without items of a catalogue.")
    sessions = played(path, checkpoint, yardstick)
    picture = categories(checkpoint.catalogue, sessions, checkpoint.interface.session_length)
    if picture is None:
        raise UserError(f"{path}: the data hold no categories of items, so there is no picture.")
    image = IMAGES / f"categories-{checkpoint.config.env}.svg"
    write_text(image, categories_svg(picture) + "\n")
    for name, of_player in sessions.items():
        print(f"{name}: return {of_player.returns.mean():.2f}, {of_player.lengths.float().mean():.1f} steps")
    return image


def main() -> None:
    parser = tables.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--yardstick", default="rule", help="the row that the table of docs/ names")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(draw(args.checkpoint, args.yardstick))


if __name__ == "__main__":
    tables.run(main)
