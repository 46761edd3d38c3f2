"""`recsys-rl data describe` and `recsys-rl data split`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tyro

from recsys_rl.cli.parse import checked, parse
from recsys_rl.errors import UserError
from recsys_rl.schema import did_you_mean
from recsys_rl.workflows.data import DescribeConfig, SplitConfig, describe_file, split_file

OVERVIEW = """usage: recsys-rl data describe FILE [OPTIONS]
       recsys-rl data split FILE [OPTIONS]

describe   print rows, users, items, times and ranges of a log, and each problem with its first row
split      write two Parquet files, split by time (no session in both) or by user (no user in both)

`recsys-rl data describe --help` and `recsys-rl data split --help` list the options."""

DESCRIBE = """Describe a log file: Parquet, or text with any separator (.csv .tsv .dat .data .txt .inter .gz).

Examples:
  recsys-rl data describe plays.tsv
  recsys-rl data describe clicks.parquet --user-column visitor --json clicks.json"""

SPLIT = """Split a log file in two Parquet files.

Examples:
  recsys-rl data split plays.tsv                             the latest 20 % of the rows to test.parquet
  recsys-rl data split plays.tsv --by user --fraction 0.1    a tenth of the users to test.parquet"""


@dataclass(frozen=True)
class DescribeOptions(DescribeConfig):
    """The options of `data describe`. The file is given without an option."""

    file: tyro.conf.Positional[str] = ""
    """The log: a text file or Parquet."""

    def __post_init__(self) -> None:
        """Check nothing here: the DescribeConfig made from these options checks the values."""


@dataclass(frozen=True)
class SplitOptions(SplitConfig):
    """The options of `data split`. The file is given without an option."""

    file: tyro.conf.Positional[str] = ""
    """The log: a text file or Parquet."""

    def __post_init__(self) -> None:
        """Check nothing here: the SplitConfig made from these options checks the values."""


def run(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print(OVERVIEW)
        return
    config = data_options(argv)
    if isinstance(config, DescribeConfig):
        describe_file(config)
    else:
        split_file(config)


def data_options(argv: list[str]) -> DescribeConfig | SplitConfig:
    """The settings of ``describe`` or ``split``, the first word of ``argv``.

    Raises UserError; `--help` raises SystemExit(0).
    """
    first, rest = argv[0], argv[1:]
    found: DescribeConfig | SplitConfig
    if first == "describe":
        found = _options(DescribeOptions, DescribeConfig, rest, first, DESCRIBE)
    elif first == "split":
        found = _options(SplitOptions, SplitConfig, rest, first, SPLIT)
    else:
        near = did_you_mean(first, ("describe", "split"))
        raise UserError(f"There is no command data {first!r}{near}: choose from describe, split.")
    return found


def _options(cls: type[Any], config: type[Any], argv: list[str], name: str, text: str) -> Any:
    prog = f"recsys-rl data {name}"
    options = parse(cls, cls(), argv, prog, text, f"{prog} --help")
    if not options.file:
        raise UserError(f"{prog} needs a file: give the path of a log.")
    return checked(config, options)
