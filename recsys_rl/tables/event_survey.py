"""Describe a log of events without holding it in memory: counts, ranges, and each problem with its first row.

The file is read in pieces. Distinct users, items and repeated rows are counted by hashes, 8 bytes a row each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_rl.tables.clean import no_value, numbers_of
from recsys_rl.tables.description import Description, Found, Part, Problem, part_of
from recsys_rl.tables.hashes import Hashes, hashes_of, mixed, repeats, sorted_counts
from recsys_rl.tables.kinds import MOST, kinds_in
from recsys_rl.tables.read import TableFile, lists_of, pieces
from recsys_rl.tables.times import UNCLEAR, TimeFormat, times_of

NAMES = ("user", "session", "policy")  # roles of one name in each row
PADDING = -1  # an empty place of a list
CLOCK = (1e8, 7.3e9)  # numbers outside are not instants but counters: in seconds, these are 1973 and 2201


def is_slate(column: pl.Series) -> bool:
    """True if a column of items holds a slate in each row, by its name or its type."""
    return column.name == "items" or isinstance(column.dtype, pl.List | pl.Array)


def lists_in(column: pl.Series) -> pl.Series:
    """Lists of ids without padding; a single id is a list of one."""
    lists = lists_of(column)
    if lists is None:
        lists = column.to_frame("x").select(pl.concat_list("x")).to_series()
    element = pl.element()
    if lists.dtype == pl.List(pl.String):
        return lists.list.eval(element.str.strip_chars().filter(element.str.strip_chars() != str(PADDING)))
    return lists.list.eval(element.filter(element != PADDING))


def event_hashes(
    start: int, users: Hashes, items: Hashes, seconds: pl.Series | None, gaps: Sequence[pl.Series]
) -> Hashes:
    """(n,) hashes of user, item and time of the n events of a piece, which begins at row ``start``.

    A row with a gap repeats no other: its hash is its number. ``gaps``: of each column, True where it has no
    value.
    """
    keys = [users, items]
    if seconds is not None:
        keys.append(seconds.cast(pl.Float64).fill_null(float("nan")).to_numpy().view(np.uint64))
    complete = np.ones(len(users), dtype=np.bool_)
    for rows in gaps:
        complete &= ~rows.to_numpy()
    return np.where(complete, mixed(keys), np.arange(start, start + len(users), dtype=np.uint64))


class Survey:
    """The sums over the pieces of a log so far. ``columns`` names the column of each role."""

    numbers: tuple[str, ...] = ("rating", "weight", "reward")  # roles of one number in each row
    repeated = "rows that repeat the {} of an earlier row"
    mend_repeats = "train with --duplicates sum to merge them, or keep-first to drop them"
    mend_gaps = "train with --missing drop to leave them out"
    needed: tuple[str, ...] = ("user", "item", "time", "rating", "weight")  # roles whose gaps are refused

    def __init__(self, columns: Mapping[str, str], form: TimeFormat | None = None) -> None:
        """``form``: of the column of times."""
        self.columns, self.rows, self.form = columns, 0, form
        self.found = Found()
        self.hashes: dict[str, list[Hashes]] = {"user": [], "item": [], "session": [], "repeat": []}
        self.times: list[float] = []
        self.sums: dict[str, list[Part]] = {}
        self.policies: dict[str, int] = {}
        self.kinds: dict[str, int] | None = {}  # None: too many

    def reads(self) -> list[str]:
        """The columns that ``add`` needs."""
        return list(dict.fromkeys(self.columns.values()))

    def add(self, start: int, piece: pl.DataFrame) -> None:
        """Add a piece of the file, which begins at row ``start``."""
        self.rows = start + piece.height
        series = {role: piece[name] for role, name in self.columns.items()}
        if "event" in series:
            self._kinds(series.pop("event"))
        gaps = {role: no_value(column) for role, column in series.items()}
        for role, rows in gaps.items():
            mend = self.mend_gaps if role in self.needed else ""
            self.found.add(f"column {self.columns[role]!r} has no value", rows, start, mend)
            if role in NAMES and series[role].dtype.is_nested():
                self.found.add(f"column {self.columns[role]!r} has a list in place of a name", ~rows, start)
        slates = "item" in series and is_slate(series["item"])
        if slates:
            self.hashes["item"].append(hashes_of(lists_in(series["item"]).explode().drop_nulls()))
        single = ["user", "item"][: 1 if slates else 2]
        hashes = {role: hashes_of(series[role]) for role in single if role in series}
        for role, whole in hashes.items():
            self.hashes[role].append(whole[~gaps[role].to_numpy()])
        seconds = self._times(start, series["time"], gaps["time"]) if "time" in series else None
        for role in self.numbers:
            if role in series and not (slates and role == "reward"):  # a slate may have a list of rewards
                self._numbers(role, series[role], ~gaps[role], start)
        if "policy" in series and not series["policy"].dtype.is_nested():
            for name, count in series["policy"].cast(pl.String).value_counts().rows():
                self.policies[str(name)] = self.policies.get(str(name), 0) + count
        self.add_rows(start, piece, hashes, seconds, list(gaps.values()))

    def add_rows(
        self,
        start: int,
        piece: pl.DataFrame,
        hashes: Mapping[str, Hashes],
        seconds: pl.Series | None,
        gaps: Sequence[pl.Series],
    ) -> None:
        """Add what belongs to whole rows: sessions, and repeated events of a user, an item and a time.

        Args:
            hashes: (n,) of the users and the single items.
            seconds: (n,) the times; None without a column of times.
            gaps: (n,) for each column, True where it has no value.
        """
        if "session" in self.columns:  # its id may count the sessions of one user
            whose = [hashes["user"]] if "user" in hashes else []
            self.hashes["session"].append(mixed([*whose, hashes_of(piece[self.columns["session"]])]))
        if len(hashes) == 2:
            self.hashes["repeat"].append(event_hashes(start, hashes["user"], hashes["item"], seconds, gaps))

    def _kinds(self, column: pl.Series) -> None:
        if self.kinds is None:
            return
        of_piece = kinds_in(column.filter(~no_value(column)))
        for kind, count in (of_piece or {}).items():
            self.kinds[kind] = self.kinds.get(kind, 0) + count
        if of_piece is None or len(self.kinds) > MOST:
            self.kinds = None

    def _times(self, start: int, column: pl.Series, gaps: pl.Series) -> pl.Series:
        """The times in seconds."""
        seconds, bad, rule, _ = times_of(column, "time", self.form)
        why = f" ({rule})" if rule in UNCLEAR.values() else ""
        self.found.add(f"column {self.columns['time']!r} has no time{why}", bad & ~gaps, start)
        known = seconds.drop_nulls()
        self.times += [float(known.min()), float(known.max())] if known.len() else []  # type: ignore[arg-type]
        return seconds

    def _numbers(self, role: str, column: pl.Series, present: pl.Series, start: int) -> None:
        name = self.columns[role]
        numbers, bad, _, _ = numbers_of(column, role if role == "weight" else "number")
        text = f"column {name!r} has no finite number" + " above 0" * (role == "weight")
        self.found.add(text, bad & present, start)
        self.sum(name, numbers)

    def sum(self, name: str, numbers: pl.Series) -> None:
        """Add numbers to the range and the mean of ``name``."""
        for part in part_of(numbers.drop_nulls().cast(pl.Float64)):
            self.sums.setdefault(name, []).append(part)

    def finish(self, table: TableFile) -> Description:
        """The description; the hashes are given up one after another."""
        problems = self.found.listed() + self._repeats()
        users, of_user, _ = self._distinct("user")
        items, counts, most = self._distinct("item")
        for role, number, each in (("user", users, of_user), ("item", items, counts)):
            if each is not None and number == 1 and each[0] > 1:
                problems.append(Problem(f"all rows with a value have the same {role}", each[0], 1))
        if table.raw is not None:
            problems = [replace(x, first_line=table.line(x.first_row)) for x in problems]
        columns = {role: name for role, name in self.columns.items() if role != "event" or self.kinds}
        return Description(
            columns=columns,
            rows=self.rows,
            users=users,
            items=items,
            sessions=self._distinct("session")[0],
            times=(min(self.times), max(self.times)) if self.times else None,
            clock=self._has_dates(),
            time_unit="" if self.form is None or self.form.order is not None else self.form.unit,
            ranges={name: _range(parts) for name, parts in self.sums.items()},
            policies=dict(sorted(self.policies.items())),
            kinds=dict(sorted((self.kinds or {}).items(), key=lambda x: (-x[1], x[0]))),
            events_of_item=counts,
            most_frequent=None if most is None else self._named(table, most),
            problems=tuple(problems),
            others=tuple(x for x in table.names if x not in columns.values()),
            note=table.note,
        )

    def _has_dates(self) -> bool:
        """True if the times are instants, and no counters."""
        if self.form is None or self.form.order is not None or not self.times:
            return True
        return CLOCK[0] <= max(self.times) < CLOCK[1]

    def _repeats(self) -> list[Problem]:
        if not self.hashes["repeat"]:
            return []
        count, first = repeats(self.hashes.pop("repeat"))
        text = self.repeated.format("user, item, time" if "time" in self.columns else "user, item")
        return [Problem(text, count, first + 1, mend=self.mend_repeats)] if count else []

    def _distinct(self, role: str) -> tuple[int | None, tuple[int, int, int] | None, tuple[int, int] | None]:
        """Distinct values, the spread of their counts, and the most frequent hash with its count."""
        if not self.hashes.get(role):
            return None, None, None
        hashes = np.concatenate(self.hashes.pop(role))
        values, counts = sorted_counts(hashes)
        if len(values) == 0:
            return 0, None, None
        top = int(counts.argmax())
        return len(values), spread_of(counts), (int(values[top]), int(counts[top]))

    def _named(self, table: TableFile, most: tuple[int, int]) -> tuple[str, int]:
        """The most frequent item's id, from the first piece that has its hash."""
        name = self.columns["item"]
        for _, piece in pieces(table, [name]):
            items = piece[name]
            if is_slate(items):
                items = lists_in(items).explode().drop_nulls()
            found = np.flatnonzero(hashes_of(items) == most[0])
            if len(found):
                return str(items[int(found[0])]), most[1]
        raise AssertionError("the item of a hash is in the file")


def _range(parts: Sequence[Part]) -> tuple[float, float, float]:
    lows, totals, highs, counts = zip(*parts, strict=True)
    return min(lows), sum(totals) / sum(counts), max(highs)


def spread_of(counts: NDArray[np.int64]) -> tuple[int, int, int] | None:
    """The smallest, the median and the largest; None without counts."""
    if len(counts) == 0:
        return None
    return int(counts.min()), int(np.sort(counts)[len(counts) // 2]), int(counts.max())
