"""`recsys-rl serve`."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from recsys_rl.cli.parse import latest_checkpoint, parse
from recsys_rl.errors import UserError

if TYPE_CHECKING:
    from recsys_rl.serve.server import ServeConfig

TEXT = """Serve a trained policy over HTTP, and write down every decision with its probability.

Examples:
  recsys-rl serve                                             checkpoints/ppo.pt at http://127.0.0.1:8000
  recsys-rl serve --checkpoint policies/ --db record.sqlite   the versions in a folder
  curl -s localhost:8000/v1/recommend -H 'content-type: application/json' -d '{"user_id": "42"}'"""
ABSENT = ("uvloop", "win32")  # asyncio's own loop serves there
NEEDED = ("httptools", "msgspec", "prometheus_client", "starlette", "uvicorn", "uvloop")


def need_serve() -> None:
    """Raise UserError, in one sentence, if a package of the extra is missing."""
    missing = [name for name in NEEDED if find_spec(name) is None and (name, sys.platform) != ABSENT]
    if missing:
        raise UserError(
            f"This command needs packages that are not installed ({', '.join(missing)}): "
            "pip install 'recsys-rl[serve]', or pip install -e '.[serve]' in the checkout."
        )


def run(argv: list[str]) -> None:
    options = serve_options(argv)
    from recsys_rl.serve.server import serve

    serve(options)


def serve_options(argv: list[str]) -> ServeConfig:
    """The settings from the command line. Raises UserError; `--help` raises SystemExit(0)."""
    need_serve()
    from recsys_rl.serve.server import ServeConfig

    default = ServeConfig(checkpoint=latest_checkpoint(argv))
    return parse(ServeConfig, default, argv, "recsys-rl serve", TEXT, "recsys-rl serve --help")
