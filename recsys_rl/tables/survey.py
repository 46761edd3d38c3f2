"""Describe a log file: events, or decisions of `recsys-rl record` and of others.

The file is scanned and not held in memory. Distinct users, items and repeated rows are counted by hashes, 8
bytes each. The rules of sessions alone keep up to 30 bytes a row, with hashes in place of ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from recsys_rl.errors import listed
from recsys_rl.tables.checks import OF_LISTS, OF_SESSIONS, broken
from recsys_rl.tables.description import Description, Problem
from recsys_rl.tables.kinds import MOST
from recsys_rl.tables.layout import ROW, Count, Layout, roles_of
from recsys_rl.tables.read import HEADLESS, files_of, has_header, open_table
from recsys_rl.tables.reader import check_pieces, files_of_log, read_header
from recsys_rl.tables.schema import (
    BY_NAME,
    BY_START,
    COLUMNS,
    Column,
    column_of,
    follows,
    named,
    of_propensities,
    value,
)
from recsys_rl.tables.times import UNCLEAR
from recsys_rl.tables.values import as_texts, hashed, is_list
from recsys_rl.types import UserError

CLOCK = (1e8, 7.3e9)  # numbers outside are not instants but counters: in seconds, these are 1973 and 2201
# Recorded logs (tables/writer.py) have further columns.
_NAMES = (*BY_NAME, "exclude", "logger_logprobs")
_STARTS = (*BY_START, "event_")
_MERGE = "train with --duplicates sum to merge them, or keep-first to drop them"
_DROP = "train with --missing drop to leave them out"
_FILL = "fill them in, or leave these sessions out"


def describe(
    path: str | Path, separator: str | None = None, given: Mapping[str, str | None] | None = None
) -> Description:
    """Describe the file at ``path``. ``given`` names columns by role.

    Raises UserError if it is not a table file, has no row or no column with a known name, or lacks a part.
    """
    path = Path(path)
    table, recorded = open_table(path, separator, HEADLESS), has_header(path)
    if recorded:
        files_of_log(path)
    roles = roles_of(table, given or {})
    if not roles.keys() - {"event"}:
        raise UserError(
            f"{path}: no column has a known name; its columns are {listed(table.names)}: name them with "
            "--user-column, --item-column and others, put a header above the first line if it is a row of "
            "the data, or give --separator if these are not columns."
        )
    layout = Layout(table, roles)
    survey = _Decisions(layout) if layout.holds_decisions else _Survey(layout)
    if not survey.rows:
        raise UserError(f"{path} holds no rows: give a log with at least one.")
    found = survey.problems()
    description = survey.facts()
    if recorded:
        if not _is_whole(path, bool(found)):
            found["the rows are not those that were written, by the checksum in the header"] = (
                survey.rows,
                1,
            )
        description = replace(description, catalogue_items=_items_of_header(path))
    return replace(description, problems=survey.listed(found | survey.repeats() | survey.alone()))


class _Survey:
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
            events_of_item=_spread(self.ids.get("item")),
            most_frequent=self.most_frequent(),
            others=tuple(x for x in layout.table.names if x not in columns.values()),
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
        found = self.layout.collect(of_row.filter(hashed(pl.first(), kind) == top).head(1))
        return str(found.item()), count

    def ranges(self) -> dict[str, tuple[float, float, float]]:
        """The lowest number, the mean and the highest of each column of numbers."""
        # Columns first: in one step with the sums, each of the four would parse the texts again.
        numbers = self.layout.scan.select(x.alias(name) for name, x in self.sums.items())
        kinds = numbers.collect_schema()
        sums = [x.alias(f"{k} {name}") for name in self.sums for k, x in enumerate(_sums(name, kinds[name]))]
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
        return dict(sorted(self.layout.counts(texts, scan).iter_rows(), key=lambda x: (-x[1], x[0])))

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
        found = self.layout.seconds.cast(pl.Float64)
        first, last = self.layout.collect(self.layout.scan.select(a=found.min(), b=found.max())).row(0)
        return None if first is None else (first, last)

    def sessions(self) -> int | None:
        """The number of sessions; an id may count the sessions of one user."""
        if "session" not in self.roles:
            return None
        whose = [self.layout.hash(self.roles[x]).alias(x) for x in ("user", "session") if x in self.roles]
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
        totals = {role: x["count"][0] for role, x in self.ids.items() if x.height == 1}
        return {f"all rows with a value have the same {role}": (n, 1) for role, n in totals.items() if n > 1}

    def listed(self, found: Mapping[str, Count]) -> tuple[Problem, ...]:
        table = self.layout.table
        return tuple(
            Problem(
                text, count, row, None if table.raw is None else table.line(row), self.mends.get(text, "")
            )
            for text, (count, row) in found.items()
        )


class _Decisions(_Survey):
    """The survey of a log of decisions: the problems for which `recsys-rl ope` refuses it."""

    mend_gaps = _FILL
    needed = ("user", "item", "time", "session", "reward", "propensity", "policy", "candidates", "step")

    def __init__(self, layout: Layout) -> None:
        names, roles = layout.table.names, {x: y for x, y in layout.roles.items() if x != "event"}
        if "session" in roles and "step" in names:
            roles["step"] = "step"
        self.by_step = "step" in roles
        # A log without steps may show an item twice to a user: only a whole row can be a repeat.
        self.whole_rows = not self.by_step and bool({"session", "time"} & roles.keys())
        self.signals = list(named(names, "signal.").values())
        self.ends = [name for name in ("terminated", "truncated") if name in names]
        exclude = [name for name in ("exclude",) if name in names]
        super().__init__(
            Layout(layout.table, roles, names if self.whole_rows else (*self.signals, *exclude, *self.ends))
        )
        self.inverse: pl.Expr | None = None
        self.later: set[str] = set()  # texts of the checks that follow those of the lists
        self.slate_size = 1
        if self.layout.slates:
            self.sizes = self.layout.lists(roles["item"]).list.len()
            self.slate_size = self.layout.collect(self.layout.scan.head(1).select(self.sizes)).item() or 0

    def problems(self) -> dict[str, Count]:
        values, lists = super().problems(), self._wrong_lists()
        first = {text: values[text] for text in values if text not in self.later}
        found = first | lists | values | self._wrong_sessions()
        if "session" not in self.roles and "step" in self.layout.table.names:
            found["steps, and no column of sessions: name it with --session-column"] = (self.rows, 1)
        return found

    def outcomes(self) -> None:
        """Check propensities, signals, rewards and steps."""
        if "propensity" in self.roles:
            self._propensities(self.roles["propensity"])
        if self.layout.slates:
            text = f"slates of another size than the first ({self.slate_size})"
            self.checks[text] = (self.sizes != self.slate_size).fill_null(False)
        earlier = set(self.checks)
        for name in self.signals:
            self.checks[f"column {name!r} has no value"] = self.layout.gap(name)
            self._outcome(name, column_of(name))
        if "reward" in self.roles:
            self._outcome(self.roles["reward"], COLUMNS["reward"])
        if self.by_step:
            rule = COLUMNS["step"]
            wrong = ~follows(self._value("step", rule), rule) & ~self.layout.gap("step")
            self.checks[f"column 'step' {rule.problem}"] = wrong
        self.later = self.checks.keys() - earlier

    def _value(self, name: str, column: Column) -> pl.Expr:
        return value(pl.col(name), self.layout.types[name], column)

    def _propensities(self, name: str) -> None:
        rule = of_propensities(name)
        found = self._value(name, rule)
        known = found.is_finite().fill_null(False)
        self.checks[f"column {name!r} has no finite number"] = ~known & ~self.layout.gap(name)
        self.checks[f"column {name!r} {rule.problem}"] = known & ~follows(found, rule)
        chances = found.exp() if rule.name == "logprob" else found
        self.sums["propensity" if rule.name == "logprob" else name] = pl.when(known).then(chances)
        self.inverse = pl.when(known & follows(found, rule)).then(1 / chances)

    def _outcome(self, name: str, column: Column) -> None:
        """Check rewards or signals: a number a row, or a list of them."""
        if not self.layout.is_list(name):
            self.numbers(name, self._value(name, column), column)
            return
        lists, kind = self.layout.lists(name), self.layout.types[name]
        numbers = value(pl.element(), kind.inner if isinstance(kind, pl.List) else pl.String(), column)
        another = (lists.list.len() != self.slate_size).fill_null(False)
        self.checks[f"column {name!r} holds another number of values than the slate of its row"] = another
        wrong = lists.list.eval(~follows(numbers, column)).list.any()
        self.checks[f"column {name!r} {column.problem}"] = wrong & ~self.layout.gap(name)
        self.sums[name] = lists.list.eval(numbers.filter(follows(numbers, column)))

    def _wrong_lists(self) -> dict[str, Count]:
        """The rows whose items are not among their candidates, are excluded, or stand twice in a slate."""
        if "item" not in self.roles:
            return {}
        layout, item = self.layout, self.roles["item"]
        lists = {"items": layout.entries(item) if layout.slates else pl.concat_list(item)}
        if "candidates" in self.roles:
            lists["candidates"] = layout.entries(self.roles["candidates"]).fill_null([])
        if isinstance(layout.types.get("exclude"), pl.List):
            lists["exclude"] = layout.entries("exclude")
        kinds = layout.scan.select(**lists).collect_schema()
        if len(set(kinds.values())) > 1 or pl.List(pl.String) in kinds.values():
            lists = {name: as_texts(x, kinds[name]) for name, x in lists.items()}
        scan = layout.scan.select(ROW, gap=layout.gap(item), **lists)
        there = {*lists, *(["slate"] if layout.slates else [])}
        rules = [rule for rule in OF_LISTS if there >= set(rule.needs)]
        return layout.counted({x.problem: x.broken.fill_null(False) & ~pl.col("gap") for x in rules}, scan)

    def _wrong_sessions(self) -> dict[str, Count]:
        """The rows that break a rule of their session; all of them are compared together."""
        if "session" not in self.roles:
            return {}
        kept = {"session": self._known("session")}
        if self.by_step:
            step = self._value("step", COLUMNS["step"])
            kept["step"] = pl.when(follows(step, COLUMNS["step"])).then(step).cast(pl.Int32, strict=False)
            kept |= {} if self.layout.form is None else {"time": self.layout.seconds.cast(pl.Float64)}
        if "user" in self.roles:
            kept["user"] = (self._known("user") % 2**32).cast(pl.UInt32)
        kept |= {name: self._value(name, COLUMNS[name]).fill_null(False) for name in self.ends}
        keys = ["session", "step"] if self.by_step else ["session"]
        frame = self.layout.collect(self.layout.scan.select(ROW, **kept)).drop_nulls(keys)
        frame = frame.sort(*keys, maintain_order=True)  # of two equal rows the later one is the repeat
        wrong = list(broken(frame, [rule for rule in OF_SESSIONS if rule.problem]))
        return {rule.problem: (int(x.sum()), int(frame[ROW].filter(x).to_numpy().min())) for rule, x in wrong}

    def _known(self, role: str) -> pl.Expr:
        """The hash of an id, null where there is none."""
        name = self.roles[role]
        return pl.when(~self.layout.gap(name)).then(self.layout.hash(name))

    def sessions(self) -> int | None:
        return self.layout.counts(self._known("session")).height if "session" in self.roles else None

    def repeats(self) -> dict[str, Count]:
        """Rows that repeat an earlier one in every column."""
        if not self.whole_rows:
            return {}
        text = "rows that repeat an earlier row in every column"
        self.mends[text] = "remove copies"
        count = self.layout.repeats([self.layout.hash(x) for x in self.layout.table.names], pl.lit(False))
        return {text: count} if count[0] else {}

    def facts(self) -> Description:
        found, more = super().facts(), dict[str, Any](slate_size=self.slate_size or 1)
        if "candidates" in self.roles:
            lists = self.layout.entries(self.roles["candidates"])
            offered = self.layout.scan.select(item=lists).explode("item")
            shown = self.layout.counts(pl.first().hash(seed=7), offered.drop_nulls())
            more["shown_of_item"] = _spread(shown)
            more["candidates_per_row"] = shown["count"].sum() / self.rows if shown.height else None
        if self.inverse is not None:
            more["inverse_propensity"] = self.layout.collect(
                self.layout.scan.select(self.inverse.mean())
            ).item()
        others = tuple(x for x in found.others if x not in _NAMES and not x.startswith(_STARTS))
        return replace(found, others=others, **more)


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


def _spread(counts: pl.DataFrame | None) -> tuple[int, int, int] | None:
    """The smallest, the median and the largest count; None without counts."""
    if counts is None or counts.is_empty():
        return None
    ordered = counts["count"].sort()
    return ordered[0], ordered[len(ordered) // 2], ordered[-1]


def _items_of_header(path: Path) -> int | None:
    """The number of items of the catalogue; None if the header can't be read."""
    try:
        return read_header(files_of(path)[0]).header.num_items
    except UserError:
        return None


def _is_whole(path: Path, wrong_values: bool) -> bool:
    """False if a log of `recsys-rl record` does not fit its checksum, or lacks its columns.

    A log with ``wrong_values`` can't be read, and its checksum is unknown.
    """
    try:
        check_pieces(path)
    except UserError as error:
        return wrong_values and "checksum" not in str(error)
    return True
