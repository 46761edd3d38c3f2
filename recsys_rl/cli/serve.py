"""`recsys-rl serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsys_rl.cli.extras import need
from recsys_rl.cli.parse import latest_checkpoint, parse

if TYPE_CHECKING:
    from recsys_rl.serving.options import ServeConfig

TEXT = """Serve a trained policy over HTTP, and write down every decision with its probability.

Examples:
  recsys-rl serve                                             checkpoints/ppo.pt at http://127.0.0.1:8000
  recsys-rl serve --checkpoint policies/ --db record.sqlite   the versions in a folder
  recsys-rl serve --observe-only --items items.csv --signals clicked   no policy yet: record what you show
  curl -s localhost:8000/v1/recommend -H 'content-type: application/json' -d '{"user_id": "42"}'"""


def run(argv: list[str]) -> None:
    options = serve_options(argv)
    from recsys_rl.serving.server import serve

    serve(options)


def serve_options(argv: list[str]) -> ServeConfig:
    """The settings from the command line. Raises UserError; `--help` raises SystemExit(0)."""
    need("serve")
    from recsys_rl.serving.options import ServeConfig

    folder = "policies" if "--observe-only" in argv else latest_checkpoint(argv)
    default = ServeConfig(checkpoint=folder)
    return parse(ServeConfig, default, argv, "recsys-rl serve", TEXT)
