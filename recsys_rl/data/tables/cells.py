"""The cells of a table of decisions as tensors. Each mistake is one TableError with its first row.

Rows are counted from 1, in the order of the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl
import torch
from torch import Tensor

from recsys_rl.data.tables.clean import without_value
from recsys_rl.data.tables.findings import TableError, wrong
from recsys_rl.data.tables.schema import Column, column_of, follows, named, value
from recsys_rl.data.tables.values import (
    COMMA,
    EITHER,
    commas_or_lists,
    labels,
    lists_of,
    no_entry,
    no_value,
    on,
)
from recsys_rl.errors import one_line, short
from recsys_rl.types import UserError


def tensor_of(column: pl.Series) -> Tensor:
    """(E,), a copy."""
    return torch.from_numpy(column.to_numpy().copy())


class Cells:
    """The columns of a table. A method raises UserError if the column is missing or holds a wrong value."""

    def __init__(self, name: str, frame: pl.DataFrame, rows: pl.Series | None = None) -> None:
        """``name``: of the file, for errors. ``rows``: of the file, from 1; None: 1, 2 and so on."""
        self.name, self.frame, self.rows = name, frame, rows

    def __contains__(self, column: str) -> bool:
        return column in self.frame.columns

    def row(self, place: int) -> int:
        """The row of the file at this place, from 1."""
        return place + 1 if self.rows is None else int(self.rows[place])

    def known(self, column: str) -> tuple[Cells, pl.Series]:
        """The rows with a value in this column (an empty list is none), and True (E,) for each of them."""
        there = ~on(self.frame[column], no_entry)
        rows = pl.Series(range(1, len(there) + 1)) if self.rows is None else self.rows
        return Cells(self.name, self.frame.select(column).filter(there), rows.filter(there)), there

    def filled(self, column: str) -> pl.Series:
        """The column, without gaps."""
        if column not in self:
            raise UserError(f"{self.name} has no column {column!r}: docs/09_logs.md lists the columns.")
        series = self.frame[column]
        gaps = on(series, no_value)
        if gaps.any():
            first = self.row(int(gaps.arg_true()[0]))
            mends = ("fill them in, or leave these sessions out",)
            raise TableError(self.name, without_value(repr(column), int(gaps.sum()), first), mends=mends)
        return series

    def texts(self, column: str) -> pl.Series:
        """The column as text, without gaps."""
        series = self.filled(column)
        if series.dtype.is_nested():
            raise UserError(f"{self.name}: column {column!r} has lists: give one value in each row.")
        return series.cast(pl.String)

    def labels(self, column: str) -> pl.Series:
        """The texts of a piece of the context, without gaps."""
        return on(self.texts(column), labels)

    def named(self, column: str, names: Sequence[str]) -> Tensor:
        """(E,) int64: the place of each row's text among the ``names``."""
        texts = self.texts(column)
        unknown = (~texts.is_in(list(names))).arg_true()
        if unknown.len():
            at = int(unknown[0])
            sentence = "{row} is of {column} {value!r}, but its header names {names}"
            of = {"value": one_line(texts[at]), "names": ", ".join(names)}
            raise wrong(self.name, sentence, row=self.row(at), column=column, **of)
        places = {name: index for index, name in enumerate(names)}
        return tensor_of(texts.replace_strict(places, return_dtype=pl.Int64))

    def values(self, column: str, rule: Column | None = None) -> Tensor:
        """(E,) int64, float64 or bool, by the kind of the column. ``rule``: None for that of its name."""
        return self._checked(column, self.filled(column), rule or column_of(column))

    def optional(self, column: str, size: int | None = None) -> Tensor | None:
        """``lists``; None without the column."""
        return self.lists(column, size) if column in self else None

    def lists(self, column: str, size: int | None = None, rule: Column | None = None) -> Tensor:
        """(E, size) of a column of lists, by its kind; ``size`` None is that of the first row."""
        rule = rule or column_of(column)
        if rule.kind == "number":
            self._refuse_commas(column)
        series = lists_of(self.filled(column))
        if series is None:
            raise UserError(f"{self.name}: column {column!r} has single values: give a list in each row.")
        lengths = series.list.len()
        size = int(lengths[0]) if size is None else size
        others = (lengths != size).arg_true()
        if others.len():
            at = int(others[0])
            sentence = "{column!r} holds {value} values in {row}, and must hold {size} in each row"
            raise wrong(self.name, sentence, row=self.row(at), column=column, value=lengths[at], size=size)
        flat = series.explode() if size else pl.Series([], dtype=pl.Int64)
        null = flat.is_null().arg_true()
        if null.len():
            row = self.row(int(null[0]) // size)
            sentence = "{column!r} lacks a value in {row}: every row must hold all"
            raise wrong(self.name, sentence, row=row, column=column)
        checked = self._checked(column, flat, rule, lambda index: index // size)
        return checked.view(len(series), size)

    def _refuse_commas(self, column: str) -> None:
        """Raise UserError for texts of which nobody can say whether they are lists."""
        series = self.frame[column] if column in self else pl.Series()
        if series.dtype == pl.String and series.to_frame("x").select(commas_or_lists(pl.col("x"))).item():
            at = int(series.str.contains(COMMA).arg_true()[0])
            sentence = "column {column!r} has {value} in {row}, " + EITHER
            raise wrong(self.name, sentence, row=self.row(at), column=column, value=short(series[at]))

    def padded(self, column: str) -> Tensor | None:
        """(E, n) int64 of lists of different lengths, with -1 after the end; None without the column."""
        if column not in self:
            return None
        series = lists_of(self.filled(column))
        if series is None:
            raise UserError(f"{self.name}: column {column!r} has single values: give a list in each row.")
        flat = series.filter(series.list.len() > 0).explode()
        ends = series.list.len().cum_sum()
        values = self._checked(
            column, flat, column_of(column), lambda index: int(ends.search_sorted(index, "right"))
        )
        return spread(series.list.len(), values)

    def probabilities(self, ids: Sequence[str]) -> Tensor | None:
        """(E, I) float64 of every item: columns ``probability.ID``, or a list in the order of ``ids``."""
        columns = named(self.frame.columns, "probability.")
        if "probabilities" not in self and not columns:
            return None
        if "probabilities" in self:
            probabilities = self.lists("probabilities", len(ids)).double()
        else:
            lacking = next((id_ for id_ in ids if id_ not in columns), None)
            if lacking is not None:
                raise UserError(
                    f"{self.name} has no column {one_line(f'probability.{lacking}')}: give one column for "
                    f"each of the {len(ids):,} items of the log."
                )
            probabilities = torch.stack([self.values(columns[id_]).double() for id_ in ids], 1)
        sound = (probabilities >= 0).all(1) & ((probabilities.sum(1) - 1).abs() <= 1e-4)  # False for NaN
        rule = "give numbers of at least 0 that sum to 1"
        self.refuse(~sound, "the probabilities of {row} are not a distribution: " + rule)
        return probabilities

    def check_items(self, column: str, values: Tensor | None, number: int) -> None:
        """Raise UserError unless the entries (E, n) of a column are rows of the catalogue, or -1."""
        if values is None or not values.shape[1]:
            return
        sentence = (
            "{column} holds {value} in {row}: items are 0 to {last}, rows of the catalogue, or -1 for an "
            "empty place"
        )
        outside = (values < -1) | (values >= number)
        self.refuse(outside, sentence, column=column, value=values, last=number - 1)

    def refuse(self, broken: Tensor, sentence: str, **values: Any) -> None:
        """Raise UserError for the first row where ``broken`` (E,), or (E, n) for some entry, is True.

        ``values``: for the places of the ``sentence``. Of a tensor it is the row's value, or its first broken
        entry; a function gets the row's place.
        """
        if not bool(broken.any()):
            return
        at = int(broken.nonzero()[0, 0])

        def here(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value(at) if callable(value) else value
            return value[at][broken[at]][0].item() if broken.ndim > 1 else value[at].tolist()

        known = {name: here(value) for name, value in values.items()}
        raise wrong(self.name, sentence, row=self.row(at), **known)

    def _checked(
        self, column: str, flat: pl.Series, rule: Column, row_of: Callable[[int], int] = int
    ) -> Tensor:
        """(n,) of values without gaps; ``row_of`` the place of a value is its row."""
        parsed, broken = numbers(flat, rule)
        places = broken.arg_true()
        if places.len():
            index = int(places[0])
            number = parsed[index]
            kind = "whole numbers" if rule.kind in ("whole", "id") else "numbers"
            kind = "true or false" if rule.kind == "truth" else kind
            if number is None:
                sentence, given = "column {column!r} has {value}", short(flat.slice(index, 1).to_list()[0])
                why = rule.sentence if rule.kind == "whole" and rule.sentence else f"give {kind}"
                if rule.kind == "number" and re.match(COMMA, str(flat[index])):
                    why += ", with a point before the decimals"
                elif column.startswith("context."):
                    why += (
                        '; in a column of texts put each one that is a number in quotation marks, as """7""" '
                        "in CSV"
                    )
            else:
                sentence, given, why = (
                    "{column} is {value}",
                    f"{number:g}",
                    rule.sentence + _hint(rule, parsed),
                )
            sentence += " in {row}: {why}"
            row = self.row(row_of(index))
            raise wrong(self.name, sentence, row=row, column=column, value=given, why=why)
        return tensor_of(parsed)


def numbers(values: pl.Series, column: Column) -> tuple[pl.Series, pl.Series]:
    """The values as numbers, null where they have none, and True for each that breaks the rule.

    Numbers are Int64 for whole numbers, else floats; texts may hold them. Gaps break no rule.
    """
    parsed = on(values, value, column)
    wrong = on(parsed, lambda cells, _: ~follows(cells, column))
    return parsed, wrong & values.is_not_null()


def spread(lengths: pl.Series, flat: Tensor) -> Tensor:
    """(E, n) of lists of these ``lengths`` (E,), one after another in ``flat``, with -1 after the end."""
    sizes = tensor_of(lengths.cast(pl.Int64))
    padded = torch.full((len(sizes), int(sizes.max())), -1)
    padded[torch.arange(padded.shape[1]) < sizes.unsqueeze(1)] = flat
    return padded


def _hint(rule: Column, values: pl.Series) -> str:
    """The mend where a column of logprob holds propensities, or one of propensity logprobs."""
    known = values.filter(values.is_finite()) if values.dtype.is_float() else values
    if rule.name in ("logprob", "logger_logprobs") and known.len() and known.is_between(0, 1).all():
        return "; the values look like probabilities: name the column propensity"
    if rule.name in ("propensity", "propensity.") and known.len() and (known <= 0).all():
        return "; the values look like logarithms: name the column logprob"
    return ""
