"""`recsys-rl data describe` and `recsys-rl data compare`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tyro

from recsys_rl.cli.parse import checked, parse, subcommand
from recsys_rl.cli.tasks import TaskOptions, shared_by
from recsys_rl.errors import UserError
from recsys_rl.logs.describe.data import (
    CompareConfig,
    DescribeConfig,
    compare_files,
    describe,
)

OVERVIEW = """usage: recsys-rl data describe LOG ... [OPTIONS]
       recsys-rl data compare OLD NEW [OPTIONS]

describe   print rows, users, items, times and ranges of a log, each problem with its first row, and what can
           be learned from decisions
compare    print what has changed from one log to another: unknown users and items, likes, popularity

`recsys-rl data describe --help` lists its options, and so does the other."""

DESCRIBE = """Describe a log, one file or several: Parquet, JSON lines, or text with any separator (.csv .tsv
.dat .data .txt .inter, also .gz).

Examples:
  recsys-rl data describe plays.tsv
  recsys-rl data describe clicks.parquet --user-column visitor --json clicks.json
  recsys-rl data describe may.csv june.parquet    both as one log, as train --log reads them
  recsys-rl data describe log --jobs 8            a folder of parts, whose checksums eight processes compute

Of a log of decisions it also says which algorithms can learn from it, why the others can't, and what is
missing most."""

COMPARE = """Compare a later log with an earlier one, such as that of a training.

Examples:
  recsys-rl data compare may.csv june.csv
  recsys-rl data compare may.parquet june.parquet --user-column visitor --json drift.json"""


@dataclass(frozen=True)
class DescribeOptions(TaskOptions, DescribeConfig):
    """The options of `data describe`. The files are given without an option."""

    log: tyro.conf.Positional[tuple[str, ...]] = ()
    """The log: a text file, JSON lines or Parquet, or several, which are described as one."""

    def __post_init__(self) -> None:
        """Check nothing here: the DescribeConfig made from these options checks the values."""


@dataclass(frozen=True)
class CompareOptions(CompareConfig):
    """The options of `data compare`. The files are given without an option."""

    old: tyro.conf.Positional[str] = ""
    """The earlier log: a text file or Parquet, such as that of a training."""
    new: tyro.conf.Positional[str] = ""
    """The later log."""

    def __post_init__(self) -> None:
        """Check nothing here: the CompareConfig made from these options checks the values."""


COMMANDS: dict[str, tuple[type[Any], type[Any], str, Callable[..., object]]] = {
    "describe": (DescribeOptions, DescribeConfig, DESCRIBE, describe),
    "compare": (CompareOptions, CompareConfig, COMPARE, compare_files),
}
"""The options of each command, its settings, the text of its --help, and what it does."""


def run(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print(OVERVIEW)
        return
    options = _typed(argv)
    _, config, _, work = COMMANDS[argv[0]]
    if not isinstance(options, TaskOptions):
        work(checked(config, options))
        return
    with shared_by(options) as map_tasks:
        work(checked(config, options), map_tasks)


def data_options(argv: list[str]) -> Any:
    """The settings of the command that is the first word of ``argv``.

    Raises UserError; `--help` raises SystemExit(0).
    """
    options = _typed(argv)
    return checked(COMMANDS[argv[0]][1], options)


def _typed(argv: list[str]) -> Any:
    """The options as they are given, unchecked."""
    name = argv[0]
    options_type, _, text, _ = subcommand("data", name, COMMANDS)
    prog = f"recsys-rl data {name}"
    options = parse(options_type, options_type(), argv[1:], prog, text)
    if name == "compare":
        if not options.old or not options.new:
            raise UserError(f"{prog} needs two files: give the paths of an earlier and a later log.")
    elif not options.log:
        raise UserError(f"{prog} needs a file: give the path of a log.")
    return options
