"""The survey of a log of events: facts, and the rows with each problem of their values."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from recsys_rl.data.tables.kinds import MOST
from recsys_rl.data.tables.layout import Count, Layout
from recsys_rl.data.tables.schema import (
    COLUMNS,
    Column,
    follows,
)
from recsys_rl.data.tables.times import UNCLEAR
from recsys_rl.data.tables.values import hashed, is_list
from recsys_rl.logs.describe.description import Description, Problem

CLOCK = (1e8, 7.3e9)  # numbers outside are not instants but counters: in seconds, these are 1973 and 2201
_MERGE = "train with --duplicates sum to merge them, or keep-first to drop them"
_DROP = "train with --missing drop to leave them out"


class EventSurvey:
    """The survey of a log of events."""

    mend_gaps = _DROP
    needed: tuple[str, ...] = ("user", "item", "time", "rating", "weight")  # roles whose gaps are refused

    def __init__(self, layout: Layout) -> None:
        self.layout, self.roles, self.rows = layout, layout.roles, layout.rows
        self.checks: dict[str, pl.Expr] = {}  # by the text of the problem
        self.mends: dict[str, str] = {}
        self.sums: dict[str, pl.Expr] = {}  # the sound numbers of a column, or lists of them

    def problems(self) -> dict[str, Count]:
        """The rows with each problem of their values."""
        self.check()
        return self.layout.counted(self.checks)

    def check(self) -> None:
        """Fill ``checks`` and ``sums``."""
        layout = self.layout
        for role, name in self.roles.items():
            if role != "event":
                text = f"column {name!r} has no value"
                self.checks[text] = layout.gap(name)
                self.mends[text] = self.mend_gaps if role in self.needed else ""
            if role in ("user", "session", "policy") and layout.types[name].is_nested():
                self.checks[f"column {name!r} has a list in place of a name"] = ~layout.gap(name)
        if layout.form is not None:
            name, rule = self.roles["time"], layout.form.rule
            why = f" ({rule})" if rule in UNCLEAR.values() else ""
            self.checks[f"column {name!r} has no time{why}"] = layout.seconds.is_null() & ~layout.gap(name)
        for role in ("rating", "weight"):
            if role in self.roles:
                self.numbers(
                    self.roles[role], layout.measure(self.roles[role]).cast(pl.Float64), COLUMNS[role]
                )
        self.outcomes()

    def outcomes(self) -> None:
        """Check rewards; those of a slate may be lists."""
        if "reward" in self.roles and not self.layout.slates:
            name = self.roles["reward"]
            self.numbers(name, self.layout.measure(name).cast(pl.Float64), COLUMNS["reward"])

    def numbers(self, name: str, numbers: pl.Expr, column: Column) -> None:
        """Check and sum the ``numbers`` of a column."""
        sound = follows(numbers, column)
        self.checks[f"column {name!r} {column.problem}"] = ~sound & ~self.layout.gap(name)
        self.sums[name] = pl.when(sound).then(numbers)

    def facts(self) -> Description:
        layout = self.layout
        self.ids = {role: self.counts(role) for role in ("user", "item") if role in self.roles}
        kinds = self.kinds()
        columns = {role: name for role, name in self.roles.items() if role != "event" or kinds}
        times = self.times()
        by_number = layout.form is not None and layout.form.order is None and times is not None
        return Description(
            columns=columns,
            rows=self.rows,
            users=self.ids["user"].height if "user" in self.ids else None,
            items=self.ids["item"].height if "item" in self.ids else None,
            sessions=self.sessions(),
            times=times,
            clock=not by_number or CLOCK[0] <= times[1] < CLOCK[1],  # type: ignore[index]
            time_unit=layout.form.unit if layout.form is not None and layout.form.order is None else "",
            ranges=self.ranges(),
            policies=self.policies(),
            kinds=kinds,
            events_of_item=spread(self.ids.get("item")),
            most_frequent=self.most_frequent(),
            others=tuple(name for name in layout.table.names if name not in columns.values()),
            note=layout.table.note,
        )

    def counts(self, role: str) -> pl.DataFrame:
        """The hashes of the distinct users or items, and their counts."""
        if role == "item" and self.layout.slates:
            return self.layout.counts(pl.first().hash(seed=7), self.of_slates())
        name = self.roles[role]
        return self.layout.counts(self.layout.hash(name), self.layout.scan.filter(~self.layout.gap(name)))

    def of_slates(self) -> pl.LazyFrame:
        """The items of all slates, one after another."""
        lists = self.layout.entries(self.roles["item"])
        return self.layout.scan.select(item=lists).explode("item").drop_nulls()

    def most_frequent(self) -> tuple[str, int] | None:
        """The item with the most events, and their number."""
        items = self.ids.get("item")
        if items is None or items.is_empty():
            return None
        top, count = items.sort("count", "value", descending=[True, False]).row(0)
        of_row = self.of_slates() if self.layout.slates else self.layout.scan.select(self.roles["item"])
        (kind,) = of_row.collect_schema().values()
        value = self.layout.collect(of_row.filter(hashed(pl.first(), kind) == top).head(1))
        return str(value.item()), count

    def ranges(self) -> dict[str, tuple[float, float, float]]:
        """The lowest number, the mean and the highest of each column of numbers."""
        # Columns first: in one step with the sums, each of the four would parse the texts again.
        numbers = self.layout.scan.select(total.alias(name) for name, total in self.sums.items())
        kinds = numbers.collect_schema()
        sums = [
            total.alias(f"{k} {name}")
            for name in self.sums
            for k, total in enumerate(_sums(name, kinds[name]))
        ]
        row = self.layout.collect(numbers.select(sums)).row(0) if sums else ()
        each = {name: row[4 * k : 4 * k + 4] for k, name in enumerate(self.sums)}
        return {name: (low, total / n, high) for name, (low, total, high, n) in each.items() if n}

    def kinds(self) -> dict[str, int]:
        """The rows of each kind of event; empty if there are more than MOST."""
        name = self.roles.get("event", "")
        if not name or self.layout.types[name].is_nested():
            return {}
        texts = pl.col(name).cast(pl.String, strict=False).str.strip_chars()
        scan = self.layout.scan.filter(~self.layout.gap(name))
        if self.layout.counts(texts.hash(), scan).height > MOST:
            return {}
        return dict(sorted(self.layout.counts(texts, scan).iter_rows(), key=lambda row: (-row[1], row[0])))

    def policies(self) -> dict[str, int]:
        """The rows of each logging policy."""
        name = self.roles.get("policy", "")
        if not name or self.layout.types[name].is_nested():
            return {}
        return dict(sorted(self.layout.counts(pl.col(name).cast(pl.String).fill_null("None")).iter_rows()))

    def times(self) -> tuple[float, float] | None:
        """The first and the last time in seconds."""
        if self.layout.form is None:
            return None
        seconds = self.layout.seconds.cast(pl.Float64)
        first, last = self.layout.collect(self.layout.scan.select(a=seconds.min(), b=seconds.max())).row(0)
        return None if first is None else (first, last)

    def sessions(self) -> int | None:
        """The number of sessions; an id may count the sessions of one user."""
        if "session" not in self.roles:
            return None
        whose = [
            self.layout.hash(self.roles[role]).alias(role)
            for role in ("user", "session")
            if role in self.roles
        ]
        return int(self.layout.collect(self.layout.scan.select(whose).unique().select(pl.len())).item())

    def repeats(self) -> dict[str, Count]:
        """Events of a user, an item and a time that an earlier row has."""
        roles = [role for role in ("user", "item", "time") if role in self.roles]
        text, count = (
            f"rows that repeat the {', '.join(roles)} of an earlier row",
            self.layout.repeated_events(),
        )
        self.mends[text] = _MERGE
        return {text: count} if count[0] else {}

    def alone(self) -> dict[str, Count]:
        """The rows of a log of one user, or of one item."""
        totals = {role: counts["count"][0] for role, counts in self.ids.items() if counts.height == 1}
        return {f"all rows with a value have the same {role}": (n, 1) for role, n in totals.items() if n > 1}

    def listed(self, counts: Mapping[str, Count]) -> tuple[Problem, ...]:
        table = self.layout.table
        line = table.line if table.of_lines else lambda row: None
        return tuple(
            Problem(text, count, row, line(row), table.place(row), self.mends.get(text, ""))
            for text, (count, row) in counts.items()
        )


def _sums(name: str, kind: pl.DataType) -> tuple[pl.Expr, ...]:
    """The lowest number of a column, their sum, the highest, and how many they are."""
    numbers = pl.col(name)
    if is_list(kind):
        return (
            numbers.list.min().min(),
            numbers.list.sum().sum(),
            numbers.list.max().max(),
            numbers.list.len().sum(),
        )
    return numbers.min(), numbers.sum(), numbers.max(), numbers.count()


def spread(counts: pl.DataFrame | None) -> tuple[int, int, int] | None:
    """The smallest, the median and the largest count; None without counts."""
    if counts is None or counts.is_empty():
        return None
    ordered = counts["count"].sort()
    return ordered[0], ordered[len(ordered) // 2], ordered[-1]
