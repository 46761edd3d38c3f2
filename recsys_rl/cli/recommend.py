"""`recsys-rl recommend`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import tyro

from recsys_rl.cli.parse import parse
from recsys_rl.workflows.recommend import RecommendConfig, recommend

TEXT = """Print what a trained policy shows next to one person, or write lists for many.

Examples:
  recsys-rl recommend --user 42                        checkpoints/ppo.pt, a user of the data
  recsys-rl recommend --like "Toy Story" --like Alien  a stranger, by titles (or beginnings of them)
  recsys-rl recommend --users all --out lists.parquet  every user of the data
  recsys-rl recommend --user 42 --block seen.txt       without the item ids in the file"""


@dataclass(frozen=True)
class RecommendOptions(RecommendConfig):
    """The options of `recommend`; --like may be given several times."""

    like: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Title of an item that a stranger likes, or a beginning of it that only one item has."""

    def __post_init__(self) -> None:
        """The values are checked in the RecommendConfig that is made of them."""


def run(argv: list[str]) -> None:
    options = parse(
        RecommendOptions, RecommendOptions(), argv, "recsys-rl recommend", TEXT, "recsys-rl recommend --help"
    )
    recommend(
        RecommendConfig(**{f.name: getattr(options, f.name) for f in dataclasses.fields(RecommendConfig)})
    )
