"""The Coat game: policies that train in estimated ratings, tested on the pseudo-true ones.

    python -m benchmarks.coat [--seeds 0-4] [--games FB NX] [--data-dir FOLDER]

The protocol is that of EasyRL4Rec (docs/13_rating_matrix.md): 290 users, 300 coats, at most 30 turns, a
session ends with an item that is closer than 6 to one of the last 7. FB: items may repeat; NX: no item twice.
Each seed is a refit of the user model on train.ascii alone, and seeds the networks. Training plays all users
in the estimated matrix, the test plays all users in the true one, greedily. The differences of a row are
paired by seed: to the list that is searched in the same user model (``list``), to the one with a penalty for
close items (``penalised``), and to the same network trained with the ratings hidden (``blind``).

Each row of benchmarks/results/coat.csv is one game, policy and seed. ``--cached`` runs nothing and prints the
newest rows. ``--tune`` trains with the seeds 100 and 102 and tests in the estimated ratings of seed 101, the
world in which the settings were chosen (with an error of NOISE and rounded, as ratings are); it writes no
CSV. A network takes some 25 seconds of CPU.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.coat.play import GAMES, LEARNED, TUNED_ON, games_of, rows_of
from benchmarks.coat.table import summary
from benchmarks.harness import newest, tables
from benchmarks.harness.turns import Row
from recsys_rl.utils.seeding import parse_seeds


def made_up(folder: Path) -> Path:
    """A folder with files like Coat's, of 12 made-up users and 40 items."""
    noise = torch.Generator().manual_seed(0)
    true = torch.randint(1, 6, (12, 40), generator=noise)
    rated = true * (torch.rand(true.shape, generator=noise) < 0.3)
    for name, matrix in (("train.ascii", rated), ("coat_pseudoGT_ratingM.ascii", true)):
        (folder / name).write_text("\n".join(" ".join(map(str, row)) for row in matrix.tolist()) + "\n")
    return folder


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--seeds", type=parse_seeds, default="0-4", help="as in 0-4 or 0,3,7 (default: 0-4)")
    parser.add_argument("--games", nargs="+", choices=list(GAMES), default=list(GAMES))
    parser.add_argument("--learned", nargs="*", choices=list(LEARNED), default=list(LEARNED))
    parser.add_argument("--data-dir", type=Path, default=tables.ROOT.parent / "shared/data/coat")
    parser.add_argument(
        "--tune", action="store_true", help="another estimated matrix in place of the true one"
    )
    parser.add_argument("--cached", action="store_true", help="run nothing; the newest rows of the file")
    args = tables.parse(parser, "coat")
    torch.set_num_threads(args.threads or 1)
    if args.cached:
        stored: list[Any] = list(newest.read(args.csv.parent, args.csv.stem, ("game", "policy", "seed")))
        args.csv = None
        tables.publish(summary(stored), args)
        return
    with tempfile.TemporaryDirectory() as temporary:
        location = made_up(Path(temporary)) if args.smoke else args.data_dir
        seeds = [0] if args.smoke else list(TUNED_ON) if args.tune else args.seeds
        if args.tune:
            args.csv = None
        rows: list[Row] = []
        for seed in seeds:
            games = games_of(location, seed, args.games, args.tune, args.smoke)
            for name, game in games:
                fresh = rows_of(game, name, args.learned)
                rows += fresh
                if args.csv is not None:  # each game by itself: a stopped run loses nothing
                    tables.publish(fresh, argparse.Namespace(json=None, csv=args.csv))
    args.csv = None
    tables.publish(rows, args)


if __name__ == "__main__":
    tables.run(main)
