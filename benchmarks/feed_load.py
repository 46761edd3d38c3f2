"""Time spent and rewards on `social-feed` under fixed loads of ads, for a picture of docs/06.

    python -m benchmarks.feed_load [--lives 2000]

The lives are those of benchmarks.once.calibration_feed: a year under each load, all with the same
users; the ads are drawn uniformly. A row for each load and time has the places of a user and their rewards
(with the platform's weights, and where revenue pays ten times as much), relative to those without ads, with
95 % intervals (users drawn again). Rows are appended to benchmarks/results/feed_load.csv.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness import tables
from benchmarks.harness.turns import Row
from benchmarks.limits import PAID_REVENUE
from benchmarks.once import calibration_feed as feed
from recsys_rl.env.social_feed import SocialFeed
from recsys_rl.make import make_world
from recsys_rl.settings.config import Config, from_dict

TIMES = {
    "the first visit": feed.VISIT,
    "the first month": feed.FIRST,
    "the year": slice(1, None),
    "months 10 to 12": feed.LATE,
}


def rows(config: Config, lives: int, months: int) -> list[Row]:
    """A row for each load and time of lives of ``months``."""
    fits = ("any",) * len(feed.LOADS)
    of_loads = feed.live(config, make_world(config), feed.LOADS, fits, lives, 0, months)
    weights = {stream.name: stream.weight for stream in SocialFeed.streams}
    values = {
        "spent": np.stack([load.places for load in of_loads]),  # (loads, 1 + months, n)
        "earned": np.stack([load.earned(**weights) for load in of_loads]),
        "earned_paid": np.stack([load.earned(**{**weights, "revenue": PAID_REVENUE}) for load in of_loads]),
    }
    drawn = feed.resamples(lives)
    result: list[Row] = []
    for name, at in TIMES.items():
        of_time = {value: relative(amounts[:, at].sum(1), drawn) for value, amounts in values.items()}
        for index, load in enumerate(feed.LOADS):
            row: Row = {"load": load, "time": name, "lives": lives}
            for value, found_here in of_time.items():
                row |= dict(zip((value, f"{value}_low", f"{value}_high"), found_here[index], strict=True))
            result.append(row)
    return result


def relative(sums: NDArray[np.float64], drawn: Sequence[NDArray[np.int64]]) -> list[tuple[float, ...]]:
    """For each load: the mean of ``sums`` (loads, n) over that without ads, and its interval.

    ``drawn``: the users of each resample.
    """
    again = np.stack([sums[:, index].mean(1) for index in drawn], 1)  # (loads, RESAMPLES)
    low, high = np.quantile(again / again[0], (0.025, 0.975), axis=1)
    means = sums.mean(1) / sums[0].mean()
    return [tuple(map(float, bounds)) for bounds in zip(means, low, high, strict=True)]


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--lives", type=int, default=feed.USERS, help="of each load")
    parser.add_argument("--seed", type=int, default=1)
    args = tables.parse(parser, "feed_load")
    torch.set_num_threads(args.threads or 1)
    months = 3 if args.smoke else feed.MONTHS
    settings = {"env": feed.ENV, "train_config": {"seed": args.seed}}
    if args.smoke:
        settings["data_config"], args.lives = {"data": "synthetic", "num_users": 50}, 20
    tables.publish(rows(from_dict(Config, settings), args.lives, months), args)


if __name__ == "__main__":
    tables.run(main)
