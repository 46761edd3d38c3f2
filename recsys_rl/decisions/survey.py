"""The problems of a log of decisions that `recsys-rl ope` refuses, found piece by piece.

Rows of a session are compared after the last piece: 24 bytes a row are kept for that, hashes in place of ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_rl.files.clean import floats, no_value
from recsys_rl.files.columns import DECISION_NAMES, DECISION_STARTS
from recsys_rl.files.description import Found, Part, part_of
from recsys_rl.files.hashes import hashes_of, mixed
from recsys_rl.files.read import lists_of

PADDING = -1  # an empty place of a list
# Recorded logs (decisions/writer.py) have further columns.
_NAMES = (*DECISION_NAMES, "exclude", "logger_logprobs")
_STARTS = (*DECISION_STARTS, "event_")
Flags = NDArray[np.bool_]


def is_log_of_decisions(columns: Mapping[str, str], names: Sequence[str]) -> bool:
    """True if the file has propensities, signals or candidates; logs of events have rewards (clicks) too."""
    known = {"propensity", "candidates"} & columns.keys() or "probabilities" in names
    return bool(known) or any(name.startswith(("signal.", "probability.", "propensity.")) for name in names)


def has_meaning(name: str) -> bool:
    """True for a column that only a log of decisions has, by its name."""
    return name in _NAMES or name.startswith(_STARTS)


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


class DecisionSurvey:
    """The checks of the decisions so far. ``found`` takes their problems."""

    def __init__(self, columns: Mapping[str, str], names: Sequence[str], found: Found) -> None:
        self.columns, self.names, self.found = columns, names, found
        self.signals = [name for name in names if name.startswith("signal.")]
        self.by_step = "session" in columns and "step" in columns
        # A log without steps may show an item twice to a user: only a whole row can be a repeat.
        self.whole_rows = not self.by_step and bool({"session", "time"} & columns.keys())
        self.slate_size: int | None = None
        self.sums: dict[str, list[Part]] = {}
        self.parts: dict[str, list[NDArray[Any]]] = {"session": [], "step": [], "user": [], "time": []}

    def reads(self) -> list[str]:
        """The columns that ``add`` needs."""
        if self.whole_rows:
            return list(self.names)
        exclude = ["exclude"] if "exclude" in self.names else []
        return list(dict.fromkeys([*self.columns.values(), *self.signals, *exclude]))

    def add(self, start: int, piece: pl.DataFrame, times: pl.Series | None) -> None:
        """``times``: the seconds of the rows; None without such a column."""
        if "item" in self.columns:
            self._items(start, piece)
        for name in (*self.signals, *([self.columns["reward"]] if "reward" in self.columns else [])):
            self._outcome(start, piece[name])
        if "session" in self.columns:
            self._keep(start, piece, times)

    def row_hashes(self, piece: pl.DataFrame) -> NDArray[np.uint64] | None:
        """(n,) hashes of whole rows, if only such rows can be repeats."""
        return mixed([hashes_of(column) for column in piece.get_columns()]) if self.whole_rows else None

    def _items(self, start: int, piece: pl.DataFrame) -> None:
        column = piece[self.columns["item"]]
        slate = is_slate(column)
        shown = lists_in(column if slate else column.to_frame().select(pl.concat_list(pl.all())).to_series())
        if slate:
            listed = lists_of(column)
            sizes = shown.list.len() if listed is None else listed.list.len()
            self.slate_size = int(sizes[0] or 0) if self.slate_size is None else self.slate_size
            self.found.add(f"slates of another size than the first ({self.slate_size})",
                           sizes != self.slate_size, start)  # fmt: skip
            self.found.add("slates that show an item twice", shown.list.n_unique() < shown.list.len(), start)
        if "candidates" in self.columns:
            offered = lists_in(piece[self.columns["candidates"]])
            outside = _less(shown, offered) > 0
            text = "items that are not among the candidates of their row"
            self.found.add(text, outside & ~no_value(column), start)
        if "exclude" in self.names and isinstance(piece["exclude"].dtype, pl.List):
            allowed = _less(shown, lists_in(piece["exclude"]))
            self.found.add("items that the row excludes", allowed < shown.list.n_unique(), start)

    def _outcome(self, start: int, column: pl.Series) -> None:
        """Rewards or signals: a number a row, or a list of them."""
        name, gaps = column.name, no_value(column)
        if name.startswith("signal."):  # those of the reward are counted as those of all roles
            self.found.add(f"column {name!r} has no value", gaps, start)
        lists = lists_of(column)
        rows = np.arange(column.len())
        if lists is not None:
            another = (lists.list.len() != (self.slate_size or 1)).fill_null(False)
            text = f"column {name!r} holds another number of values than the slate of its row"
            self.found.add(text, another, start)
            rows = np.repeat(rows, lists.list.len().fill_null(0).to_numpy())
            column = lists.filter(lists.list.len() > 0).explode()
        numbers = floats(column)
        bad = np.zeros(gaps.len(), dtype=np.bool_)
        bad[rows[numbers.is_finite().fill_null(False).not_().to_numpy()]] = True
        wrong = pl.Series(bad) & ~gaps
        self.found.add(f"column {name!r} has no finite number", wrong, start)
        for part in part_of(numbers.filter(numbers.is_finite().fill_null(False))):
            self.sums.setdefault(name, []).append(part)

    def _keep(self, start: int, piece: pl.DataFrame, times: pl.Series | None) -> None:
        """Keep what the checks of sessions need; a step of -1 is unknown."""
        sessions = piece[self.columns["session"]]
        steps = np.zeros(piece.height, dtype=np.int32)
        if self.by_step:
            column = piece[self.columns["step"]]
            numbers = floats(column)
            sound = ((numbers == numbers.floor()) & (numbers >= 0) & (numbers < 2**31)).fill_null(False)
            text = f"column {column.name!r} has no whole number from 0 on"
            self.found.add(text, ~sound & ~no_value(column), start)
            steps = numbers.set(~sound, -1.0).cast(pl.Int32).to_numpy().copy()
        steps[no_value(sessions).to_numpy()] = -1
        self.parts["step"].append(steps)
        self.parts["session"].append(hashes_of(sessions))
        if "user" in self.columns:
            users = hashes_of(piece[self.columns["user"]]).astype(np.uint32)
            users[no_value(piece[self.columns["user"]]).to_numpy()] = 0
            self.parts["user"].append(users)
        if times is not None and self.by_step:
            self.parts["time"].append(times.cast(pl.Float64).fill_null(float("nan")).to_numpy())

    def finish(self, rows: int) -> int | None:
        """Compare the rows of each session; the number of sessions. Hashes are given up one after another."""
        if "session" not in self.columns:
            if "step" in self.names:
                self.found.count("steps, and no column of sessions: name it with --session-column", rows, 1)
            return None
        steps, sessions = np.concatenate(self.parts.pop("step")), np.concatenate(self.parts.pop("session"))
        order = np.lexsort((steps, sessions))  # stable: of two equal rows the later one is the repeat
        order = order[steps[order] >= 0]
        sessions = sessions[order]
        same = np.zeros(len(order), dtype=np.bool_)  # the row before is of the same session
        same[1:] = sessions[1:] == sessions[:-1]
        del sessions
        again = np.zeros(len(order), dtype=np.bool_)
        if self.by_step:
            ahead = np.diff(steps[order], prepend=np.int32(0))  # of the row before
            again = same & (ahead == 0)
            self._problem("rows that repeat the session and step of an earlier row", again, order)
            lacking = np.where(same, ahead > 1, steps[order] > 0)
            self._problem("rows whose session has no step before theirs", lacking, order)
            del ahead, lacking
        del steps
        for role, text in (
            ("user", "rows of another user than the row before in their session"),
            ("time", "rows with an earlier time than the step before in their session"),
        ):
            if self.parts[role]:
                values = np.concatenate(self.parts.pop(role))[order]
                wrong = np.zeros(len(order), dtype=np.bool_)
                if role == "time":
                    wrong[1:] = values[1:] < values[:-1]
                else:
                    wrong[1:] = (values[1:] != values[:-1]) & (values[1:] != 0) & (values[:-1] != 0)
                self._problem(text, wrong & same, order)
        return int(len(same) - same.sum())

    def _problem(self, text: str, wrong: Flags, order: NDArray[np.int64]) -> None:
        if wrong.any():
            self.found.count(text, int(wrong.sum()), int(order[wrong].min()) + 1)


def _less(lists: pl.Series, others: pl.Series) -> pl.Series:
    """The number of distinct entries of each list that are not in the other."""
    if lists.dtype != others.dtype or lists.dtype == pl.List(pl.String):
        lists, others = _as_text(lists), _as_text(others)
    frame = pl.DataFrame({"x": lists, "y": others.fill_null([])})
    return frame.select(pl.col("x").list.set_difference("y").list.drop_nulls().list.len()).to_series()


def _as_text(lists: pl.Series) -> pl.Series:
    """Lists of ids as text; 1.0, as programs write whole numbers of a column with gaps, is 1."""
    one = pl.element()
    if isinstance(lists.dtype, pl.List) and lists.dtype.inner in (pl.Float32, pl.Float64):
        exact = (one == one.floor()) & (one.abs() < 2.0**53)
        whole = pl.when(exact).then(one).cast(pl.Int64).cast(pl.String)
        return lists.list.eval(pl.coalesce(whole, one.cast(pl.String)))
    return lists.list.eval(one.cast(pl.String).str.replace(r"^([+-]?\d+)\.0*$", "$1"))
