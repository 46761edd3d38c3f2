"""Describe a log file: events, or decisions of `recsys-rl record` and of others.

Polars scans the file, which is not held in memory: distinct users, items and repeated rows are counted by
hashes, 8 bytes each. Only the rules of sessions keep up to 30 bytes a row, with hashes in place of ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from recsys_rl.errors import listed
from recsys_rl.tables.checks import OF_LISTS, OF_SESSIONS, broken
from recsys_rl.tables.description import Description, Problem
from recsys_rl.tables.kinds import MOST
from recsys_rl.tables.read import HEADLESS, TableFile, files_of, has_header, open_table
from recsys_rl.tables.reader import check_pieces, files_of_log, read_header
from recsys_rl.tables.scan import ROW, Count, counted, counts, numbered, repeats
from recsys_rl.tables.schema import (
    BY_NAME,
    BY_START,
    COLUMNS,
    ROLES,
    Column,
    column_of,
    find_columns,
    follows,
    holds_decisions,
    named,
    of_propensities,
    value,
)
from recsys_rl.tables.times import UNCLEAR, format_of, seconds
from recsys_rl.tables.values import (
    LIST,
    as_lists,
    as_texts,
    decimal_commas,
    entries,
    hashed,
    is_list,
    measure,
    no_value,
)
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
    columns = find_columns(path, table.names, given or {}, ROLES, required=())
    if "item" not in columns and "items" in table.names:  # a slate for each row, as in a DecisionLog
        columns["item"] = "items"
    if not columns.keys() - {"event"}:
        raise UserError(
            f"{path}: no column has a known name; its columns are {listed(table.names)}: name them with "
            "--user-column, --item-column and others, put a header above the first line if it is a row of "
            "the data, or give --separator if these are not columns."
        )
    if holds_decisions(columns, table.names):
        return _Decisions(table, columns).describe(recorded)
    return _Survey(table, columns).describe(recorded)


def repeated_events(table: TableFile, columns: Mapping[str, str]) -> Count:
    """The rows with the user, the item and (if there are times) the time of an earlier row."""
    found: dict[str, Count] = {}
    _Survey(table, dict(columns)).repeats(found)
    return next(iter(found.values()), (0, 0))


class _Survey:
    """The survey of a log of events. ``columns`` names the column of each role."""

    mend_gaps, needed = _DROP, ("user", "item", "time", "rating", "weight")  # roles whose gaps are refused
    numbers: tuple[str, ...] = ("rating", "weight", "reward")  # roles of one number in each row

    def __init__(self, table: TableFile, columns: dict[str, str]) -> None:
        self.table, self.columns = table, columns
        self.scan = numbered(table.texts(self.reads()))
        self.types = self.scan.collect_schema()
        texts = [name for name, kind in self.types.items() if kind == pl.String]
        facts = [pl.col(name).str.contains(LIST).any().alias(name) for name in texts]
        commas = [decimal_commas(pl.col(name)).alias(f"{name}\0") for name in texts]
        found = self.collect(self.scan.select(pl.len().alias("\0rows"), *facts, *commas)).row(0, named=True)
        self.rows: int = found["\0rows"]
        if not self.rows:
            raise UserError(f"{table.path} holds no rows: give a log with at least one.")
        self.commas = {name for name in texts if found[f"{name}\0"]}
        self.lists = {name for name, kind in self.types.items() if is_list(kind) or found.get(name)}
        item = columns.get("item", "")
        self.slates = item == "items" or (item in self.types and is_list(self.types[item]))
        self.form = format_of(table, columns["time"]) if "time" in columns else None
        self.checks: dict[str, pl.Expr] = {}
        self.mends: dict[str, str] = {}
        self.sums: dict[str, tuple[pl.Expr, ...]] = {}  # the lowest number, their sum, the highest, how many

    def reads(self) -> list[str]:
        """The columns that the survey needs."""
        return list(dict.fromkeys(self.columns.values()))

    def describe(self, recorded: bool) -> Description:
        self.check_values()
        found = counted(self.table, self.scan, self.checks) | self.wrong_lists()
        users, items = self.ids("user"), self.ids("item")
        kinds = self.kinds()
        columns = {role: name for role, name in self.columns.items() if role != "event" or kinds}
        description = replace(
            Description(columns, self.rows, kinds=kinds, note=self.table.note),
            sessions=self.sessions(found),
            users=None if users is None else users.height,
            items=None if items is None else items.height,
            times=self.times(),
            time_unit="" if self.form is None or self.form.order is not None else self.form.unit,
            ranges=self.ranges(),
            policies=self.policies(),
            events_of_item=_spread(items),
            most_frequent=self.most_frequent(items),
            others=tuple(x for x in self.table.names if x not in columns.values()),
        )
        description = self.more(replace(description, clock=self.has_dates(description.times)))
        if recorded:
            path = self.table.path
            if not _is_whole(path, bool(found)):
                found["the rows are not those that were written, by the checksum in the header"] = (
                    self.rows,
                    1,
                )
            description = replace(description, catalogue_items=_items_of_header(path))
        self.repeats(found)
        for role, each in (("user", users), ("item", items)):
            if each is not None and each.height == 1 and each["count"][0] > 1:
                found[f"all rows with a value have the same {role}"] = (each["count"][0], 1)
        return replace(description, problems=tuple(self.problem(x, *found[x]) for x in found))

    def problem(self, text: str, count: int, row: int) -> Problem:
        line = None if self.table.raw is None else self.table.line(row)
        return Problem(text, count, row, line, self.mends.get(text, ""))

    def collect(self, scan: pl.LazyFrame) -> pl.DataFrame:
        return self.table.collect(scan)

    def gap(self, name: str) -> pl.Expr:
        return no_value(pl.col(name), self.types[name])

    def hash(self, name: str) -> pl.Expr:
        return hashed(pl.col(name), self.types[name])

    def entries(self, name: str) -> pl.Expr:
        """The lists of ids in a column, without padding; single ids as they are, in lists of one."""
        x, kind = pl.col(name), self.types[name]
        if name not in self.lists:
            return pl.concat_list(x)
        kind = pl.List(pl.String) if kind == pl.String else kind
        return entries(as_lists(x, self.types[name]), kind)

    def seconds(self) -> pl.Expr:
        assert self.form is not None
        name = self.columns["time"]
        return seconds(pl.col(name), self.types[name], self.form)

    def check_values(self) -> None:
        """Fill ``checks`` and ``sums`` with those of single values."""
        for role, name in self.columns.items():
            if role == "event":
                continue
            text = f"column {name!r} has no value"
            self.checks[text] = self.gap(name)
            self.mends[text] = self.mend_gaps if role in self.needed else ""
            if role in ("user", "session", "policy") and self.types[name].is_nested():
                self.checks[f"column {name!r} has a list in place of a name"] = ~self.gap(name)
        if self.form is not None:
            name, rule = self.columns["time"], self.form.rule
            why = f" ({rule})" if rule in UNCLEAR.values() else ""
            self.checks[f"column {name!r} has no time{why}"] = self.seconds().is_null() & ~self.gap(name)
        for role in self.numbers:
            if role in self.columns and not (self.slates and role == "reward"):  # it may have lists
                name = self.columns[role]
                numbers = measure(pl.col(name), self.types[name], name in self.commas)
                self.values(name, numbers.cast(pl.Float64), COLUMNS[role])

    def values(self, name: str, numbers: pl.Expr, column: Column) -> None:
        """Check and sum the ``numbers`` of a column."""
        sound = follows(numbers, column)
        self.checks[f"column {name!r} {column.problem}"] = ~sound & ~self.gap(name)
        self.sums[name] = _sums(pl.when(sound).then(numbers))

    def wrong_lists(self) -> dict[str, Count]:
        """The rows whose lists of items break a rule; events have none."""
        return {}

    def ranges(self) -> dict[str, tuple[float, float, float]]:
        """The lowest number, the mean and the highest of each column of numbers."""
        parts = [part.alias(f"{k} {name}") for name, x in self.sums.items() for k, part in enumerate(x)]
        row = self.collect(self.scan.select(parts)).row(0) if parts else ()
        each = {name: row[4 * k : 4 * k + 4] for k, name in enumerate(self.sums)}
        return {name: (low, total / n, high) for name, (low, total, high, n) in each.items() if n}

    def ids(self, role: str) -> pl.DataFrame | None:
        """The hashes of the distinct users or items, with their counts."""
        if role not in self.columns:
            return None
        name = self.columns[role]
        if role == "item" and self.slates:
            return counts(self.table, self.of_slates().select(pl.all().hash(seed=7)))
        return counts(self.table, self.scan.filter(~self.gap(name)).select(self.hash(name)))

    def of_slates(self) -> pl.LazyFrame:
        """The items of all slates, one after another."""
        return self.scan.select(self.entries(self.columns["item"])).explode(pl.all()).drop_nulls()

    def most_frequent(self, items: pl.DataFrame | None) -> tuple[str, int] | None:
        """The item with the most events, and their number."""
        if items is None or items.is_empty():
            return None
        top, count = items.sort("count", "value", descending=[True, False]).row(0)
        name = self.columns["item"]
        of_row = self.of_slates() if self.slates else self.scan.select(name)
        kind = pl.String() if name in self.lists and self.types[name] == pl.String else self.types[name]
        kind = kind.inner if isinstance(kind, pl.List) else kind
        one = self.collect(of_row.filter(hashed(pl.first(), kind) == top).head(1))
        return str(one.item()), count

    def kinds(self) -> dict[str, int]:
        """The rows of each kind of event; empty if there are more than MOST."""
        if "event" not in self.columns or self.types[name := self.columns["event"]].is_nested():
            return {}
        texts = pl.col(name).cast(pl.String, strict=False).str.strip_chars()
        scan = self.scan.filter(~self.gap(name))
        if counts(self.table, scan.select(texts.hash())).height > MOST:
            return {}
        return dict(sorted(counts(self.table, scan.select(texts)).iter_rows(), key=lambda x: (-x[1], x[0])))

    def policies(self) -> dict[str, int]:
        """The rows of each logging policy."""
        name = self.columns.get("policy")
        if name is None or self.types[name].is_nested():
            return {}
        texts = self.scan.select(pl.col(name).cast(pl.String).fill_null("None"))
        return dict(sorted(counts(self.table, texts).iter_rows()))

    def times(self) -> tuple[float, float] | None:
        """The first and the last time in seconds."""
        if self.form is None:
            return None
        found = self.seconds().cast(pl.Float64)
        first, last = self.collect(self.scan.select(a=found.min(), b=found.max())).row(0)
        return None if first is None else (first, last)

    def has_dates(self, times: tuple[float, float] | None) -> bool:
        """True if the times are instants, and no counters."""
        if self.form is None or self.form.order is not None or times is None:
            return True
        return CLOCK[0] <= times[1] < CLOCK[1]

    def sessions(self, found: dict[str, Count]) -> int | None:
        """The number of sessions; an id may count the sessions of one user."""
        if "session" not in self.columns:
            return None
        whose = [self.hash(self.columns[x]).alias(x) for x in ("user", "session") if x in self.columns]
        return int(self.collect(self.scan.select(whose).unique().select(pl.len())).item())

    def repeats(self, found: dict[str, Count]) -> None:
        """Find events of a user, an item and a time that an earlier row has."""
        if {"user", "item"} <= self.columns.keys() and not self.slates:
            roles = [role for role in ("user", "item", "time") if role in self.columns]
            text = f"rows that repeat the {', '.join(roles)} of an earlier row"
            gaps = [self.gap(name) for role, name in self.columns.items() if role != "event"]
            self.repeated(found, text, _MERGE, self.key(), pl.any_horizontal(gaps))

    def repeated(
        self, found: dict[str, Count], text: str, mend: str, key: list[pl.Expr], gap: pl.Expr
    ) -> None:
        """Add the rows that repeat an earlier one's ``key``; a row with a ``gap`` repeats no other."""
        keys = pl.struct(x.alias(str(k)) for k, x in enumerate(key)).hash(seed=7)
        count = repeats(self.table, self.scan.filter(~gap).select(ROW, key=keys))
        if count[0]:
            found[text], self.mends[text] = count, mend

    def key(self) -> list[pl.Expr]:
        """What a repeated event repeats."""
        parts = [self.hash(self.columns[role]) for role in ("user", "item")]
        return parts if self.form is None else [*parts, self.seconds()]

    def more(self, description: Description) -> Description:
        return description


class _Decisions(_Survey):
    """The survey of a log of decisions: the problems for which `recsys-rl ope` refuses it."""

    mend_gaps = _FILL
    needed = ("user", "item", "time", "session", "reward", "propensity", "policy", "candidates", "step")
    numbers = ("rating", "weight")

    def __init__(self, table: TableFile, columns: dict[str, str]) -> None:
        columns.pop("event", None)
        if "session" in columns and "step" in table.names:
            columns["step"] = "step"
        self.by_step = "step" in columns
        # A log without steps may show an item twice to a user: only a whole row can be a repeat.
        self.whole_rows = not self.by_step and bool({"session", "time"} & columns.keys())
        self.signals = list(named(table.names, "signal.").values())
        self.ends = [name for name in ("terminated", "truncated") if name in table.names]
        super().__init__(table, columns)
        self.inverse: pl.Expr | None = None
        self.slate_size = 1
        if self.slates:
            x = pl.col(columns["item"])
            sizes = (
                as_lists(x, self.types[columns["item"]])
                if columns["item"] in self.lists
                else pl.concat_list(x)
            )
            self.sizes = sizes.list.len()
            self.slate_size = self.collect(self.scan.head(1).select(self.sizes)).item() or 0

    def reads(self) -> list[str]:
        if self.whole_rows:
            return list(self.table.names)
        exclude = ["exclude"] if "exclude" in self.table.names else []
        return list(dict.fromkeys([*super().reads(), *self.signals, *exclude, *self.ends]))

    def check_values(self) -> None:
        super().check_values()
        if "propensity" in self.columns:
            self.propensities(self.columns["propensity"])
        if self.slates:
            text = f"slates of another size than the first ({self.slate_size})"
            self.checks[text] = (self.sizes != self.slate_size).fill_null(False)
        for name in self.signals:
            self.checks[f"column {name!r} has no value"] = self.gap(name)
        for name in (*self.signals, *([self.columns["reward"]] if "reward" in self.columns else [])):
            self.outcome(name, column_of(name) if name.startswith("signal.") else COLUMNS["reward"])
        if self.by_step:
            wrong = ~follows(self.step(), COLUMNS["step"]) & ~self.gap("step")
            self.checks[f"column 'step' {COLUMNS['step'].problem}"] = wrong

    def step(self) -> pl.Expr:
        return value(pl.col("step"), self.types["step"], COLUMNS["step"])

    def propensities(self, name: str) -> None:
        rule = of_propensities(name)
        found = value(pl.col(name), self.types[name], rule)
        known = found.is_finite().fill_null(False)
        self.checks[f"column {name!r} has no finite number"] = ~known & ~self.gap(name)
        self.checks[f"column {name!r} {rule.problem}"] = known & ~follows(found, rule)
        chances = found.exp() if rule.name == "logprob" else found
        self.sums["propensity" if rule.name == "logprob" else name] = _sums(pl.when(known).then(chances))
        self.inverse = pl.when(known & follows(found, rule)).then(1 / chances)

    def outcome(self, name: str, column: Column) -> None:
        """Check rewards or signals: a number a row, or a list of them."""
        x, kind = pl.col(name), self.types[name]
        if name not in self.lists:
            self.values(name, value(x, kind, column), column)
            return
        lists = as_lists(x, kind)
        numbers = value(pl.element(), kind.inner if isinstance(kind, pl.List) else pl.String(), column)
        another = (lists.list.len() != self.slate_size).fill_null(False)
        self.checks[f"column {name!r} holds another number of values than the slate of its row"] = another
        wrong = lists.list.eval(~follows(numbers, column)).list.any()
        self.checks[f"column {name!r} has no finite number"] = wrong & ~self.gap(name)
        sound = lists.list.eval(numbers.filter(follows(numbers, column))).list
        self.sums[name] = (sound.min().min(), sound.sum().sum(), sound.max().max(), sound.len().sum())

    def wrong_lists(self) -> dict[str, Count]:
        """The rows whose items are not among their candidates, are excluded, or stand twice in a slate."""
        if "item" not in self.columns:
            return {}
        item = self.columns["item"]
        lists = {"items": self.entries(item) if self.slates else pl.concat_list(item)}
        if "candidates" in self.columns:
            lists["candidates"] = self.entries(self.columns["candidates"]).fill_null([])
        if "exclude" in self.types and isinstance(self.types["exclude"], pl.List):
            lists["exclude"] = self.entries("exclude")
        kinds = self.scan.select(**lists).collect_schema()
        if len(set(kinds.values())) > 1 or pl.List(pl.String) in kinds.values():
            lists = {name: as_texts(x, kinds[name]) for name, x in lists.items()}
        scan = self.scan.select(ROW, gap=self.gap(item), **lists)
        there = {*lists, *(["slate"] if self.slates else [])}
        rules = [rule for rule in OF_LISTS if there >= set(rule.needs)]
        return counted(
            self.table, scan, {x.problem: x.broken.fill_null(False) & ~pl.col("gap") for x in rules}
        )

    def sessions(self, found: dict[str, Count]) -> int | None:
        """Compare the rows of each session; the number of sessions."""
        if "session" not in self.columns:
            if "step" in self.table.names:
                found["steps, and no column of sessions: name it with --session-column"] = (self.rows, 1)
            return None
        kept = {"session": self.known("session")}
        if self.by_step:
            kept["step"] = pl.when(follows(self.step(), COLUMNS["step"])).then(self.step()).cast(pl.Int32)
            kept |= {} if self.form is None else {"time": self.seconds().cast(pl.Float64)}
        if "user" in self.columns:
            kept["user"] = (self.known("user") % 2**32).cast(pl.UInt32)
        for name in self.ends:
            kept[name] = value(pl.col(name), self.types[name], COLUMNS[name]).fill_null(False)
        keys = ["session", "step"] if self.by_step else ["session"]
        frame = self.collect(self.scan.select(ROW, **kept)).drop_nulls(keys)
        frame = frame.sort(*keys, maintain_order=True)  # of two equal rows the later one is the repeat
        for rule, wrong in broken(frame, [rule for rule in OF_SESSIONS if rule.problem]):
            rows = frame[ROW].filter(wrong)
            found[rule.problem] = (rows.len(), int(rows.to_numpy().min()))
        return frame["session"].n_unique()

    def known(self, role: str) -> pl.Expr:
        """The hash of an id, null where there is none."""
        name = self.columns[role]
        return pl.when(~self.gap(name)).then(self.hash(name))

    def repeats(self, found: dict[str, Count]) -> None:
        """Find rows that repeat an earlier one in every column."""
        if self.whole_rows:
            text, key = "rows that repeat an earlier row in every column", map(self.hash, self.table.names)
            self.repeated(found, text, "remove copies", list(key), pl.lit(False))

    def more(self, description: Description) -> Description:
        """Add what a log of decisions has beside events."""
        if "candidates" in self.columns:
            offered = self.scan.select(self.entries(self.columns["candidates"])).explode(pl.all())
            shown = counts(self.table, offered.drop_nulls().select(pl.all().hash(seed=7)))
            description = replace(
                description,
                shown_of_item=_spread(shown),
                candidates_per_row=shown["count"].sum() / self.rows if shown.height else None,
            )
        if self.inverse is not None:
            mean = self.collect(self.scan.select(self.inverse.mean())).item()
            description = replace(description, inverse_propensity=mean)
        others = (x for x in description.others if x not in _NAMES and not x.startswith(_STARTS))
        return replace(description, slate_size=self.slate_size or 1, others=tuple(others))


def _sums(numbers: pl.Expr) -> tuple[pl.Expr, ...]:
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
