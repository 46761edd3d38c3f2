"""`recsys-rl record`."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from recsys_rl.cli.parse import checked, parse
from recsys_rl.logs.record import RecordConfig, record

TEXT = """Record the decisions of a policy, their probabilities and the users' responses in a Parquet file.

Examples:
  recsys-rl record --out log.parquet                                 checkpoints/ppo.pt, sampled
  recsys-rl record --policy random --sessions 20000 --out log.parquet
  recsys-rl record --policy ppo --mix random --epsilon 0.2 --out log.parquet
  recsys-rl record --policy ppo --policy random --out log.parquet    each session by one of the two
  recsys-rl record --sessions 1000000 --parts 500000 --out log       a folder of files with 500,000 rows each

docs/09_logs.md describes the file."""


@dataclass(frozen=True)
class RecordOptions(RecordConfig):
    """The options of `record`; --policy may be repeated."""

    policy: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Row of the evaluation table that decides: ppo, ppo-greedy, random, popularity ... (default: the
    checkpoint's own policy, sampled). Of several policies, each session draws one."""

    def __post_init__(self) -> None:
        """Check nothing here: the RecordConfig made from these options checks the values."""


def run(argv: list[str]) -> None:
    record(record_options(argv))


def record_options(argv: list[str]) -> RecordConfig:
    """The settings from the command line. Raises UserError; `--help` raises SystemExit(0)."""
    options = parse(RecordOptions, RecordOptions(), argv, "recsys-rl record", TEXT)
    return checked(RecordConfig, options)
