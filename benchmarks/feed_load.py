"""Time spent on `social-feed` under fixed loads of ads, for a picture of docs/06.

    python -m benchmarks.feed_load [--lives 2000]

The lives are those of benchmarks.calibration (calibration_feed.py): a year under each load, all with the same
users. A row for each load and time has the places of a user relative to those without ads, with a 95 %
interval (users drawn again). Rows are appended to benchmarks/results/feed_load.csv.
"""

from __future__ import annotations

import numpy as np
import torch

from benchmarks import calibration_feed as feed
from benchmarks.harness import tables
from benchmarks.harness.turns import Row
from recsys_rl.config import Config, from_dict
from recsys_rl.make import make_world

TIMES = {"the first month": feed.FIRST, "months 10 to 12": feed.LATE}


def rows(config: Config, lives: int) -> list[Row]:
    """A row for each load and time."""
    fits = ("any",) * len(feed.LOADS)
    found = feed.live(config, make_world(config), feed.LOADS, fits, lives, 0)
    places = np.stack([x.places for x in found])  # (loads, months, n)
    generator = np.random.default_rng(0)
    drawn = [generator.integers(0, lives, lives) for _ in range(feed.RESAMPLES)]
    result: list[Row] = []
    for name, months in TIMES.items():
        spent = places[:, months].sum(1)  # (loads, n)
        again = np.stack([spent[:, index].mean(1) for index in drawn], 1)  # (loads, RESAMPLES)
        low, high = np.quantile(again / again[0], (0.025, 0.975), axis=1)
        for place, load in enumerate(feed.LOADS):
            row: Row = {"load": load, "time": name, "lives": lives}
            row |= {"spent": float(spent[place].mean() / spent[0].mean())}
            result.append(row | {"low": float(low[place]), "high": float(high[place])})
    return result


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--lives", type=int, default=feed.USERS, help="of each load")
    parser.add_argument("--seed", type=int, default=1)
    args = tables.parse(parser, "feed_load")
    torch.set_num_threads(args.threads or 1)
    settings = {"env": feed.ENV, "train_config": {"seed": args.seed}}
    if args.smoke:
        settings["data_config"], args.lives = {"data": "synthetic", "num_users": 50}, 20
    tables.publish(rows(from_dict(Config, settings), args.lives), args)


if __name__ == "__main__":
    tables.run(main)
