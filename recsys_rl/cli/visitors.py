"""`recsys-rl visitors`."""

from __future__ import annotations

from recsys_rl.cli.parse import latest_checkpoint, parse
from recsys_rl.serving.loop.visitors import VisitorsConfig, visitors

TEXT = """Let simulated people use a running server over HTTP, and print return, latency and events.

Examples:
  recsys-rl visitors --env satiation                    200 sessions at http://127.0.0.1:8000
  recsys-rl visitors --url http://127.0.0.1:9000 --sessions 2000 --users all"""


def run(argv: list[str]) -> None:
    visitors(visitors_options(argv))


def visitors_options(argv: list[str]) -> VisitorsConfig:
    """The settings from the command line. Raises UserError; `--help` raises SystemExit(0)."""
    default = VisitorsConfig(checkpoint=latest_checkpoint(argv))
    return parse(VisitorsConfig, default, argv, "recsys-rl visitors", TEXT)
