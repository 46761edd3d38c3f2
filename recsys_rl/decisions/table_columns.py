"""The columns of a team's own log of decisions (decisions/table.py), as tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys_rl.decisions.checks import ROUNDING, check_distributions, check_probabilities
from recsys_rl.errors import listed, short
from recsys_rl.files.clean import floats, no_value, without_value
from recsys_rl.files.columns import is_logarithm
from recsys_rl.files.read import lists_of
from recsys_rl.files.times import times_of
from recsys_rl.types import UserError

LISTS = ("items", "candidates")  # columns of several ids
MOST_TEXTS = 50  # of a piece of the context


def tensor_of(column: pl.Series) -> Tensor:
    return torch.from_numpy(column.to_numpy().copy())


def _holds_texts(series: pl.Series) -> bool:
    """True if no value of a column, and no entry of its lists, is a number."""
    lists = lists_of(series) if series.dtype == pl.String else None
    parts = series if lists is None else lists.explode()
    return parts.dtype == pl.String and bool(floats(parts).is_null().all())


def _repeated(rows: pl.Series, of_sessions: bool) -> str:
    """The warning about ``rows``, True for each that repeats another."""
    count, first = int(rows.sum()), int(rows.arg_true()[0]) + 1
    text = (
        f"warning: {count:,} rows repeat another in every column (the first is row {first}) and count twice"
    )
    if count == 1:
        text = f"warning: 1 row repeats another in every column (row {first}) and counts twice"
    more = ", as a further step of its session: remove copies, or add a column step"
    return text + more * of_sessions


def check_agreement(
    name: str, column: str, logprobs: Tensor, loggers: Sequence[str], of_row: Tensor, own: Tensor
) -> None:
    """Raise UserError with the first row whose propensity is not that of the column of its own policy.

    Args:
        column: of the propensities.
        logprobs: (E,) of that column.
        of_row: (E,) the policy that decided, of ``loggers``.
        own: (E,) the logprob under it, of its column ``propensity.NAME``.
    """
    wrong = ~((logprobs - own).abs() <= ROUNDING)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        first, second = float(logprobs[row].exp()), float(own[row].exp())
        other = short(f"propensity.{loggers[int(of_row[row])]}")
        raise UserError(
            f"{name}: row {row + 1} has the propensity {first:g} by the column {column}, but {second:g} by "
            f"{other}, that of its own policy: correct one of them."
        )


class Reader:
    """The columns of the file as tensors; each method raises UserError with the first wrong row."""

    def __init__(self, name: str, frame: pl.DataFrame, columns: Mapping[str, str]) -> None:
        self.name, self.frame, self.columns = name, frame, columns
        self.notes: list[str] = []
        self.whole = False  # a reward is of a whole slate of several items
        if {"time", "session"} & columns.keys() and "step" not in frame.columns:
            twice = ~frame.select(pl.struct(pl.all()).is_first_distinct()).to_series()
            if twice.any():
                self.notes.append(_repeated(twice, "session" in columns))

    def _filled(self, column: str) -> pl.Series:
        """The column, without gaps."""
        series = self.frame[column]
        gaps = no_value(series)
        if gaps.any():
            raise UserError(
                f"{self.name}: {without_value(repr(column), int(gaps.sum()), int(gaps.arg_true()[0]) + 1)}: "
                "fill them in, or leave these sessions out."
            )
        return series

    def _texts(self, column: str) -> pl.Series:
        """The column as text, without gaps."""
        series = self._filled(column)
        if series.dtype.is_nested():
            raise UserError(f"{self.name}: column {column!r} has lists: give one value in each row.")
        return series.cast(pl.String)

    def _numbers(self, column: str, series: pl.Series, size: int = 1) -> Tensor:
        """(E size,) float64, from ``size`` values of each row."""
        found = floats(series)
        bad = found.is_null() & series.is_not_null()
        if bad.any():
            place = int(bad.arg_true()[0])
            row, value = place // size + 1, short(series.slice(place, 1).to_list()[0])
            raise UserError(f"{self.name}: column {column!r} has {value} in row {row}: give numbers.")
        return tensor_of(found)

    def ids(self, role: str) -> pl.Series:
        """(E,) lists of ids as text."""
        column = self.columns[role]
        series = self._filled(column)
        lists = lists_of(series) if column in LISTS or role == "candidates" else None
        if lists is None:
            lists = series.to_frame("x").select(pl.concat_list("x")).to_series()
        ids = lists.list.eval(pl.element().cast(pl.String).str.strip_chars())
        gap = ids.list.eval(pl.element().is_null() | (pl.element() == "")).list.any().arg_true()
        if gap.len():
            row = int(gap[0]) + 1
            raise UserError(f"{self.name}: column {column!r} has an empty id in row {row}: give all ids.")
        return ids

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
        texts = self._texts(self.columns[role]).str.strip_chars()
        known = texts.unique().sort()
        places = {text: place for place, text in enumerate(known.to_list())}
        return known.to_list(), tensor_of(texts.replace_strict(places, return_dtype=pl.Int64))

    def times(self) -> Tensor:
        """(E,) int64: microseconds, or the number of the row."""
        if "time" not in self.columns:
            return torch.arange(self.frame.height)
        column = self.columns["time"]
        series = self._filled(column)
        seconds, bad, rule, _ = times_of(series, "time")
        if bad.any():
            row = int(bad.arg_true()[0])
            raise UserError(
                f"{self.name}: column {column!r} has {short(series[row])} in row {row + 1}: {rule}."
            )
        return (tensor_of(seconds.cast(pl.Float64)) * 1e6).long()

    def steps(self, sessions: Tensor) -> Tensor:
        """(E,) int64: the column ``step``, or the order of time (then of rows) within the session."""
        if "step" in self.frame.columns:
            series = self._filled("step")
            numbers = self._numbers("step", series)
            wrong = (numbers != numbers.floor()) | (numbers.abs() >= 2**53)
            if bool(wrong.any()):
                row = int(wrong.nonzero()[0])
                raise UserError(
                    f"{self.name}: column 'step' has {short(series[row])} in row {row + 1}: steps are whole "
                    "numbers from 0 on."
                )
            return numbers.long()
        order = np.lexsort((np.arange(len(sessions)), self.times().numpy(), sessions.numpy()))
        ordered = sessions[torch.from_numpy(order)]
        new = torch.ones(len(ordered), dtype=torch.bool)
        new[1:] = ordered[1:] != ordered[:-1]
        first = new.nonzero().squeeze(1)[new.cumsum(0) - 1]  # of the row's session
        found = torch.empty_like(sessions)
        found[torch.from_numpy(order)] = torch.arange(len(ordered)) - first
        return found

    def signal_names(self, given: bool) -> tuple[str, ...]:
        """The columns signal.NAME, else that of rewards, which comes first if the user has ``given`` it."""
        named = tuple(x.removeprefix("signal.") for x in self.frame.columns if x.startswith("signal."))
        if given or (not named and "reward" in self.columns):
            return (self.columns["reward"],)
        if not named:
            raise UserError(
                f"{self.name} has no column of rewards; its columns are {listed(self.frame.columns)}: name "
                "it with --reward-column, or give columns signal.NAME."
            )
        if "reward" in self.columns:
            column = self.columns["reward"]
            self.notes.append(
                f"the columns signal.NAME are read, and {column} is not: give --reward-column {column} to "
                "read it in their place"
            )
        return named

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

    def numbers_in_lists(self, column: str, size: int | None = None) -> Tensor | None:
        """(E, size) float64; None without the column, or if it holds single numbers.

        ``size`` None is that of the first row.
        """
        if column not in self.frame.columns:
            return None
        lists = lists_of(self._filled(column))
        if lists is None:
            return None
        size = int(lists.list.len()[0]) if size is None else size
        wrong = (lists.list.len() != size).arg_true()
        if wrong.len():
            row = int(wrong[0])
            raise UserError(
                f"{self.name}: {column!r} holds {lists.list.len()[row]} values in row {row + 1}, and must "
                f"hold {size} in each row."
            )
        return self._numbers(column, lists.explode(), size).view(-1, size)

    @property
    def named_items(self) -> list[str]:
        """The ids of the items with a column ``probability.ID``."""
        return [x.removeprefix("probability.") for x in self.frame.columns if x.startswith("probability.")]

    def probabilities(self, ids: Sequence[str]) -> Tensor | None:
        """(E, I) float64 of every item under the logger: columns ``probability.ID``, or a list.

        The list has the order of ``ids``.
        """
        if "probabilities" not in self.frame.columns and self.named_items:
            lacking = [x for x in ids if x not in self.named_items]
            if lacking:
                column = short(f"probability.{lacking[0]}")
                raise UserError(f"{self.name} has no column {column}, but others of its kind: add it.")
            columns = [f"probability.{x}" for x in ids]
            found: Tensor | None = torch.stack([self._numbers(x, self._filled(x)) for x in columns], 1)
        else:
            found = self.numbers_in_lists("probabilities", len(ids))
        if found is None:
            return None
        check_distributions(self.name, found, lambda row: f"row {row + 1}")
        return found

    def logprobs(self, every: Tensor | None, items: Tensor) -> Tensor:
        """(E,) float64; NaN without propensities.

        ``every`` (E, I): ``probabilities``, which give the propensities of single ``items`` (E, 1).
        """
        own = None if every is None or items.shape[1] > 1 else every.gather(1, items).squeeze(1)  # (E,)
        if "propensity" not in self.columns:
            if own is None:
                return torch.full((self.frame.height,), torch.nan, dtype=torch.float64)
            check_probabilities(self.name, own, "propensity")
            return own.log()
        column = self.columns["propensity"]
        found = self._logarithms(column, is_logarithm(column))
        wrong = torch.zeros_like(found) if own is None else (found.exp() - own).abs() > 1e-4
        if own is not None and bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise UserError(
                f"{self.name}: the item of row {row + 1} has the probability {float(found[row].exp()):g} by "
                f"the column {column}, but {float(own[row]):g} among those of every item: correct one of "
                "them. A list of probabilities has the order of the items' ids."
            )
        return found

    def _logarithms(self, column: str, as_log: bool) -> Tensor:
        values = self._numbers(column, self._filled(column))
        check_probabilities(self.name, values, "logprob" if as_log else "propensity")
        return values if as_log else values.log()

    def loggers(self) -> tuple[tuple[str, ...], Tensor, Tensor | None, str]:
        """Names (P,), the logger (E,), the logprobs (E, P) under each, and a note."""
        nobody = torch.zeros(self.frame.height, dtype=torch.int64)
        if "policy" not in self.columns:
            return ("the log's policy",), nobody, None, ""
        texts = self._texts(self.columns["policy"])
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
        return tuple(names), tensor_of(texts.replace_strict(places, return_dtype=pl.Int64)), under, ""

    def _possible(self, column: str) -> Tensor:
        """Logarithms of probabilities, which may be 0 under a policy that did not decide."""
        values = self._numbers(column, self._filled(column))
        wrong = ~((values >= 0) & (values <= 1))
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise UserError(f"{self.name}: {column} is {values[row]:g} in row {row + 1}: give 0..1.")
        return values.log()

    def context(self) -> dict[str, Tensor]:
        """The pieces (E, size): numbers, lists of them, or texts, one-hot encoded in alphabetical order."""
        found, encoded = {}, []
        for column in (x for x in self.frame.columns if x.startswith("context.")):
            series = self._filled(column)
            if _holds_texts(series):
                values, kinds = self._one_hot(column, series)
                encoded.append(f"{column} ({listed(kinds)})")
            else:
                lists = self.numbers_in_lists(column)
                values = self._numbers(column, series).unsqueeze(1) if lists is None else lists
            found[column.removeprefix("context.")] = values.float()
        if encoded:
            self.notes.append(f"texts that are one-hot encoded: {', '.join(encoded)}")
        return found

    def _one_hot(self, column: str, series: pl.Series) -> tuple[Tensor, list[str]]:
        """(E, n) with a 1 for the text of each row, and the n texts."""
        texts = series.str.strip_chars()
        kinds = texts.unique().sort().to_list()
        if len(kinds) > MOST_TEXTS:
            raise UserError(
                f"{self.name}: column {column!r} has {len(kinds):,} different texts, such as "
                f"{short(kinds[0])}: at most {MOST_TEXTS} are one-hot encoded; merge the rare ones, give "
                "numbers, or give the column another name to leave it out."
            )
        places = {text: place for place, text in enumerate(kinds)}
        rows = tensor_of(texts.replace_strict(places, return_dtype=pl.Int64))
        return torch.nn.functional.one_hot(rows, len(kinds)), kinds

    def flags(self, column: str) -> Tensor:
        """(E,) bool; False without the column."""
        if column not in self.frame.columns:
            return torch.zeros(self.frame.height, dtype=torch.bool)
        texts = self._texts(column).str.to_lowercase()
        bad = (~texts.is_in(["true", "false", "1", "0"])).arg_true()
        if bad.len():
            row = int(bad[0])
            raise UserError(
                f"{self.name}: {column} is {short(texts[row])} in row {row + 1}: give true or false."
            )
        return tensor_of(texts.is_in(["true", "1"]))
