"""`recsys-rl retrain`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsys_rl.cli.extras import need
from recsys_rl.cli.parse import parse
from recsys_rl.cli.stop import stopping

if TYPE_CHECKING:
    from recsys_rl.serving.loop.retrain import RetrainConfig

TEXT = """Learn candidates from what a server recorded: one turn.

Examples:
  recsys-rl retrain --db record.sqlite --policies policies
  recsys-rl gate --db record.sqlite policies/ppo-1.pt            then judge them

What is new in the record becomes a file in policies/log. From all sessions of training users so far learn PPO
inside learned users and cql, or, where a session is one decision, reinforce and direct (bc --weighted where
items are known by their ids alone, or are shown in lists). The candidates are policies/ALGORITHM-ROUND.pt;
policies/SHA256.json says what each learned from. docs/14_round_again.md explains it."""


def run(argv: list[str]) -> None:
    need("serve")
    options = retrain_options(argv)
    from recsys_rl.logs.users import fit_users
    from recsys_rl.serving.loop.retrain import retrain
    from recsys_rl.training import train

    line = "Stopped: start the same command again to finish the round."
    with stopping(train.Interrupted, fit_users.Interrupted, line=line):
        for path in retrain(options):
            print(path)


def retrain_options(argv: list[str]) -> RetrainConfig:
    """The settings from the command line. Raises UserError; `--help` raises SystemExit(0)."""
    from recsys_rl.serving.loop.retrain import RetrainConfig

    return parse(RetrainConfig, RetrainConfig(), argv, "recsys-rl retrain", TEXT)
