"""A team's own log of decisions: a text or Parquet file with named columns and no header of ours.

docs/09_logs.md lists the columns. Ids may be numbers or strings. The items are those that the log shows or
names as candidates; what is known of them is in the file of ``items``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys_rl.data.clean import no_value, whole_numbers
from recsys_rl.data.columns import find_columns, plain_name
from recsys_rl.data.decision_checks import check_probabilities, check_rows
from recsys_rl.data.decisions import DecisionHeader, DecisionLog
from recsys_rl.data.items import ItemFacts, read_items
from recsys_rl.data.own_catalogue import own_catalogue
from recsys_rl.data.read import NUMBER, listed, open_table, short
from recsys_rl.data.times import order_in, times_of
from recsys_rl.errors import one_line
from recsys_rl.types import Catalogue, Interface, UserError

ROLES = ("user", "item", "time", "session", "reward", "propensity", "policy", "candidates")
LISTS = ("items", "candidates")  # columns of several ids; in a text file they are separated by | , or ;
WINDOW = 50  # items of the history that reward models see


@dataclass(frozen=True)
class OwnLog:
    """A log of people, and what their other files need to know to fit it."""

    log: DecisionLog
    catalogue: Catalogue
    items: tuple[str, ...]  # (I,) ids as text, in the order of the catalogue
    rows: Tensor  # (E,) int64: the place in the file of each row of ``log``
    sessions: tuple[str, ...] | None  # ids as text by number of the session; None: each row is a session
    probabilities: Tensor | None  # (E, I) float64 of every item under the logger; None: not in the file
    whole: bool  # True if the rewards are of whole slates, and stand at the first place
    notes: tuple[str, ...]


def read_own(
    path: str | Path,
    given: Mapping[str, str | None] | None = None,
    separator: str | None = None,
    items: str | Path | None = None,
) -> OwnLog:
    """Read and check the file. ``given`` names columns by role (ROLES), ``items`` is a file about the items.

    Raises UserError for the first mistake, with its row.
    """
    path, name = Path(path), one_line(path)
    table = open_table(path, separator)
    wanted = dict(given or {})
    if "items" in table.names and wanted.get("item") is None:
        wanted["item"] = "items"
    columns, taken = find_columns(path, table.names, wanted, ROLES, required=("item",))
    both = [x for x in table.names if plain_name(x) in ("propensity", "logprob")]
    if len(both) > 1 and wanted.get("propensity") is None:
        raise UserError(f"{name} has both {both[0]} and {both[1]}: give --propensity-column.")
    frame = table.rows(table.names)
    if frame.height == 0:
        raise UserError(f"{name} holds no decisions: give a log with at least one row.")
    read = _Reader(name, frame, columns)
    signals = read.signal_names()
    shown = read.ids("item")  # (E,) lists of text
    places = read.places(shown)
    offered = read.ids("candidates") if "candidates" in columns else None
    every = pl.concat([x.explode() for x in (shown, offered) if x is not None]).unique()
    names, text_ids = _ordered(every)
    facts = ItemFacts() if items is None else read_items(items, columns["item"], text_ids)
    sessions, numbers = read.keys("session")
    users, user_numbers = read.keys("user")
    steps, times = read.steps(numbers), read.times()
    handed = read.context()
    interface = Interface(
        context=(("clock", 1), *((piece, x.shape[1]) for piece, x in handed.items())),
        action_sizes=(len(names),),
        slate_size=places,
        repeats=True,
        history_length=max(places, min(WINDOW, places * (int(steps.max()) + 1))) if steps.max() else 0,
        signals=signals,
        session_length=int(steps.max()) + 1,
    )
    loggers, of_row, under_each, note = read.loggers()
    logprobs = read.logprobs()
    if under_each is not None and "propensity" not in columns:
        logprobs = under_each.gather(1, of_row.unsqueeze(1)).squeeze(1)
    log = DecisionLog(
        header=DecisionHeader(loggers=loggers, interface=interface, signals=signals),
        users=numbers if users is None else user_numbers,
        sessions=numbers,
        steps=steps,
        times=times,
        items=_rows_of(shown, names).view(-1, places),
        logprobs=logprobs,
        signals=read.signals(signals, places),
        terminated=read.flags("terminated"),
        truncated=read.flags("truncated"),
        loggers=of_row,
        handed=handed,
        place_logprobs=read.numbers_in_lists("place_logprobs", places),
        logger_logprobs=under_each,
        candidates=None if offered is None else _padded(offered, names),
    )
    order = torch.from_numpy(np.lexsort((log.steps.numpy(), log.sessions.numpy())))
    log = _ended(log.rows(order))
    with own_ids(sessions, users):
        check_rows(name, log, order + 1)
    probabilities = read.probabilities([str(x) for x in names])
    by_id = names if not text_ids else [str(x) for x in names]
    shares = log.items.flatten().bincount(minlength=len(names)).float() / log.num_rows
    notes = [taken, table.note, facts.note, note, *read.notes]
    return OwnLog(
        log=log,
        catalogue=own_catalogue(by_id, facts, shares, one_line(path.name)),
        items=tuple(map(str, names)),
        rows=order,
        sessions=None if sessions is None else tuple(sessions),
        probabilities=None if probabilities is None else probabilities[order],
        whole=read.whole,
        notes=tuple(filter(None, notes)),
    )


@contextlib.contextmanager
def own_ids(sessions: Sequence[str] | None, users: Sequence[str] | None = None) -> Iterator[None]:
    """Give errors inside the block the ids of the file in place of our numbers of sessions and users.

    Without sessions in the file a session is a row.
    """
    try:
        yield
    except UserError as error:
        text = str(error)
        if sessions is None:
            text = re.sub(r"step 0 of session (\d+)", lambda found: f"row {int(found[1]) + 1}", text)
        else:
            text = re.sub(r"session (\d+)", lambda found: f"session {short(sessions[int(found[1])])}", text)
        if users is not None:
            pair = r"the users (\d+) and (\d+)"
            text = re.sub(
                pair,
                lambda found: f"the users {short(users[int(found[1])])} and {short(users[int(found[2])])}",
                text,
            )
        raise UserError(text) from error


def _ordered(ids: pl.Series) -> tuple[list[object], bool]:
    """The distinct ids in ascending order, as numbers if all are, and whether they are texts."""
    if ids.str.contains(NUMBER).all():
        numbers = whole_numbers(ids)
        if not numbers.has_nulls():
            return numbers.unique().sort().to_list(), False
    return ids.sort().to_list(), True


def _rows_of(lists: pl.Series, names: Sequence[object]) -> Tensor:
    """(n,) int64: the place of each id of the lists, one list after another."""
    flat = lists.explode()
    if names and not isinstance(names[0], str):
        flat = whole_numbers(flat)
    places = {name: place for place, name in enumerate(names)}
    return _tensor(flat.replace_strict(places, return_dtype=pl.Int64))


def _padded(lists: pl.Series, names: Sequence[object]) -> Tensor:
    """(E, C) int64, -1 after the end of a list."""
    lengths = _tensor(lists.list.len().cast(pl.Int64))
    found = torch.full((len(lists), int(lengths.max())), -1)
    found[torch.arange(found.shape[1]) < lengths.unsqueeze(1)] = _rows_of(lists, names)
    return found


def _ended(log: DecisionLog) -> DecisionLog:
    """The log in which the last row of a session, if it has no end, is truncated."""
    last = torch.ones(log.num_rows, dtype=torch.bool)
    last[:-1] = log.sessions[1:] != log.sessions[:-1]
    return dataclasses.replace(log, truncated=log.truncated | (last & ~log.terminated))


def _tensor(column: pl.Series) -> Tensor:
    return torch.from_numpy(column.to_numpy().copy())


class _Reader:
    """The columns of the file as tensors; each method raises UserError with the first wrong row."""

    def __init__(self, name: str, frame: pl.DataFrame, columns: Mapping[str, str]) -> None:
        self.name, self.frame, self.columns = name, frame, columns
        self.notes: list[str] = []
        self.whole = False  # a reward is of a whole slate of several items
        if "time" in columns and "step" not in frame.columns:
            twice = ~frame.select(pl.struct(pl.all()).is_first_distinct()).to_series()
            if twice.any():
                self.notes.append(
                    f"warning: {int(twice.sum()):,} rows repeat another in every column (the first is row "
                    f"{int(twice.arg_true()[0]) + 1}) and count twice"
                )

    def _filled(self, column: str) -> pl.Series:
        """The column, without gaps."""
        series = self.frame[column]
        gaps = no_value(series)
        if gaps.any():
            raise UserError(
                f"{self.name}: column {column!r} has no value in {int(gaps.sum()):,} rows (the first is row "
                f"{int(gaps.arg_true()[0]) + 1}): fill them in, or leave these sessions out."
            )
        return series

    def _numbers(self, column: str, series: pl.Series) -> Tensor:
        """(E,) float64"""
        found = series.cast(pl.Float64, strict=False)
        bad = found.is_null() & series.is_not_null()
        if bad.any():
            row = int(bad.arg_true()[0])
            raise UserError(
                f"{self.name}: column {column!r} has {short(series[row])} in row {row + 1}: give numbers."
            )
        return _tensor(found)

    def ids(self, role: str) -> pl.Series:
        """(E,) lists of ids as text."""
        column = self.columns[role]
        series = self._filled(column)
        if series.dtype.base_type() is pl.Array:
            series = series.arr.to_list()
        if series.dtype.base_type() is pl.List:
            return series.list.eval(pl.element().cast(pl.String))
        texts = series.cast(pl.String).str.strip_chars()
        if column not in LISTS and role != "candidates":
            return texts.to_frame("x").select(pl.concat_list("x")).to_series()
        return texts.str.strip_chars("[]").str.replace_all(r"\s*[|,;]\s*", "|").str.split("|")

    def places(self, shown: pl.Series) -> int:
        """K, the same in each row."""
        lengths = shown.list.len()
        places = int(lengths[0])
        wrong = (lengths != places).arg_true()
        if not places or wrong.len():
            row = int(wrong[0]) if wrong.len() else 0
            raise UserError(
                f"{self.name}: {self.columns['item']!r} holds {lengths[row]} items in row {row + 1}, and "
                f"{places} in row 1: give slates of the same size."
            )
        return places

    def keys(self, role: str) -> tuple[list[str] | None, Tensor]:
        """The ids as text in ascending order, and the number (E,) of each row's; rows count without them."""
        if role not in self.columns:
            return None, torch.arange(self.frame.height)
        texts = self._filled(self.columns[role]).cast(pl.String).str.strip_chars()
        known = texts.unique().sort()
        places = {text: place for place, text in enumerate(known.to_list())}
        return known.to_list(), _tensor(texts.replace_strict(places, return_dtype=pl.Int64))

    def times(self) -> Tensor:
        """(E,) int64: microseconds, or the number of the row."""
        if "time" not in self.columns:
            return torch.arange(self.frame.height)
        column = self.columns["time"]
        series = self._filled(column)
        order = order_in(series) if series.dtype == pl.String else None
        seconds, bad, rule, _ = times_of(series, "time", order)
        if bad.any():
            row = int(bad.arg_true()[0])
            raise UserError(
                f"{self.name}: column {column!r} has {short(series[row])} in row {row + 1}: {rule}."
            )
        return (_tensor(seconds.cast(pl.Float64)) * 1e6).long()

    def steps(self, sessions: Tensor) -> Tensor:
        """(E,) int64: the column ``step``, or the order of time (then of rows) within the session."""
        if "step" in self.frame.columns:
            return self._numbers("step", self._filled("step")).long()
        order = np.lexsort((np.arange(len(sessions)), self.times().numpy(), sessions.numpy()))
        ordered = sessions[torch.from_numpy(order)]
        new = torch.ones(len(ordered), dtype=torch.bool)
        new[1:] = ordered[1:] != ordered[:-1]
        first = new.nonzero().squeeze(1)[new.cumsum(0) - 1]  # of the row's session
        found = torch.empty_like(sessions)
        found[torch.from_numpy(order)] = torch.arange(len(ordered)) - first
        return found

    def signal_names(self) -> tuple[str, ...]:
        named = tuple(x.removeprefix("signal.") for x in self.frame.columns if x.startswith("signal."))
        if named:
            return named
        if "reward" not in self.columns:
            raise UserError(
                f"{self.name} has no column of rewards; its columns are {listed(self.frame.columns)}: name "
                "it with --reward-column, or give columns signal.NAME."
            )
        return (self.columns["reward"],)

    def signals(self, names: Sequence[str], places: int) -> Tensor:
        """(E, K, S) float32. A number for the whole slate stands at its first place."""
        found = []
        for name in names:
            column = f"signal.{name}" if f"signal.{name}" in self.frame.columns else name
            lists = self.numbers_in_lists(column, places)
            if lists is None:
                lists = torch.zeros(self.frame.height, places, dtype=torch.float64)
                lists[:, 0] = self._numbers(column, self._filled(column))
                self.whole = self.whole or places > 1
            found.append(lists.float())
        return torch.stack(found, 2)

    def numbers_in_lists(self, column: str, size: int) -> Tensor | None:
        """(E, size) float64; None without the column, or if it holds single numbers."""
        if column not in self.frame.columns:
            return None
        series = self._filled(column)
        if series.dtype.base_type() is pl.Array:
            series = series.arr.to_list()
        if series.dtype == pl.String and (size == 1 or series.str.contains(r"[|;,]").any()):
            series = series.str.strip_chars("[] ").str.replace_all(r"\s*[|,;]\s*", "|").str.split("|")
        if series.dtype.base_type() is not pl.List:
            return None
        wrong = (series.list.len() != size).arg_true()
        if wrong.len():
            row = int(wrong[0])
            raise UserError(
                f"{self.name}: {column!r} holds {series.list.len()[row]} values in row {row + 1}, and must "
                f"hold {size} in each row."
            )
        return self._numbers(column, series.explode()).nan_to_num(nan=torch.nan).view(-1, size)

    def probabilities(self, ids: Sequence[str]) -> Tensor | None:
        """(E, I) float64 of every item under the logger, from a list or from columns ``probability.ID``."""
        named = [f"probability.{x}" for x in ids]
        if "probabilities" not in self.frame.columns and any(x in self.frame.columns for x in named):
            lacking = [x for x in named if x not in self.frame.columns]
            if lacking:
                raise UserError(f"{self.name} has no column {short(lacking[0])}, but others of its kind.")
            found: Tensor | None = torch.stack([self._numbers(x, self._filled(x)) for x in named], 1)
        else:
            found = self.numbers_in_lists("probabilities", len(ids))
        if found is None:
            return None
        wrong = ~((found >= 0).all(1) & ((found.sum(1) - 1).abs() <= 1e-4))
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise UserError(
                f"{self.name}: the probabilities of row {row + 1} are no distribution: give numbers of at "
                "least 0 that sum to 1."
            )
        return found

    def logprobs(self) -> Tensor:
        """(E,) float64; NaN without propensities."""
        if "propensity" not in self.columns:
            return torch.full((self.frame.height,), torch.nan, dtype=torch.float64)
        column = self.columns["propensity"]
        return self._logarithms(column, plain_name(column) in ("logprob", "logpropensity"))

    def _logarithms(self, column: str, as_log: bool) -> Tensor:
        values = self._numbers(column, self._filled(column))
        check_probabilities(self.name, values, "logprob" if as_log else "propensity")
        return values if as_log else values.log()

    def loggers(self) -> tuple[tuple[str, ...], Tensor, Tensor | None, str]:
        """Names (P,), the logger (E,), the logprobs (E, P) under each, and a note."""
        nobody = torch.zeros(self.frame.height, dtype=torch.int64)
        if "policy" not in self.columns:
            return ("the log's policy",), nobody, None, ""
        texts = self._filled(self.columns["policy"]).cast(pl.String)
        names = texts.unique().sort().to_list()
        columns = [f"propensity.{name}" for name in names]
        if len(names) == 1 or any(column not in self.frame.columns for column in columns):
            note = "" if len(names) == 1 else (
                f"warning: {len(names)} policies logged, but the columns {', '.join(columns)} are not all "
                "there: the weights use each row's own propensity, and are larger than they need be"
            )  # fmt: skip
            return (" + ".join(names),), nobody, None, note
        under = torch.stack([self._possible(column) for column in columns], 1)
        places = {name: place for place, name in enumerate(names)}
        return tuple(names), _tensor(texts.replace_strict(places, return_dtype=pl.Int64)), under, ""

    def _possible(self, column: str) -> Tensor:
        """Logarithms of probabilities, which may be 0 under a policy that did not decide."""
        values = self._numbers(column, self._filled(column))
        wrong = ~((values >= 0) & (values <= 1))
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise UserError(f"{self.name}: {column} is {values[row]:g} in row {row + 1}: give 0..1.")
        return values.log()

    def context(self) -> dict[str, Tensor]:
        found = {}
        for column in (x for x in self.frame.columns if x.startswith("context.")):
            series = self._filled(column)
            if series.dtype.base_type() is pl.Array:
                series = series.arr.to_list()
            size = int(series.list.len()[0]) if series.dtype.base_type() is pl.List else 1
            lists = self.numbers_in_lists(column, size)
            values = self._numbers(column, series).unsqueeze(1) if lists is None else lists
            found[column.removeprefix("context.")] = values.float()
        return found

    def flags(self, column: str) -> Tensor:
        """(E,) bool; False without the column."""
        if column not in self.frame.columns:
            return torch.zeros(self.frame.height, dtype=torch.bool)
        texts = self._filled(column).cast(pl.String).str.to_lowercase()
        bad = (~texts.is_in(["true", "false", "1", "0"])).arg_true()
        if bad.len():
            row = int(bad[0])
            raise UserError(
                f"{self.name}: {column} is {short(texts[row])} in row {row + 1}: give true or false."
            )
        return _tensor(texts.is_in(["true", "1"]))
