"""Describe a log file without holding it in memory: counts, ranges, and each problem with its first row.

The file is read in pieces of PIECE rows. Distinct users, items and repeated rows are counted by hashes, 8
bytes a row each. decisions/survey.py has the checks of logs of decisions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_rl.decisions.reader import check_pieces, has_header
from recsys_rl.decisions.survey import (
    DecisionSurvey,
    has_meaning,
    is_log_of_decisions,
    is_slate,
    lists_in,
)
from recsys_rl.errors import listed
from recsys_rl.files.clean import floats, no_value, numbers_of
from recsys_rl.files.columns import OPTIONS, find_columns, is_logarithm
from recsys_rl.files.description import Description, Found, Part, Problem, part_of
from recsys_rl.files.hashes import Hashes, hashes_of, mixed, repeats, sorted_counts
from recsys_rl.files.kinds import MOST, kinds_in
from recsys_rl.files.read import HEADLESS, TableFile, open_table, pieces
from recsys_rl.files.times import UNCLEAR, TimeFormat, format_of, times_of
from recsys_rl.types import UserError

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
    "event",
)
NUMBERS = ("rating", "weight", "propensity")
CLOCK = (1e8, 7.3e9)  # numbers outside are no instants but counters: in seconds, these are 1973 and 2201


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
    if not columns.keys() - {"event"}:
        raise UserError(
            f"{path}: no column has a known name; its columns are {listed(table.names)}: name them with "
            f"{OPTIONS['user']}, {OPTIONS['item']} and others, put a header above the first line if it is a "
            "row of the data, or give --separator if these are no columns."
        )
    decisions = is_log_of_decisions(columns, table.names)
    if decisions:
        columns.pop("event", None)
    if decisions and "session" in columns and "step" in table.names:
        columns["step"] = "step"
    survey = Survey(columns, format_of(table, columns["time"]) if "time" in columns else None)
    if decisions:
        survey.decisions = DecisionSurvey(columns, table.names, survey.found)
    read = list(dict.fromkeys(columns.values())) if survey.decisions is None else survey.decisions.reads()
    for start, piece in pieces(table, read):
        survey.add(start, piece)
    if survey.rows == 0:
        raise UserError(f"{path} holds no rows: give a log with at least one.")
    if has_header(path) and not _is_whole(Path(path)):
        text = "the rows are not those that were written, by the checksum in the header"
        survey.found.count(text, survey.rows, 1)
    found = survey.finish(table)
    named = found.columns.values()
    others = [x for x in table.names if x not in named and not (decisions and has_meaning(x))]
    return dataclasses.replace(found, others=tuple(others), note=table.note)


def _is_whole(path: Path) -> bool:
    """False if a log of `recsys-rl record` does not fit its checksum, or lacks its columns."""
    try:
        check_pieces(path)
    except UserError:
        return False
    return True


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
    """The sums over the pieces so far."""

    def __init__(self, columns: Mapping[str, str], form: TimeFormat | None = None) -> None:
        """``form``: of the column of times."""
        self.columns, self.rows, self.form = columns, 0, form
        self.decisions: DecisionSurvey | None = None  # of a log of decisions
        self.found = Found()
        self.hashes: dict[str, list[Hashes]] = {"user": [], "item": [], "session": [], "repeat": []}
        self.shown: dict[Any, int] = {}
        self.times: list[float] = []
        self.sums: dict[str, list[Part]] = {}
        self.inverse: list[tuple[float, int]] = []
        self.policies: dict[str, int] = {}
        self.kinds: dict[str, int] | None = {}  # None: too many

    def add(self, start: int, piece: pl.DataFrame) -> None:
        self.rows = start + piece.height
        series = {role: piece[name] for role, name in self.columns.items()}
        if "event" in series:
            self._kinds(series.pop("event"))
        gaps = {role: no_value(column) for role, column in series.items()}
        for role, rows in gaps.items():
            self.found.add(f"column {self.columns[role]!r} has no value", rows, start)
            if role in ("user", "session", "policy") and series[role].dtype.is_nested():
                self.found.add(f"column {self.columns[role]!r} has a list in place of a name", ~rows, start)
        slates = "item" in series and is_slate(series["item"])
        if slates:
            self.hashes["item"].append(hashes_of(lists_in(series.pop("item")).explode().drop_nulls()))
        hashes = {role: hashes_of(series[role]) for role in ("user", "item") if role in series}
        for role in ("user", "item"):
            if role in hashes:
                self.hashes[role].append(hashes[role][~gaps[role].to_numpy()])
        if "session" in series and self.decisions is None:  # its id may count the sessions of one user
            whose = [hashes["user"]] if "user" in hashes else []
            self.hashes["session"].append(mixed([*whose, hashes_of(series["session"])]))
        seconds = self._times(start, series["time"], gaps["time"]) if "time" in series else None
        for role in NUMBERS:
            if role in series:
                self._numbers(role, series[role], ~gaps[role], start)
        if self.decisions is not None:
            self.decisions.add(start, piece, seconds)
        elif "reward" in series and not slates:  # a slate may have a list of rewards
            self._numbers("reward", series["reward"], ~gaps["reward"], start)
        self._keep_repeats(start, piece, hashes, seconds, gaps)
        if "policy" in series:
            nested = series["policy"].dtype.is_nested()
            policies = pl.Series([], dtype=pl.String) if nested else series["policy"].cast(pl.String)
            for name, count in policies.value_counts().rows():
                self.policies[str(name)] = self.policies.get(str(name), 0) + count
        if "candidates" in series:
            for item, count in lists_in(series["candidates"]).explode().drop_nulls().value_counts().rows():
                self.shown[item] = self.shown.get(item, 0) + count

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

    def _keep_repeats(
        self,
        start: int,
        piece: pl.DataFrame,
        hashes: Mapping[Any, Hashes],
        seconds: pl.Series | None,
        gaps: Mapping[str, pl.Series],
    ) -> None:
        """Keep what makes a row a repeat: user, item and time of an event, the whole row of a decision."""
        if self.decisions is not None:
            whole = self.decisions.row_hashes(piece)
            self.hashes["repeat"] += [] if whole is None else [whole]
            return
        if not {"user", "item"} <= hashes.keys():
            return
        self.hashes["repeat"].append(
            event_hashes(start, hashes["user"], hashes["item"], seconds, list(gaps.values()))
        )

    def _numbers(self, role: str, column: pl.Series, present: pl.Series, start: int) -> None:
        name = self.columns[role]
        if role == "propensity":
            # Double precision: a probability of 1e-50 is above 0.
            numbers = floats(column)
            numbers = numbers.exp() if is_logarithm(name) else numbers
            bad = numbers.is_finite().not_().fill_null(True)
            numbers = numbers.set(bad, None)
        else:
            numbers, bad, _, _ = numbers_of(column, role if role == "weight" else "number")
        self.found.add(
            f"column {name!r} has no finite number" + " above 0" * (role == "weight"), bad & present, start
        )
        if role == "propensity":
            wrong = ((numbers <= 0) | (numbers > 1)).fill_null(False)
            kind = "logarithm of a" * is_logarithm(name)
            self.found.add(
                f"column {name!r} is no {kind} probability above 0 and up to 1".replace("  ", " "),
                wrong,
                start,
            )
            sound = numbers.filter(~wrong).drop_nulls()
            self.inverse.append((float((1 / sound).sum()), sound.len()))
        for part in part_of(numbers.drop_nulls().cast(pl.Float64)):
            self.sums.setdefault(role, []).append(part)

    def finish(self, table: TableFile) -> Description:
        """The description; the hashes are given up one after another."""
        sessions = None if self.decisions is None else self.decisions.finish(self.rows)
        problems = self.found.listed() + self._repeats()
        users, of_user, _ = self._distinct("user")
        items, counts, most = self._distinct("item")
        sessions = self._distinct("session")[0] if self.decisions is None else sessions
        shown = np.array(list(self.shown.values()), dtype=np.int64)
        inverse, with_p = (
            (sum(part) for part in zip(*self.inverse, strict=True)) if self.inverse else (0.0, 0)
        )
        for role, each in (("user", of_user), ("item", counts)):
            if each is not None and {"user": users, "item": items}[role] == 1 and each[0] > 1:
                problems.append(Problem(f"all rows with a value have the same {role}", each[0], 1))
        logarithm = is_logarithm(self.columns.get("propensity", ""))
        sums = {"propensity" if x == "propensity" and logarithm else self.columns[x]: y
                for x, y in self.sums.items()}  # fmt: skip
        return Description(
            columns={role: name for role, name in self.columns.items() if role != "event" or self.kinds},
            rows=self.rows,
            users=users,
            items=items,
            sessions=sessions,
            times=(min(self.times), max(self.times)) if self.times else None,
            clock=self._has_dates(),
            time_unit="" if self.form is None or self.form.order is not None else self.form.unit,
            ranges={
                x: _range(y) for x, y in (sums | (self.decisions.sums if self.decisions else {})).items()
            },
            policies=dict(sorted(self.policies.items())),
            kinds=dict(sorted((self.kinds or {}).items(), key=lambda x: (-x[1], x[0]))),
            events_of_item=counts,
            most_frequent=None if most is None else self._named(table, most),
            shown_of_item=spread_of(shown),
            candidates_per_row=float(shown.sum() / self.rows) if len(shown) else None,
            inverse_propensity=inverse / with_p if with_p else None,
            slate_size=(self.decisions.slate_size or 1) if self.decisions else 1,
            problems=tuple(problems),
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
        if self.decisions is not None:
            text = "rows that repeat an earlier row in every column"
        else:
            same = "user, item, time" if "time" in self.columns else "user, item"
            text = f"rows that repeat the {same} of an earlier row"
        return [Problem(text, count, first + 1)] if count else []

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
