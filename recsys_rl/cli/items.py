"""`recsys-rl items`."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from recsys_rl.cli.extras import need
from recsys_rl.cli.parse import parse
from recsys_rl.errors import UserError
from recsys_rl.settings.fields import check_fields

TEXT = """Let the items of a running server come, change and go: it has those of FILE from then on.

Examples:
  recsys-rl items new.csv                         these come, or change; the others stay
  recsys-rl items shop.csv --only                 the whole stock: items that the file lacks are withdrawn

The file has a row for each item: its id, a title, and the columns that the place knows. All of it is taken or
nothing, and twice is once. The server must be at a place of your own. docs/10_serving.md explains it."""


@dataclass(frozen=True)
class ItemsOptions:
    """The options of `recsys-rl items`."""

    file: tyro.conf.Positional[str | None] = None
    """The items: a table with the columns that the place knows."""
    only: bool = False
    """Withdraw the items that the file lacks: it is the whole stock."""
    url: str = "http://127.0.0.1:8000"
    """The server."""
    token: str | None = None
    """A token of the server, with the scopes items and read."""

    def __post_init__(self) -> None:
        check_fields(self)


def run(argv: list[str]) -> None:
    need("serve")
    options = items_options(argv)
    if options.file is None:
        raise UserError("The file of the items is missing: give it, recsys-rl items FILE.")
    from recsys_rl.serving.loop.post_items import post_items

    for line in post_items(options.file, options.url, options.token, options.only).lines:
        print(line)


def items_options(argv: list[str]) -> ItemsOptions:
    """The options from the command line. Raises UserError; `--help` raises SystemExit(0)."""
    return parse(ItemsOptions, ItemsOptions(), argv, "recsys-rl items", TEXT)
