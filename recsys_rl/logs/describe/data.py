"""Describe a log file with its problems, or compare two of them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from recsys_rl.data.tables.columns import DecisionColumns, EventColumns, TimedFile
from recsys_rl.logs.describe.compare import Comparison, compare
from recsys_rl.logs.describe.description import Description
from recsys_rl.logs.describe.learnable import missing_most
from recsys_rl.logs.describe.learnable_lines import learnable_lines, reasons
from recsys_rl.logs.describe.survey import describe
from recsys_rl.settings.fields import Finite, check_fields
from recsys_rl.settings.names import learners_from_logs
from recsys_rl.utils.files import check_writable, write_text
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
