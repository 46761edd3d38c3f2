"""`recsys-rl recommend`."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from recsys_rl.cli.parse import checked, latest_checkpoint, parse
from recsys_rl.recommender.recommend import RecommendConfig, recommend

TEXT = """Print the recommendations of a trained policy for one person, or write those for many users.

Examples:
  recsys-rl recommend --user 42                        a user of the data, with the latest policy
  recsys-rl recommend --like "Toy Story" --like Alien  a new user, from titles or beginnings of titles
  recsys-rl recommend --users all --out lists.parquet  every user of the data
  recsys-rl recommend --user 42 --seen plays.csv       without the items of their events in plays.csv
  recsys-rl recommend --user 42 --items new.csv        with new items, from their genres, years and others
  recsys-rl recommend --checkpoint mine.pt --context age=0.3 --context device=phone      of your own log
  recsys-rl recommend --checkpoint mine.pt --contexts visitors.csv --out lists.csv       one for each row"""


@dataclass(frozen=True)
class RecommendOptions(RecommendConfig):
    """The options of `recommend`; --like and --context may be repeated."""

    like: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Title of an item that a new user likes, or a beginning that only one title has."""
    context: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A piece of the context as NAME=VALUE, for the policy of a team's own log; numbers of a list stand
    between commas."""

    def __post_init__(self) -> None:
        """Check nothing here: the RecommendConfig made from these options checks the values."""


def run(argv: list[str]) -> None:
    recommend(recommend_options(argv))


def recommend_options(argv: list[str]) -> RecommendConfig:
    """The settings from the command line. Raises UserError; `--help` raises SystemExit(0)."""
    default = RecommendOptions(checkpoint=latest_checkpoint(argv))
    options = parse(RecommendOptions, default, argv, "recsys-rl recommend", TEXT)
    return checked(RecommendConfig, options)
