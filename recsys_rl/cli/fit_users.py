"""`recsys-rl fit-users`."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from recsys_rl.cli.parse import checked, joined, parse
from recsys_rl.cli.stop import stopping
from recsys_rl.logs.users.fit_users import FitUsersConfig, Interrupted, fit_users

TEXT = """Learn users from a log of decisions, to train policies in (train --env learned).

Examples:
  recsys-rl fit-users --log log.parquet --checkpoint checkpoints/ppo.pt --out users.pt
  recsys-rl fit-users --log log.parquet --data ml-1m --out users.pt                 items without a checkpoint
  recsys-rl fit-users --log log.parquet --checkpoint ppo.pt --resume                 after Ctrl-C
  recsys-rl fit-users --log visits.csv --items items.csv --weights clicked=1         a table of your own
  recsys-rl train --env learned --user-model users.pt

The report compares the learned users with held-out sessions. docs/11_offline.md explains it."""


@dataclass(frozen=True)
class FitUsersOptions(FitUsersConfig):
    """The options of `fit-users`; --weights may be repeated."""

    weights: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Rewards of a log that people made: NAME=NUMBER for its signals."""

    def __post_init__(self) -> None:
        """Check nothing here: the FitUsersConfig made from these options checks the values."""


def run(argv: list[str]) -> None:
    with stopping(Interrupted):
        fit_users(fit_users_options(argv))


def fit_users_options(argv: list[str]) -> FitUsersConfig:
    """The settings from the command line. Raises UserError; `--help` raises SystemExit(0)."""
    options = parse(FitUsersOptions, FitUsersOptions(), joined(argv, "log"), "recsys-rl fit-users", TEXT)
    return checked(FitUsersConfig, options)
