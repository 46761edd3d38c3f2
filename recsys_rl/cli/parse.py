"""Parse options with tyro, with errors of one sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Callable
from typing import Any, TypeVar

import tyro

from recsys_rl.agents import AGENTS
from recsys_rl.cli.names import peek as peek
from recsys_rl.cli.names import refuse
from recsys_rl.errors import UserError
from recsys_rl.lookup import DEFAULT_ALGO

T = TypeVar("T")


def parse(
    cls: type[T],
    default: T,
    argv: list[str],
    prog: str,
    description: str,
    see: str,
    whose: Callable[[str], str | None] = lambda option: None,
) -> T:
    """Parse with tyro, and turn its errors into a UserError of one sentence.

    ``whose`` returns the rest of the sentence about an unknown option that another platform, algorithm or
    source has; None for any other option.
    """
    drawing = io.StringIO()
    try:
        with contextlib.redirect_stderr(drawing):
            options, unknown = tyro.cli(
                cls,
                prog=prog,
                description=description,
                args=argv,
                default=default,
                return_unknown_args=True,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.AvoidSubcommands),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{_complaint(drawing.getvalue())} See {see}.") from None
    if unknown:
        name = unknown[0].partition("=")[0]
        if not name.startswith("-") and hasattr(options, "files"):
            raise UserError(f"The position of {name!r} is not allowed: name all files together; see {see}.")
        refuse(name, option_names(default), see, whose)
    return options


def checked(config: type[T], options: Any) -> T:
    """The settings ``config``, which check their values, from ``options``, a subclass that does not.

    The command line has positional and repeated options, which are types of the subclass alone.
    """
    return config(**{f.name: getattr(options, f.name) for f in dataclasses.fields(config)})  # type: ignore[arg-type]


def _complaint(drawing: str) -> str:
    """The sentence in tyro's error text: title, rule, sentence, rule, help; with or without a frame."""
    plain = re.sub(r"\x1b\[[0-9;]*m|[╭╮╰╯│]", "", drawing)
    parts = [" ".join(part.split()) for part in re.split("─+|-{4,}", plain)]
    title, *rest = [part for part in parts if part]
    return (rest[0] if rest else title).rstrip(".") + "."


def option_names(options: Any) -> list[str]:
    names = []
    for f in dataclasses.fields(options):
        value = getattr(options, f.name)
        names += option_names(value) if dataclasses.is_dataclass(value) else ["--" + f.name.replace("_", "-")]
    return names


def latest_checkpoint(argv: list[str]) -> str:
    """The checkpoint of the latest run of ``--algo``, or of the default algorithm."""
    algo = peek(argv, "algo").algo
    return f"checkpoints/{algo if algo in AGENTS else DEFAULT_ALGO}.pt"
