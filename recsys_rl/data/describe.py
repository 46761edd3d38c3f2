"""Describe a log file without holding it in memory: counts, ranges, and each problem with its first row.

The file is read in pieces of PIECE rows. Distinct users, items and repeated rows are counted by 64-bit
hashes, 8 bytes a row each; two of n values share a hash with a probability of about n^2 / 2^65 (1e-5 for 20
million).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_rl.data.clean import no_value, numbers_of
from recsys_rl.data.columns import OPTIONS, find_columns
from recsys_rl.data.read import TableFile, listed, open_table
from recsys_rl.data.times import UNCLEAR, order_of, times_of
from recsys_rl.types import UserError

PIECE = 500_000  # rows read at a time
HEADLESS = ("user", "item", "rating", "timestamp")
ROLES = (
    "user",
    "item",
    "time",
    "rating",
    "weight",
    "session",
    "reward",
    "propensity",
    "policy",
    "candidates",
)
NUMBERS = ("rating", "weight", "reward", "propensity")
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Problem:
    """A kind of problem: the number of rows that have it, and the first of them, counted from 1."""

    text: str
    count: int
    first_row: int


@dataclass(frozen=True)
class Description:
    """Facts about a log file. A count is None, and a mapping is empty, if the file has no such column."""

    columns: Mapping[str, str]  # the column of each role
    rows: int
    users: int | None = None
    items: int | None = None
    sessions: int | None = None
    times: tuple[float, float] | None = None  # the first and the last, in seconds
    ranges: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)  # low, mean, high
    policies: Mapping[str, int] = field(default_factory=dict)  # rows of each logging policy
    events_of_item: tuple[int, int, int] | None = None  # fewest, median, most events of an item
    most_frequent: tuple[str, int] | None = None  # the item with the most events
    shown_of_item: tuple[int, int, int] | None = None  # likewise: rows in which an item could be shown
    candidates_per_row: float | None = None
    inverse_propensity: float | None = None  # mean of 1 / propensity
    problems: tuple[Problem, ...] = ()
    others: tuple[str, ...] = ()  # columns without a role

    @property
    def density(self) -> float | None:
        """Rows for each pair of a user and an item."""
        return None if not self.users or not self.items else self.rows / (self.users * self.items)

    def lines(self) -> Iterator[str]:
        """The description for people."""
        yield "columns: " + ", ".join(f"{role} = {name}" for role, name in self.columns.items())
        if self.others:
            yield f"columns without a known role: {listed(self.others)}"
        lacking = [role for role in ("user", "item") if role not in self.columns]
        if lacking:
            options = " and ".join(OPTIONS[role] for role in lacking)
            yield f"no column for the {' and the '.join(lacking)} is known: give {options}"
        counts = {"rows": self.rows, "users": self.users, "items": self.items, "sessions": self.sessions}
        yield ", ".join(f"{count:,} {name}" for name, count in counts.items() if count is not None)
        if self.density is not None:
            yield f"density: {self.density:.3%} (rows for each pair of a user and an item)"
        if self.times is not None:
            yield f"time: {_instant(self.times[0])} to {_instant(self.times[1])}"
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
        yield f"problems: {len(self.problems)}" if self.problems else "problems: none"
        for problem in self.problems:
            rows = "row" if problem.count == 1 else "rows"
            yield f"  {problem.text}: {problem.count:,} {rows}, the first is row {problem.first_row:,}"

    def _expected(self) -> str:
        """The expectation of 1/p: the number of actions that the policy could take."""
        if self.candidates_per_row is not None:
            return f"{self.candidates_per_row:,.4g} candidates a row, its expectation if each has p > 0"
        return f"expected: the number of items that could be shown, at most {self.items or 0:,}"


def _instant(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{seconds:,.0f} s"


def _spread(counts: tuple[int, int, int]) -> str:
    return f"{counts[0]:,} to {counts[2]:,}, median {counts[1]:,}"


def describe(
    path: str | Path, separator: str | None = None, given: Mapping[str, str | None] | None = None
) -> Description:
    """Describe the file at ``path``. ``given`` names columns by role.

    Raises UserError if it is no table file, or has no row or no column with a known name.
    """
    table = open_table(path, separator, HEADLESS)
    columns, _ = find_columns(Path(path), table.names, given or {}, ROLES, required=())
    if "item" not in columns and "items" in table.names:  # a slate for each row, as in a DecisionLog
        columns["item"] = "items"
    if not columns:
        raise UserError(
            f"{path}: no column has a known name; its columns are {listed(table.names)}: name them with "
            f"{OPTIONS['user']}, {OPTIONS['item']} and others, put a header above the first line if it is a "
            "row of the data, or give --separator if these are no columns."
        )
    survey = Survey(columns, order_of(table, columns["time"]) if "time" in columns else None)
    for start, piece in pieces(table, list(dict.fromkeys(columns.values()))):
        survey.add(start, piece)
    if survey.rows == 0:
        raise UserError(f"{path} holds no rows: give a log with at least one.")
    return dataclasses.replace(
        survey.finish(table), others=tuple(name for name in table.names if name not in columns.values())
    )


def pieces(table: TableFile, columns: Sequence[str]) -> Iterator[tuple[int, pl.DataFrame]]:
    """The first row of each piece of the file, and the piece."""
    scan, start = table.scan(columns), 0
    while True:
        piece = table.collect(scan.slice(start, PIECE))
        if piece.height:
            yield start, piece
        start += piece.height
        if piece.height < PIECE:
            return


class Survey:
    """The sums over the pieces so far."""

    def __init__(self, columns: Mapping[str, str], order: str | None = None) -> None:
        """``order``: of the texts in the column of times (``times.order_of``)."""
        self.columns, self.rows, self.order = columns, 0, order
        self.hashes: dict[str, list[Hashes]] = {"user": [], "item": [], "session": [], "repeat": []}
        self.shown: dict[Any, int] = {}
        self.times: list[float] = []
        self.sums: dict[str, list[tuple[float, float, float, int]]] = {}
        self.inverse: list[tuple[float, int]] = []
        self.policies: dict[str, int] = {}
        self.problems: dict[str, tuple[int, int]] = {}

    def add(self, start: int, piece: pl.DataFrame) -> None:
        self.rows = start + piece.height
        series = {role: piece[name] for role, name in self.columns.items()}
        if "propensity" in series and self.columns["propensity"] == "logprob":
            series["propensity"] = series["propensity"].exp()
        if "item" in series and isinstance(series["item"].dtype, pl.List):
            slates = series.pop("item").explode().drop_nulls()
            self.hashes["item"].append(hashes_of(slates.filter(slates != -1)))
        complete = pl.repeat(True, piece.height, dtype=pl.Boolean, eager=True)
        gaps = {role: no_value(column) for role, column in series.items()}
        for role, rows in gaps.items():
            complete = complete & ~rows
            self._problem(f"column {self.columns[role]!r} has no value", rows, start)
        hashes = {role: hashes_of(series[role]) for role in ("user", "item", "session") if role in series}
        keys = [hashes[role] for role in ("user", "item") if role in hashes]
        for role in ("user", "item"):
            if role in hashes:
                self.hashes[role].append(hashes[role][~gaps[role].to_numpy()])
        if "session" in hashes:
            self.hashes["session"].append(mixed([hashes[r] for r in ("user", "session") if r in hashes]))
        if "time" in series:
            seconds, bad, _, _ = times_of(series["time"], "time", self.order)
            why = f" ({UNCLEAR[self.order]})" if self.order in UNCLEAR else ""
            self._problem(f"column {self.columns['time']!r} has no time{why}", bad & ~gaps["time"], start)
            known = seconds.drop_nulls()
            self.times += [float(known.min()), float(known.max())] if known.len() else []  # type: ignore[arg-type]
            keys.append(seconds.cast(pl.Float64).fill_null(float("nan")).to_numpy().view(np.uint64))
        if "item" in series and "user" in series:
            row = np.where(complete.to_numpy(), mixed(keys), np.arange(start, self.rows, dtype=np.uint64))
            self.hashes["repeat"].append(row)
        for role in NUMBERS:
            if role in series:
                self._numbers(role, series[role], ~gaps[role], start)
        if "policy" in series:
            for name, count in series["policy"].cast(pl.String).value_counts().rows():
                self.policies[str(name)] = self.policies.get(str(name), 0) + count
        if "candidates" in series and isinstance(series["candidates"].dtype, pl.List):
            for item, count in series["candidates"].explode().drop_nulls().value_counts().rows():
                if item != -1:  # padding
                    self.shown[item] = self.shown.get(item, 0) + count

    def _problem(self, text: str, rows: pl.Series, start: int) -> None:
        count = int(rows.sum())
        if count:
            before, first = self.problems.get(text, (0, start + int(rows.arg_true()[0]) + 1))
            self.problems[text] = (before + count, first)

    def _numbers(self, role: str, column: pl.Series, present: pl.Series, start: int) -> None:
        name = self.columns[role]
        numbers, bad, _, _ = numbers_of(column, role if role == "weight" else "number")
        self._problem(
            f"column {name!r} has no finite number" + " above 0" * (role == "weight"), bad & present, start
        )
        if role == "propensity":
            wrong = ((numbers <= 0) | (numbers > 1)).fill_null(False)
            self._problem(f"column {name!r} is no probability above 0 and up to 1", wrong, start)
            sound = numbers.filter(~wrong).drop_nulls().cast(pl.Float64)
            self.inverse.append((float((1 / sound).sum()), sound.len()))
        known = numbers.drop_nulls().cast(pl.Float64)
        if known.len():
            low, total, high = known.min(), known.sum(), known.max()
            self.sums.setdefault(role, []).append((float(low), float(total), float(high), known.len()))  # type: ignore[arg-type]

    def finish(self, table: TableFile) -> Description:
        """The description; the hashes are given up one after another."""
        problems = [Problem(text, count, row) for text, (count, row) in self.problems.items()]
        repeats = self._repeats()
        if repeats is not None:
            problems.append(repeats)
        users, of_user, _ = self._distinct("user")
        items, counts, most = self._distinct("item")
        sessions, _, _ = self._distinct("session")
        shown = np.array(list(self.shown.values()), dtype=np.int64)
        inverse, with_p = (
            (sum(part) for part in zip(*self.inverse, strict=True)) if self.inverse else (0.0, 0)
        )
        for role, each in (("user", of_user), ("item", counts)):
            if each is not None and {"user": users, "item": items}[role] == 1 and each[0] > 1:
                problems.append(Problem(f"all rows with a value have the same {role}", each[0], 1))
        return Description(
            columns=self.columns,
            rows=self.rows,
            users=users,
            items=items,
            sessions=sessions,
            times=(min(self.times), max(self.times)) if self.times else None,
            ranges={
                role if self.columns[role] == "logprob" else self.columns[role]: _range(parts)
                for role, parts in self.sums.items()
            },
            policies=dict(sorted(self.policies.items())),
            events_of_item=counts,
            most_frequent=None if most is None else self._named(table, most),
            shown_of_item=spread_of(shown),
            candidates_per_row=float(shown.sum() / self.rows) if len(shown) else None,
            inverse_propensity=inverse / with_p if with_p else None,
            problems=tuple(problems),
        )

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
            if isinstance(piece[name].dtype, pl.List):
                piece = piece.explode(name)
            found = np.flatnonzero(hashes_of(piece[name]) == most[0])
            if len(found):
                return str(piece[name][int(found[0])]), most[1]
        raise AssertionError("the item of a hash is in the file")

    def _repeats(self) -> Problem | None:
        if not self.hashes.get("repeat"):
            return None
        parts = self.hashes.pop("repeat")
        ordered = np.concatenate(parts)
        ordered.sort()
        again = ordered[1:][ordered[1:] == ordered[:-1]]
        del ordered
        if len(again) == 0:
            return None
        row = _first_repeat(parts, np.unique(again))
        same = "user, item, time" if "time" in self.columns else "user, item"
        return Problem(f"rows that repeat the {same} of an earlier row", len(again), row + 1)


def _first_repeat(parts: Sequence[Hashes], repeated: Hashes) -> int:
    """The first row whose hash an earlier row has. ``repeated``: the hashes that occur twice, ascending."""
    seen, start = np.zeros(len(repeated), dtype=np.bool_), 0
    for part in parts:
        place = np.searchsorted(repeated, part).clip(max=len(repeated) - 1)
        for row in np.flatnonzero(repeated[place] == part):
            if seen[place[row]]:
                return start + int(row)
            seen[place[row]] = True
        start += len(part)
    raise AssertionError("a repeated hash is in two rows")


def _range(parts: Sequence[tuple[float, float, float, int]]) -> tuple[float, float, float]:
    lows, totals, highs, counts = zip(*parts, strict=True)
    return min(lows), sum(totals) / sum(counts), max(highs)


def spread_of(counts: NDArray[np.int64]) -> tuple[int, int, int] | None:
    """The smallest, the median and the largest; None without counts."""
    if len(counts) == 0:
        return None
    return int(counts.min()), int(np.sort(counts)[len(counts) // 2]), int(counts.max())


def sorted_counts(hashes: Hashes) -> tuple[Hashes, NDArray[np.int64]]:
    """Distinct hashes and their counts. The array is sorted in place."""
    hashes.sort()
    starts = (
        np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
        if len(hashes)
        else np.zeros(0, int)
    )
    return hashes[starts], np.diff(np.append(starts, len(hashes)))


def hashes_of(column: pl.Series) -> Hashes:
    """(n,) uint64, the same for equal values of all pieces."""
    if column.dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    return column.hash(seed=7).to_numpy()


def mixed(parts: Sequence[Hashes]) -> Hashes:
    """One hash (n,) of several, in their order."""
    total = np.zeros_like(parts[0])
    for part in parts:
        total = (total ^ part) * np.uint64(0x9E3779B97F4A7C15)
        total ^= total >> np.uint64(29)
    return total
