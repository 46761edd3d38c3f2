"""The problems of a log of decisions that `recsys-rl ope` refuses, found piece by piece.

Rows of a session are compared after the last piece: up to 30 bytes a row are kept for that, with hashes in
place of ids.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from recsys_rl.tables.clean import no_value
from recsys_rl.tables.columns import is_logarithm
from recsys_rl.tables.description import Description
from recsys_rl.tables.event_survey import Survey, is_slate, lists_in, spread_of
from recsys_rl.tables.hashes import Hashes, hashes_of, mixed
from recsys_rl.tables.read import TableFile, lists_of
from recsys_rl.tables.schema import (
    BY_NAME,
    BY_START,
    COLUMNS,
    OF_LISTS,
    OF_SESSIONS,
    broken,
    column_of,
    numbers,
)
from recsys_rl.tables.times import TimeFormat

# Recorded logs (tables/writer.py) have further columns.
_NAMES = (*BY_NAME, "exclude", "logger_logprobs")
_STARTS = (*BY_START, "event_")


def is_log_of_decisions(columns: Mapping[str, str], names: Sequence[str]) -> bool:
    """True if the file has propensities, signals or candidates; logs of events have rewards (clicks) too."""
    known = {"propensity", "candidates"} & columns.keys() or "probabilities" in names
    return bool(known) or any(name.startswith(("signal.", "probability.", "propensity.")) for name in names)


class DecisionSurvey(Survey):
    """The decisions so far, by the rules of schema.py."""

    numbers = ("rating", "weight")
    repeated = "rows that repeat an earlier row in every column"
    mend_repeats = "remove copies"
    mend_gaps = "fill them in, or leave these sessions out"
    needed = ("user", "item", "time", "session", "reward", "propensity", "policy", "candidates", "step")

    def __init__(
        self, columns: Mapping[str, str], form: TimeFormat | None = None, names: Sequence[str] = ()
    ) -> None:
        """``names``: of all columns of the file."""
        columns = {role: name for role, name in columns.items() if role != "event"}
        if "session" in columns and "step" in names:
            columns["step"] = "step"
        super().__init__(columns, form)
        self.names = names
        self.signals = [name for name in names if name.startswith("signal.")]
        self.ends = [name for name in ("terminated", "truncated") if name in names]
        self.by_step = "step" in columns
        # A log without steps may show an item twice to a user: only a whole row can be a repeat.
        self.whole_rows = not self.by_step and bool({"session", "time"} & columns.keys())
        self.slate_size: int | None = None
        self.shown: dict[Any, int] = {}  # rows in which each item could be shown
        self.inverse: list[tuple[float, int]] = []  # of each piece: the sum of 1 / propensity, and its rows
        self.kept: list[pl.DataFrame] = []

    def reads(self) -> list[str]:
        if self.whole_rows:
            return list(self.names)
        exclude = ["exclude"] if "exclude" in self.names else []
        return list(dict.fromkeys([*super().reads(), *self.signals, *exclude, *self.ends]))

    def add_rows(
        self,
        start: int,
        piece: pl.DataFrame,
        hashes: Mapping[str, Hashes],
        seconds: pl.Series | None,
        gaps: Sequence[pl.Series],
    ) -> None:
        if "propensity" in self.columns:
            self._propensities(start, piece[self.columns["propensity"]])
        if "item" in self.columns:
            self._items(start, piece)
        for name in self.signals:
            self.found.add(f"column {name!r} has no value", no_value(piece[name]), start)
        for name in (*self.signals, *([self.columns["reward"]] if "reward" in self.columns else [])):
            self._outcome(start, piece[name])
        if "session" in self.columns:
            self._keep(start, piece, seconds)
        if self.whole_rows:
            self.hashes["repeat"].append(mixed([hashes_of(column) for column in piece.get_columns()]))
        if "candidates" in self.columns:
            offered = lists_in(piece[self.columns["candidates"]]).explode().drop_nulls()
            for item, count in offered.value_counts().rows():
                self.shown[item] = self.shown.get(item, 0) + count

    def _propensities(self, start: int, column: pl.Series) -> None:
        as_log = is_logarithm(column.name)
        rule = COLUMNS["logprob" if as_log else "propensity"]
        values, wrong = numbers(column, rule)
        known = values.is_not_null() & values.is_finite()
        self.found.add(f"column {column.name!r} has no finite number", ~known & ~no_value(column), start)
        self.found.add(f"column {column.name!r} {rule.problem}", wrong & known, start)
        chances = values.filter(known).cast(pl.Float64)
        chances = chances.exp() if as_log else chances
        self.sum("propensity" if as_log else column.name, chances)
        sound = chances.filter(~wrong.filter(known))
        self.inverse.append((float((1 / sound).sum()), sound.len()))

    def _items(self, start: int, piece: pl.DataFrame) -> None:
        column = piece[self.columns["item"]]
        slate = is_slate(column)
        shown = lists_in(column if slate else column.to_frame().select(pl.concat_list(pl.all())).to_series())
        rows = {"row": pl.Series(np.arange(piece.height) + start + 1), "items": shown}
        if slate:
            listed = lists_of(column)
            sizes = shown.list.len() if listed is None else listed.list.len()
            self.slate_size = int(sizes[0] or 0) if self.slate_size is None else self.slate_size
            self.found.add(f"slates of another size than the first ({self.slate_size})",
                           sizes != self.slate_size, start)  # fmt: skip
            rows["slate"] = rows["row"]
        if "candidates" in self.columns:
            rows["candidates"] = lists_in(piece[self.columns["candidates"]]).fill_null([])
        if "exclude" in self.names and isinstance(piece["exclude"].dtype, pl.List):
            rows["exclude"] = lists_in(piece["exclude"])
        lists = [name for name in ("items", "candidates", "exclude") if name in rows]
        if len({rows[name].dtype for name in lists}) > 1 or shown.dtype == pl.List(pl.String):
            rows |= {name: _as_text(rows[name]) for name in lists}
        for rule, wrong in broken(pl.DataFrame(rows), OF_LISTS):
            self.found.add(rule.problem, wrong & ~no_value(column), start)

    def _outcome(self, start: int, column: pl.Series) -> None:
        """Rewards or signals: a number a row, or a list of them."""
        name, gaps, lists = column.name, no_value(column), lists_of(column)
        rows = np.arange(column.len())
        if lists is not None:
            another = (lists.list.len() != (self.slate_size or 1)).fill_null(False)
            text = f"column {name!r} holds another number of values than the slate of its row"
            self.found.add(text, another, start)
            rows = np.repeat(rows, lists.list.len().fill_null(0).to_numpy())
            column = lists.filter(lists.list.len() > 0).explode()
        values, wrong = numbers(column, column_of(name) if name.startswith("signal.") else COLUMNS["reward"])
        bad = np.zeros(gaps.len(), dtype=np.bool_)
        bad[rows[(wrong | values.is_null()).to_numpy()]] = True
        self.found.add(f"column {name!r} has no finite number", pl.Series(bad) & ~gaps, start)
        self.sum(name, values.filter(~wrong))

    def _keep(self, start: int, piece: pl.DataFrame, times: pl.Series | None) -> None:
        """Keep what the rules of sessions need, hashes in place of ids; null is unknown."""
        sessions = piece[self.columns["session"]]
        kept = {
            "row": pl.Series(np.arange(start + 1, start + 1 + piece.height), dtype=pl.UInt32),
            "session": pl.Series(hashes_of(sessions)).set(no_value(sessions), None),
        }
        if self.by_step:
            column = piece[self.columns["step"]]
            steps, wrong = numbers(column, COLUMNS["step"])
            wrong &= ~no_value(column)
            self.found.add(f"column {column.name!r} {COLUMNS['step'].problem}", wrong, start)
            kept["step"] = steps.set(wrong, None).cast(pl.Int32, strict=False)
            if times is not None:
                kept["time"] = times.cast(pl.Float64)
        if "user" in self.columns:
            users = piece[self.columns["user"]]
            hashes = pl.Series(hashes_of(users).astype(np.uint32))
            kept["user"] = hashes.set(no_value(users), None)
        for name in self.ends:
            kept[name] = numbers(piece[name], COLUMNS[name])[0].fill_null(False)
        self.kept.append(pl.DataFrame(kept))

    def finish(self, table: TableFile) -> Description:
        sessions = self._sessions()
        shown = np.array(list(self.shown.values()), dtype=np.int64)
        inverse, number = (sum(x[k] for x in self.inverse) for k in (0, 1))
        found = super().finish(table)
        return dataclasses.replace(
            found,
            sessions=sessions,
            shown_of_item=spread_of(shown),
            candidates_per_row=float(shown.sum() / self.rows) if len(shown) else None,
            inverse_propensity=inverse / number if number else None,
            slate_size=self.slate_size or 1,
            others=tuple(x for x in found.others if x not in _NAMES and not x.startswith(_STARTS)),
        )

    def _sessions(self) -> int | None:
        """Compare the rows of each session; the number of sessions."""
        if "session" not in self.columns:
            if "step" in self.names:
                text = "steps, and no column of sessions: name it with --session-column"
                self.found.count(text, self.rows, 1)
            return None
        keys = ["session", "step"] if self.by_step else ["session"]
        frame = pl.concat(self.kept).drop_nulls(keys)
        self.kept = []
        frame = frame.sort(*keys, maintain_order=True)  # of two equal rows the later one is the repeat
        for rule, wrong in broken(frame, [rule for rule in OF_SESSIONS if rule.problem]):
            rows = frame["row"].filter(wrong)
            self.found.count(rule.problem, rows.len(), int(rows.to_numpy().min()))
        return frame["session"].n_unique()


def _as_text(lists: pl.Series) -> pl.Series:
    """Lists of ids as text; 1.0, as programs write whole numbers of a column with gaps, is 1."""
    one = pl.element()
    if isinstance(lists.dtype, pl.List) and lists.dtype.inner in (pl.Float32, pl.Float64):
        exact = (one == one.floor()) & (one.abs() < 2.0**53)
        whole = pl.when(exact).then(one).cast(pl.Int64).cast(pl.String)
        return lists.list.eval(pl.coalesce(whole, one.cast(pl.String)))
    return lists.list.eval(one.cast(pl.String).str.replace(r"^([+-]?\d+)\.0*$", "$1"))
