"""The description of a log file, as survey.py finds it: facts, problems, and lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from recsys_rl.data.tables.schema import COLUMNS, CONTEXT_HINT, columns_text
from recsys_rl.errors import amount, listed
from recsys_rl.logs.describe.learnable import DecisionFacts


@dataclass(frozen=True)
class Problem:
    """A kind of problem: the number of rows that have it, and the first of them, from 1 below the header."""

    text: str
    count: int
    first_row: int
    first_line: int | None = field(default=None, compare=False)  # of a text file, as an editor counts
    first: str = field(default="", compare=False)  # words for it: its line, or its row within its file
    mend: str = field(default="", compare=False)  # options of the commands that read such a file


@dataclass(frozen=True)
class Description:
    """Facts about a log file. A count is None, and a mapping is empty, if the file has no such column."""

    columns: Mapping[str, str]  # the column of each role
    rows: int
    users: int | None = None
    items: int | None = None
    sessions: int | None = None
    times: tuple[float, float] | None = None  # the first and the last, in seconds
    clock: bool = True  # False: times are counters, such as steps, and no instants
    time_unit: str = ""  # of numbers
    ranges: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)  # low, mean, high
    policies: Mapping[str, int] = field(default_factory=dict)  # rows of each logging policy
    kinds: Mapping[str, int] = field(default_factory=dict)  # rows of each kind of event
    events_of_item: tuple[int, int, int] | None = None  # fewest, median, most events of an item
    most_frequent: tuple[str, int] | None = None  # the item with the most events
    shown_of_item: tuple[int, int, int] | None = None  # likewise: rows in which an item could be shown
    candidates_per_row: float | None = None
    inverse_propensity: float | None = None  # mean of 1 / propensity
    catalogue_items: int | None = None  # in the header of a log of decisions; not each was shown
    slate_size: int = 1
    problems: tuple[Problem, ...] = ()
    others: tuple[str, ...] = ()  # columns without a role
    learnable: DecisionFacts | None = None  # what of a log of decisions decides who can learn from it
    note: str = ""  # how the file was read: without a header, in another encoding

    @property
    def density(self) -> float | None:
        """Rows for each pair of a user and an item."""
        return None if not self.users or not self.items else self.rows / (self.users * self.items)

    def lines(self) -> Iterator[str]:
        """The description for people."""
        yield columns_text(self.columns)
        if self.note:
            yield f"the file is {self.note}"
        if self.others:
            hint = "" if self.learnable is None else CONTEXT_HINT
            yield f"columns without a known role: {listed(self.others)}{hint}"
        lacking = [role for role in ("user", "item") if role not in self.columns]
        if lacking:
            options = " and ".join(COLUMNS[role].option for role in lacking)
            yield f"no column for the {' and the '.join(lacking)} is known: give {options}"
        counts = {"rows": self.rows, "users": self.users, "items": self.items, "sessions": self.sessions}
        yield ", ".join(f"{count:,} {name}" for name, count in counts.items() if count is not None)
        if self.density is not None:
            yield f"density: {self.density:.3%} (rows for each pair of a user and an item)"
        if self.times is not None:
            if self.clock:
                unit = f" (numbers of {self.time_unit})" if self.time_unit not in ("", "seconds") else ""
                yield f"time: {_instant(self.times[0])} to {_instant(self.times[1])}{unit}"
            else:
                first, last = self.times
                yield f"time: {first:,.10g} to {last:,.10g} (no dates: numbers of steps or rows)"
        for name, (low, mean, high) in self.ranges.items():
            yield f"{name}: {low:,.6g} to {high:,.6g}, mean {mean:,.6g}"
        if self.events_of_item is not None and self.most_frequent is not None:
            name, count = self.most_frequent
            yield f"events of an item: {_spread(self.events_of_item)} ({name!r}: {count:,})"
        if self.shown_of_item is not None:
            yield f"rows in which an item could be shown: {_spread(self.shown_of_item)}"
        if self.inverse_propensity is not None:
            yield f"mean of 1/propensity: {self.inverse_propensity:,.4g} ({self._expected()})"
        if self.policies:
            each = ", ".join(f"{name!r} {count:,}" for name, count in self.policies.items())
            yield f"logging policies: {len(self.policies)} ({each})"
        if self.kinds:
            each = ", ".join(f"{name!r} {count:,}" for name, count in self.kinds.items())
            yield f"kinds of events: {len(self.kinds)} ({each}), weighted in training by --event-weights"
        yield f"problems: {len(self.problems)}" if self.problems else "problems: none"
        for problem in self.problems:
            mend = f" ({problem.mend})" if problem.mend else ""
            yield f"  {problem.text}: {amount(problem.count, 'row')}, the first is {problem.first}{mend}"

    def _expected(self) -> str:
        """The expectation of 1/p: the number of actions that the policy could take."""
        if self.slate_size > 1:
            return "expected: the number of slates that could be shown"
        if self.candidates_per_row is not None:
            return f"{self.candidates_per_row:,.4g} candidates a row, its expectation if each has p > 0"
        most, where = self.items or 0, ""
        if self.catalogue_items is not None:
            most, where = self.catalogue_items, " in the header"
        return f"expected: the number of items that could be shown, at most the {most:,}{where}"


def _instant(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{seconds:,.0f} s"


def _spread(counts: tuple[int, int, int]) -> str:
    return f"{counts[0]:,} to {counts[2]:,}, median {counts[1]:,}"
