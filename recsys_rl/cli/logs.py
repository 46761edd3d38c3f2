"""The options --log of `recsys-rl train`: several files, and tables of people's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recsys_rl.cli.parse import joined
from recsys_rl.data.tables.read import is_own
from recsys_rl.env import OF_TABLES
from recsys_rl.errors import UserError


def with_log(argv: Sequence[str], given: Any) -> list[str]:
    """The options with all files of --log together; a table of people's own is the platform of its run.

    ``given`` holds the options that were read; ``env`` is set if only the log tells the platform.
    """
    words = joined(argv, "log")
    files = [given.log] if isinstance(given.log, str) else given.log
    if all(option is None for option in (given.algo, given.config, given.run)):
        raise UserError(
            "--log is for algorithms that learn from a log: give --algo reinforce (with propensities), bc, "
            "cql, bcq, iql, dt or direct."
        )
    if all(value is None for value in (given.env, given.checkpoint, given.run, given.config)) and is_own(
        files
    ):
        given.env = OF_TABLES
    return words
