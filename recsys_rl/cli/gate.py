"""`recsys-rl gate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import tyro

from recsys_rl.cli.extras import need
from recsys_rl.cli.parse import checked, parse

if TYPE_CHECKING:
    from recsys_rl.serving.loop.gate import GateConfig

TEXT = """Judge a candidate on held-out users of the record, before it may serve beside the champion.

Examples:
  recsys-rl gate policies/ppo-1.pt --db record.sqlite
  recsys-rl gate mine.pt --db record.sqlite --policies policies

The answer is better, no harm seen, worse, can't tell, or the log is broken. policies/SHA256.gate.md says in
words what was compared on whom, and what could be wrong; SHA256.gate.json is for recsys-rl release. The exit
code is 0 for better and no harm seen, 3 for worse, 4 for can't tell, 5 for a broken log.
docs/14_round_again.md explains it."""


def run(argv: list[str]) -> int:
    """Returns the exit code of the answer."""
    need("serve")
    options = gate_options(argv)
    from recsys_rl.serving.loop.gate import gate

    return gate(options).exit_code


def gate_options(argv: list[str]) -> GateConfig:
    """The settings from the command line. Raises UserError; `--help` raises SystemExit(0)."""
    from recsys_rl.serving.loop.gate import GateConfig

    @dataclass(frozen=True)
    class GateOptions(GateConfig):
        """The options of `gate`, with the candidate in first place."""

        challenger: tyro.conf.Positional[str | None] = None
        """The candidate: a checkpoint, of recsys-rl retrain or of your own."""

        def __post_init__(self) -> None:
            """Check nothing here: the GateConfig made from these options checks the values."""

    return checked(GateConfig, parse(GateOptions, GateOptions(), argv, "recsys-rl gate", TEXT))
