"""The survey of the context in a table of decisions: columns context.NAME, which say what the policy knew.

All columns of numbers are scanned together. The rows of a problem are sought only where the sums of a column
show that there is one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from recsys_rl.tables.layout import ROW, Count, Layout
from recsys_rl.tables.pieces import MOST_TEXTS
from recsys_rl.tables.schema import column_of, follows, named, value
from recsys_rl.tables.values import EITHER, Kind


@dataclass(frozen=True)
class ContextPiece:
    """A piece of the context, as it is seen in a whole log."""

    column: str
    size: int  # numbers that a policy sees: of a text, one for each kind
    constant: int  # of these, the numbers that are the same in each row
    of_texts: bool = False


@dataclass(frozen=True)
class ContextSurvey:
    """The pieces of the context, and the rows for which `recsys-rl ope` refuses them."""

    pieces: tuple[ContextPiece, ...]
    problems: dict[str, Count]  # of rows that nobody can read
    many_texts: dict[str, Count]  # of columns with more texts than `ope` encodes


@dataclass(frozen=True)
class _Numbers:
    """A column of numbers, or of lists of them."""

    ends: tuple[tuple[float | None, float | None], ...]  # the least and the largest of each place
    sound: bool  # each row has finite numbers, in lists of one size

    def piece(self, column: str) -> ContextPiece:
        constant = sum(least == largest for least, largest in self.ends)
        return ContextPiece(column, len(self.ends), constant)


def survey_context(layout: Layout) -> ContextSurvey:
    """Scan the columns context.NAME, which ``layout`` must have."""
    columns = tuple(named(layout.table.names, "context.").values())
    texts = _of_texts(layout, columns)
    sizes = _sizes(layout, [name for name in columns if name not in texts])
    numbers = _numbers(layout, sizes)
    pieces: list[ContextPiece] = []
    problems: dict[str, Count] = {}
    many_texts: dict[str, Count] = {}
    for name in columns:
        if name in texts:
            piece, wrong = _one_hot(layout, name)
            many_texts |= wrong
        else:
            piece = numbers[name].piece(name)
        if name in texts or not numbers[name].sound:
            problems |= layout.counted({f"column {name!r} has no value": layout.gap(name)})
        if name not in texts and not numbers[name].sound:
            problems |= _wrong_numbers(layout, name, sizes[name])
        pieces.append(piece)
    return ContextSurvey(tuple(pieces), problems, many_texts)


def _of_texts(layout: Layout, columns: tuple[str, ...]) -> set[str]:
    """The columns without a number, also in lists, as decision_columns.py takes them."""
    texts = [name for name in columns if layout.types[name] == pl.String]
    if not texts:
        return set()
    checks = []
    for name in texts:
        if layout.is_list(name):
            numbers = layout.lists(name).list.eval(_entry(layout, name, pl.element()))
            known = numbers.list.drop_nulls().list.len() > 0
        else:
            known = _entry(layout, name, pl.col(name)).is_not_null()
        checks.append((known & ~layout.gap(name)).any().alias(name))
    row = layout.collect(layout.scan.select(checks)).row(0)
    return {name for name, has_numbers in zip(texts, row, strict=True) if not has_numbers}


def _entry(layout: Layout, name: str, cells: pl.Expr) -> pl.Expr:
    """The numbers of the ``cells`` of a column, or of entries of its lists; null where there is none."""
    kind: Kind = layout.types[name]
    return value(cells, kind.inner if isinstance(kind, pl.List) else kind, column_of(name))


def _sizes(layout: Layout, columns: list[str]) -> dict[str, int | None]:
    """The number of entries in the first list of each column; None for one of single numbers."""
    sizes: dict[str, int | None] = {}
    for name in columns:
        sizes[name] = None
        if layout.is_list(name):
            first = layout.scan.filter(~layout.gap(name)).head(1).select(layout.lists(name).list.len())
            sizes[name] = next(iter(layout.collect(first).to_series()), 0)
    return sizes


def _numbers(layout: Layout, sizes: Mapping[str, int | None]) -> dict[str, _Numbers]:
    """The columns with these ``sizes`` of lists, in one scan."""
    cells: list[pl.Expr] = []  # the numbers of each place of each column
    others: list[pl.Expr] = []  # for each column: the list is of another size
    for name, size in sizes.items():
        if size is None:
            cells.append(_entry(layout, name, pl.col(name)))
            others.append(pl.lit(False))
            continue
        lists = layout.lists(name)
        cells += [_entry(layout, name, lists.list.get(k, null_on_oob=True)) for k in range(size)]
        others.append(lists.list.len() != size)
    if not sizes:
        return {}
    # Columns first: in one step with the sums, each of the four would parse a text again.
    scan = layout.scan.select(cell.alias(f"{k}") for k, cell in enumerate([*cells, *others]))
    sums = [number for k in range(len(cells)) for number in _four(f"{k}")]
    wrong = [pl.col(f"{len(cells) + k}").any() for k in range(len(others))]
    row = iter(layout.collect(scan.select(*sums, *wrong)).row(0))
    fours = [
        [tuple(next(row) for _ in range(4)) for _ in range(1 if n is None else n)] for n in sizes.values()
    ]
    columns = {}
    for name, places, another in zip(sizes, fours, row, strict=True):
        # The sum of numbers is not finite where one of them is not.
        sound = all(count == layout.rows and math.isfinite(total) for *_, total, count in places)
        sound = sound and not another and layout.unclear(name) is None
        columns[name] = _Numbers(tuple((least, largest) for least, largest, *_ in places), sound)
    return columns


def _four(name: str) -> list[pl.Expr]:
    """The least number of a column, the largest, their sum, and how many there are."""
    column = pl.col(name)
    sums = {"least": column.min(), "largest": column.max(), "sum": column.sum(), "count": column.count()}
    return [number.alias(f"{what} {name}") for what, number in sums.items()]


def _wrong_numbers(layout: Layout, name: str, size: int | None) -> dict[str, Count]:
    """The rows with another number of values than the first, or with a value that is not a finite number."""
    rule = column_of(name)
    text = f"column {name!r} {rule.problem}"
    if size is None:
        sound = follows(_entry(layout, name, pl.col(name)), rule)
        return layout.counted({text: ~sound & ~layout.gap(name)})
    unclear = layout.unclear(name)
    if unclear is not None:
        return layout.counted({f"column {name!r} has {EITHER}": unclear})
    lists = layout.lists(name)
    another = f"column {name!r} holds another number of values than the first row ({size})"
    wrong = lists.list.eval(~follows(_entry(layout, name, pl.element()), rule)).list.any()
    checks = {another: lists.list.len() != size, text: wrong}
    known = ~layout.gap(name)
    return layout.counted({words: check.fill_null(False) & known for words, check in checks.items()})


def _one_hot(layout: Layout, name: str) -> tuple[ContextPiece, dict[str, Count]]:
    """A piece with a number for each of its texts, and the problem of more than MOST_TEXTS."""
    scan = layout.scan.filter(~layout.gap(name))
    kinds = layout.counts(layout.hash(name), scan).height
    piece = ContextPiece(name, kinds, int(kinds == 1), True)
    if kinds <= MOST_TEXTS:
        return piece, {}
    text = f"column {name!r} has {kinds:,} different texts, and `ope` encodes at most {MOST_TEXTS}"
    return piece, {text: layout.collect(scan.select(pl.len(), pl.col(ROW).min())).row(0)}
