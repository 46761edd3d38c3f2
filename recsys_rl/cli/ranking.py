"""`recsys-rl ranking`."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from recsys_rl.cli.parse import checked, parse
from recsys_rl.errors import UserError
from recsys_rl.evaluation.ranking import RankingConfig, ranking

TEXT = """Rank all items for the users of a held-out log, and print NDCG, recall, hit rate, MRR and more.

Examples:
  recsys-rl train --env satiation --data train.parquet
  recsys-rl ranking test.parquet --seen train.parquet --k 20"""


@dataclass(frozen=True)
class RankingOptions(RankingConfig):
    """The options of `ranking`. The log is given without an option."""

    log: tyro.conf.Positional[str] = ""
    """Held-out events, such as the latest fifth of a log: a text file or Parquet."""

    def __post_init__(self) -> None:
        """Check nothing here: the RankingConfig made from these options checks the values."""


def run(argv: list[str]) -> None:
    ranking(ranking_options(argv))


def ranking_options(argv: list[str]) -> RankingConfig:
    """The settings from the command line. Raises UserError; `--help` raises SystemExit(0)."""
    prog = "recsys-rl ranking"
    options = parse(RankingOptions, RankingOptions(), argv, prog, TEXT)
    if not options.log:
        raise UserError(f"{prog} needs a log: give the path of a file with held-out events.")
    return checked(RankingConfig, options)
