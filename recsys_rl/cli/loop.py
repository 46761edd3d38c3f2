"""`recsys-rl loop`."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from recsys_rl.cli.extras import need
from recsys_rl.cli.parse import parse
from recsys_rl.cli.stop import stopping

if TYPE_CHECKING:
    from recsys_rl.serving.loop.take_turns import LoopConfig

TOKEN = "RECSYS_RL_TOKEN"
"""The variable with the token of the server: a command line can be read by everybody on the machine."""

TEXT = """One turn of the loop, beside a running server: learn from its record, judge what was learned on
held-out users, let the best serve some of the sessions, more of them while no harm is seen, and promote it or
take it back.

Each call takes the steps that are due, and ends. Start it again when more sessions have come in, as every
night; a call that was killed is started again, too. examples/nightly has a timer. A server with tokens takes
that of --token, or of the variable RECSYS_RL_TOKEN, which nobody else can read.

Examples:
  recsys-rl serve --checkpoint policies/ --db record.sqlite &
  recsys-rl loop --db record.sqlite --policies policies
  recsys-rl release status                                   what serves now, and what the canary knows"""


def run(argv: list[str]) -> None:
    need("serve")
    options = loop_options(argv)
    if options.token is None:
        options = replace(options, token=os.environ.get(TOKEN))
    from recsys_rl.logs.users import fit_users
    from recsys_rl.serving.loop.take_turns import loop
    from recsys_rl.training import train

    line = "Stopped: start the same command again to go on."
    with stopping(train.Interrupted, fit_users.Interrupted, line=line):
        loop(options)


def loop_options(argv: list[str]) -> LoopConfig:
    """The settings from the command line. Raises UserError; `--help` raises SystemExit(0)."""
    need("serve")
    from recsys_rl.serving.loop.take_turns import LoopConfig

    return parse(LoopConfig, LoopConfig(), argv, "recsys-rl loop", TEXT)
