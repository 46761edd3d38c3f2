"""The survey of the context in a table of decisions: columns context.NAME, which say what the policy knew.

All columns of numbers are scanned together. The rows of a problem are sought only where the sums of a column
show that there is one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from recsys_rl.tables.decision_columns import MOST_TEXTS
from recsys_rl.tables.layout import ROW, Count, Layout
from recsys_rl.tables.schema import column_of, follows, named, value
from recsys_rl.tables.values import Kind


@dataclass(frozen=True)
class Piece:
    """A piece of the context."""

    column: str
    size: int  # numbers that a policy sees: of a text, one for each kind
    constant: int  # of these, the numbers that are the same in each row
    of_texts: bool = False


@dataclass(frozen=True)
class ContextSurvey:
    """The pieces of the context, and the rows for which `recsys-rl ope` refuses them."""

    pieces: tuple[Piece, ...]
    problems: dict[str, Count]


def survey_context(layout: Layout) -> ContextSurvey:
    """Scan the columns context.NAME, which ``layout`` must have."""
    columns = tuple(named(layout.table.names, "context.").values())
    texts = _of_texts(layout, columns)
    numbers = [name for name in columns if name not in texts]
    sizes = _sizes(layout, numbers)
    places, doubtful = _extremes(layout, sizes)
    pieces: list[Piece] = []
    problems: dict[str, Count] = {}
    for name in columns:
        if name in texts:
            piece, wrong = _of_kinds(layout, name)
            pieces.append(piece)
            problems |= _gaps(layout, name) | wrong
            continue
        pieces.append(Piece(name, len(places[name]), sum(low == high for low, high in places[name])))
        if name in doubtful:
            problems |= _gaps(layout, name) | _wrong_numbers(layout, name, sizes[name])
    return ContextSurvey(tuple(pieces), problems)


def _of_texts(layout: Layout, columns: tuple[str, ...]) -> set[str]:
    """The columns without a number, also in lists, as decision_columns.py takes them."""
    texts = [name for name in columns if layout.types[name] == pl.String]
    found = {}
    for name in texts:
        known = _entry(layout, name, pl.element()) if layout.is_list(name) else _entry(layout, name)
        if layout.is_list(name):
            known = layout.lists(name).list.eval(known).list.drop_nulls().list.len() > 0
        else:
            known = known.is_not_null()
        found[name] = (known & ~layout.gap(name)).any()
    row = layout.collect(layout.scan.select(x.alias(k) for k, x in found.items())).row(0) if found else ()
    return {name for name, holds_numbers in zip(texts, row, strict=True) if not holds_numbers}


def _entry(layout: Layout, name: str, entry: pl.Expr | None = None) -> pl.Expr:
    """The numbers of a column, or of an ``entry`` of its lists; null where there is none."""
    kind: Kind = layout.types[name]
    if isinstance(kind, pl.List):
        kind = kind.inner
    return value(pl.col(name) if entry is None else entry, kind, column_of(name))


def _sizes(layout: Layout, numbers: list[str]) -> dict[str, int | None]:
    """The number of entries in the first list of each column; None for one of single numbers."""
    lists = [name for name in numbers if layout.is_list(name)]
    first = layout.collect(layout.scan.head(1).select(layout.lists(name).list.len() for name in lists))
    sizes = dict(zip(lists, first.row(0), strict=True)) if lists else {}
    return {name: sizes.get(name) for name in numbers}


Extremes = tuple[float | None, float | None]


def _extremes(layout: Layout, sizes: Mapping[str, int | None]) -> tuple[dict[str, list[Extremes]], set[str]]:
    """The least and the largest number at each place of the columns with ``sizes``.

    And the columns with a gap, a list of another size, or what is no finite number.
    """
    each: list[tuple[str, pl.Expr]] = []
    others: list[tuple[str, pl.Expr]] = []
    for name, size in sizes.items():
        if size is None:
            each.append((name, _entry(layout, name)))
            continue
        lists = layout.lists(name)
        others.append((name, lists.list.len() != size))
        each += [(name, _entry(layout, name, lists.list.get(k, null_on_oob=True))) for k in range(size)]
    if not each and not others:
        return {name: [] for name in sizes}, set()
    # Columns first: in one step with the sums, each of the four would parse a text again.
    scan = layout.scan.select(x.alias(str(k)) for k, (_, x) in enumerate([*each, *others]))
    parts = [y for k in range(len(each)) for y in _four(k)]
    parts += [pl.col(str(k)).sum() for k in range(len(each), len(each) + len(others))]
    row = layout.collect(scan.select(parts)).row(0)
    places: dict[str, list[Extremes]] = {name: [] for name in sizes}
    doubtful = {name for (name, _), wrong in zip(others, row[4 * len(each) :], strict=True) if wrong}
    for k, (name, _) in enumerate(each):
        low, high, total, count = row[4 * k : 4 * k + 4]
        places[name].append((low, high))
        if count < layout.rows or not math.isfinite(total):  # the sum of what is not finite is not, either
            doubtful.add(name)
    return places, doubtful


def _four(k: int) -> list[pl.Expr]:
    """The least number of a column, the largest, their sum, and how many there are."""
    x = pl.col(str(k))
    return [y.alias(f"{k} {j}") for j, y in enumerate((x.min(), x.max(), x.sum(), x.count()))]


def _gaps(layout: Layout, name: str) -> dict[str, Count]:
    return layout.counted({f"column {name!r} has no value": layout.gap(name)})


def _wrong_numbers(layout: Layout, name: str, size: int | None) -> dict[str, Count]:
    """The rows with another number of values than the first, or with what is no finite number."""
    rule = column_of(name)
    text = f"column {name!r} {rule.problem}"
    if size is None:
        return layout.counted({text: ~follows(_entry(layout, name), rule) & ~layout.gap(name)})
    lists = layout.lists(name)
    another = f"column {name!r} holds another number of values than the first row ({size})"
    wrong = lists.list.eval(~follows(_entry(layout, name, pl.element()), rule)).list.any()
    checks = {another: lists.list.len() != size, text: wrong}
    return layout.counted({k: x.fill_null(False) & ~layout.gap(name) for k, x in checks.items()})


def _of_kinds(layout: Layout, name: str) -> tuple[Piece, dict[str, Count]]:
    """A piece with a number for each of its texts; more than MOST_TEXTS are a problem."""
    scan = layout.scan.filter(~layout.gap(name))
    kinds = layout.counts(layout.hash(name), scan).height
    text = f"column {name!r} has {kinds:,} different texts, and at most {MOST_TEXTS} are one-hot encoded"
    problems = {text: layout.collect(scan.select(pl.len(), pl.col(ROW).min())).row(0)}
    return Piece(name, kinds, int(kinds == 1), True), problems if kinds > MOST_TEXTS else {}
