"""Describe a log file with its problems, compare two of them, or split one in two."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from recsys_rl.errors import UserError
from recsys_rl.settings.fields import Finite, Range, check_fields
from recsys_rl.settings.names import learners_from_logs
from recsys_rl.settings.shared import Seed
from recsys_rl.tables.clean import Missing, dropped
from recsys_rl.tables.columns import DecisionColumns, EventColumns, TimedFile
from recsys_rl.tables.compare import Comparison, compare
from recsys_rl.tables.description import Description
from recsys_rl.tables.learnable import missing_most
from recsys_rl.tables.learnable_lines import learnable_lines, reasons
from recsys_rl.tables.split import repeated_rows, split_by_time, split_by_user
from recsys_rl.tables.survey import describe
from recsys_rl.utils.files import check_parquet, check_writable, write_text
from recsys_rl.utils.tasks import MapTasks, in_this_process
from recsys_rl.utils.terminal import say


@dataclass(frozen=True)
class DescribeConfig(EventColumns, DecisionColumns):
    """One file to describe."""

    file: str = ""
    """The log: a text file or Parquet."""
    json: str | None = None
    """File for the description as JSON."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class SplitConfig(TimedFile):
    """One file to split in two Parquet files."""

    file: str = ""
    """The log: a text file or Parquet."""
    session_column: str | None = None
    """Column of the session id. Sessions of different users are different."""
    by: Literal["time", "user"] = "time"
    """time: whole sessions, the latest in the second file. user: all rows of a random part of the users in
    the second file."""
    fraction: Annotated[float, Range(above=0, below=1)] = 0.2
    """Share of the second file: of the rows by time, of the users by user."""
    seed: Seed = 0
    """Seed of the draw of users."""
    missing: Missing = "refuse"
    """Rows without a time (by time) or without a user (by user): refuse the file, or drop the rows."""
    train: str = "train.parquet"
    """The first file."""
    test: str = "test.parquet"
    """The second file."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class CompareConfig(TimedFile):
    """Two log files to compare."""

    old: str = ""
    """The earlier log: a text file or Parquet, such as that of a training."""
    new: str = ""
    """The later log."""
    rating_column: str | None = None
    """Column of the rating. Without one in both files, every row is a like."""
    like_threshold: Finite | None = None
    """A rating of at least this much is a like (default: the lowest from three quarters of the scale of OLD
    on)."""
    json: str | None = None
    """File for the comparison as JSON."""

    def __post_init__(self) -> None:
        check_fields(self)


def compare_files(options: CompareConfig) -> Comparison:
    """Print what has changed from one log to another, and write it to the file of ``json``.

    Raises UserError.
    """
    if options.json is not None:
        check_writable(Path(options.json), "--json")
    comparison = compare(options.old, options.new, options.columns, options.separator, options.like_threshold)
    for line in comparison.lines():
        say(line)
    if options.json is not None:
        write_text(Path(options.json), json.dumps(dataclasses.asdict(comparison), indent=1) + "\n")
    return comparison


def describe_file(options: DescribeConfig, map_tasks: MapTasks = in_this_process) -> Description:
    """Print the description of a log, and write it to the file of ``json``. Raises UserError.

    ``map_tasks``: as in ``describe``.
    """
    if options.json is not None:
        check_writable(Path(options.json), "--json")
    description = describe(options.file, options.separator, options.columns, map_tasks)
    for line in description.lines():
        say(line)
    values = dataclasses.asdict(description) | {"density": description.density}
    if description.learnable is not None:
        needs = {name: algorithm.needs for name, algorithm in learners_from_logs().items()}
        for line in learnable_lines(description.learnable, needs):
            say(line)
        values["learners"] = reasons(description.learnable, needs)
        values["missing_most"] = missing_most(description.learnable)
    if options.json is not None:
        write_text(Path(options.json), json.dumps(values, indent=1) + "\n")
    return description


def split_file(options: SplitConfig) -> None:
    """Write both files and print the number of rows of each, and of repeated ones. Raises UserError."""
    train, test = Path(options.train), Path(options.test)
    if len({path.resolve() for path in (train, test, Path(options.file))}) < 3:
        raise UserError(f"{train}, {test} and {options.file} must be three files: give other names.")
    for path, option in ((train, "--train"), (test, "--test")):
        check_parquet(path, option)
    files = (Path(options.file), train, test)
    names, separator, missing = options.columns, options.separator, options.missing
    if options.by == "time":
        rows = split_by_time(*files, options.fraction, names, separator, missing)
    else:
        rows = split_by_user(*files, options.fraction, options.seed, names, separator, missing)
    note = f"; {dropped({options.by: rows[2]}, rows[2])}" if rows[2] else ""
    print(f"{train}: {rows[0]:,} rows; {test}: {rows[1]:,} rows{note}")
    repeated = repeated_rows(files[0], names, separator)
    if repeated:
        say(repeated)
