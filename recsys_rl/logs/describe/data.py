"""Describe a log file with its problems, or compare two of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from recsys_rl.data.tables.columns import DecisionColumns, EventColumns, TimedFile
from recsys_rl.data.tables.frames import with_files
from recsys_rl.errors import UserError, amount, listed, short
from recsys_rl.logs.describe import survey
from recsys_rl.logs.describe.compare import Comparison, compare
from recsys_rl.logs.describe.description import Description
from recsys_rl.logs.describe.learnable import (
    DecisionFacts,
    Propensities,
    fault_for,
    lacks_candidates,
    missing_most,
)
from recsys_rl.settings.fields import Finite, build, check_fields
from recsys_rl.settings.names import learners_from_logs
from recsys_rl.settings.shared import Need
from recsys_rl.utils.files import check_writable, write_text
from recsys_rl.utils.tasks import MapTasks, in_this_process
from recsys_rl.utils.terminal import say


def learnable_lines(log: DecisionFacts, needs: Mapping[str, Collection[Need]]) -> Iterator[str]:
    """The lines about learning from the log. ``needs``: what each algorithm needs, by its name."""
    yield "to learn from this log:"
    yield f"  {_context(log)}"
    if log.propensities is None:
        yield "  propensities: none"
    else:
        yield f"  propensities: {_propensities(log, log.propensities)}"
        yield from _effective(log, log.propensities)
    against = reasons(log, needs)
    able = [algo for algo, reason in against.items() if not reason]
    condition = "" if log.sound else ", once the problems above are mended"
    yield f"  can learn{condition}: {', '.join(able) or 'none'}"
    for reason in dict.fromkeys(filter(None, against.values())):
        unable = [algo for algo in against if against[algo] == reason]
        yield f"  can't learn: {', '.join(unable)} ({reason})"
    yield f"  missing most: {missing_most(log)}"


def reasons(log: DecisionFacts, needs: Mapping[str, Collection[Need]]) -> dict[str, str]:
    """Why each algorithm can't learn from the log; "" for one that can."""
    against = {algo: fault_for(log, of_algorithm) for algo, of_algorithm in needs.items()}
    return {algo: "" if fault is None else fault.text for algo, fault in against.items()}


def _context(log: DecisionFacts) -> str:
    more = " beside what a session determines" if log.derived else ""
    if log.constant_share is None:
        return f"context: none{more or ' (columns context.NAME)'}"
    size = sum(piece.size for piece in log.context)
    text = f"context: {amount(size, 'number')} in {amount(len(log.context), 'column')}{more}"
    constant = [piece.column for piece in log.context if piece.constant]
    names = f" ({listed(constant)})" if constant else ""
    gaps = [f"{piece.column} in {amount(piece.gaps, 'row')}" for piece in log.context if piece.gaps]
    without = f"; without a value: {listed(gaps)}" if gaps else ""
    odd = "".join(f"; {piece.column} is one of texts: {piece.odd}" for piece in log.context if piece.odd)
    return f"{text}, {log.constant_share:.1%} of them the same in all rows{names}{without}{odd}"


def _propensities(log: DecisionFacts, known: Propensities) -> str:
    where = "in all rows" if known.rows == log.rows else f"in {known.rows:,} of {amount(log.rows, 'row')}"
    if known.mean_inverse is None:
        return f"{where}, not compared with the number of choices"
    text = f"{where}; mean of 1 / (propensity x items) {known.mean_inverse:.3f}"
    if known.low is None or known.high is None:
        return f"{text} (1 is right)"
    text += f" [{known.low:.3f}, {known.high:.3f}]"
    if known.too_small:
        return f"{text}: above 1, so they are too small, or more items could be shown"
    if lacks_candidates(log):
        why = "each row could show fewer items, most likely, and a column candidates is missing"
        return f"{text}: below 1: {why}"
    if known.too_large:
        return f"{text}: below 1, so some items have no chance, or propensities are too large"
    if known.excess is not None:
        return f"{text} (1 is right), but they don't fit the items shown"
    return f"{text}: plausible (1 is right)"


def _effective(log: DecisionFacts, known: Propensities) -> Iterator[str]:
    if known.uniform_ess is None:
        return
    text = f"uniform policy {known.uniform_ess:,.0f} of {amount(log.rows, 'row')}"
    if known.session_ess is not None:
        text += f" ({known.session_ess:,.1f} whole sessions)"
    if known.best_item is not None:
        best = known.best_item
        text += f"; best single item, {short(best.item)}, {best.ess:,.0f} of the {best.rows:,} that show it"
    yield f"  effective sample size: {text}"


@dataclass(frozen=True)
class DescribeConfig(EventColumns, DecisionColumns):
    """One log to describe."""

    log: tuple[str, ...] = ()
    """The log: a text file, JSON lines or Parquet, or several, which are described as one."""
    json: str | None = None
    """File for the description as JSON."""

    def __post_init__(self) -> None:
        if isinstance(self.log, str | PurePath):
            object.__setattr__(self, "log", (str(self.log),))
        check_fields(self)
        if not self.log:
            raise UserError("There is no log to describe: give at least one file.")


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
        check_writable(Path(options.json), "--json", (options.old, options.new))
    comparison = compare(options.old, options.new, options.columns, options.separator, options.like_threshold)
    for line in comparison.lines():
        say(line)
    if options.json is not None:
        write_text(Path(options.json), json.dumps(dataclasses.asdict(comparison), indent=1) + "\n")
    return comparison


def describe(
    options: DescribeConfig | None = None, map_tasks: MapTasks = in_this_process, **settings: Any
) -> Description:
    """Print the description of a log, and write it to the file of ``json``. Raises UserError.

        describe(log=frame, user_column="visitor")

    Args:
        options: all settings; None: those of ``settings``.
        map_tasks: as in ``survey.describe``.
        settings: fields of DescribeConfig; ``log`` may be a path, a data frame, or a list of these.
    """
    with with_files(settings) as known:
        return _described(
            build(DescribeConfig, {**({} if options is None else vars(options)), **known}), map_tasks
        )


def _described(options: DescribeConfig, map_tasks: MapTasks) -> Description:
    if options.json is not None:
        check_writable(Path(options.json), "--json", options.log)
    description = survey.describe(options.log, options.separator, options.columns, map_tasks)
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
