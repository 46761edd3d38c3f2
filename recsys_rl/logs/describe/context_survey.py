"""The survey of the context in a table of decisions: columns context.NAME, which say what the policy knew.

All columns of numbers are scanned together. The rows of a problem are sought only where the sums of a column
show that there is one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from recsys_rl.data.tables.layout import Count, Layout
from recsys_rl.data.tables.pieces import MOST_TEXTS
from recsys_rl.data.tables.schema import column_of, follows, named, value
from recsys_rl.data.tables.values import EITHER, Kind


@dataclass(frozen=True)
class ContextPiece:
    """A piece of the context, as it is seen in a whole log."""

    column: str
    size: int  # numbers that a policy sees: of a text, one for each kind with a code; with gaps one more
    constant: int  # of these, the numbers that are the same in each row
    of_texts: bool = False
    gaps: int = 0  # rows without a value


@dataclass(frozen=True)
class ContextSurvey:
    """The pieces of the context, and the rows for which `recsys-rl ope` refuses them."""

    pieces: tuple[ContextPiece, ...]
    problems: dict[str, Count]


@dataclass(frozen=True)
class _Numbers:
    """A column of numbers, or of lists of them."""

    ends: tuple[tuple[float | None, float | None], ...]  # the least and the largest of each place
    sound: bool  # each row has finite numbers, in lists of one size
    of_lists: bool

    def piece(self, column: str, gaps: int) -> ContextPiece:
        constant = sum(least == largest for least, largest in self.ends)
        return ContextPiece(column, len(self.ends) + (gaps > 0 and not self.of_lists), constant, gaps=gaps)


def survey_context(layout: Layout, filled: bool) -> ContextSurvey:
    """Scan the columns context.NAME, which ``layout`` must have.

    ``filled``: their gaps are no problem unless a column has nothing else, as in people's own tables.
    """
    columns = tuple(named(layout.table.names, "context.").values())
    texts = _of_texts(layout, columns)
    gaps = layout.counted({name: layout.no_entry(name) for name in columns})
    sizes = _sizes(layout, [name for name in columns if name not in texts])
    numbers = _numbers(layout, sizes, {name: count for name, (count, _) in gaps.items()})
    pieces: list[ContextPiece] = []
    problems: dict[str, Count] = {}
    for name in columns:
        count, first = gaps.get(name, (0, 0))
        if count and (not filled or count == layout.rows):
            problems[f"column {name!r} has no value"] = count, first
        if name not in texts and not numbers[name].sound:
            problems |= _wrong_numbers(layout, name, sizes[name])
        pieces.append(_one_hot(layout, name, count) if name in texts else numbers[name].piece(name, count))
    return ContextSurvey(tuple(pieces), problems)


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
        checks.append((known & ~layout.no_entry(name)).any().alias(name))
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
            first = layout.scan.filter(~layout.no_entry(name)).head(1).select(layout.lists(name).list.len())
            sizes[name] = next(iter(layout.collect(first).to_series()), 0)
    return sizes


def _numbers(layout: Layout, sizes: Mapping[str, int | None], gaps: Mapping[str, int]) -> dict[str, _Numbers]:
    """The columns with these ``sizes`` of lists, in one scan. ``gaps``: rows without a value."""
    cells: list[pl.Expr] = []  # the numbers of each place of each column
    others: list[pl.Expr] = []  # for each column: the list is of another size
    for name, size in sizes.items():
        if size is None:
            cells.append(_known(layout, name, _entry(layout, name, pl.col(name))))
            others.append(pl.lit(False))
            continue
        lists = layout.lists(name)
        entries = [_entry(layout, name, lists.list.get(k, null_on_oob=True)) for k in range(size)]
        cells += [_known(layout, name, entry) for entry in entries]
        others.append((lists.list.len() != size) & ~layout.no_entry(name))
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
        known = layout.rows - gaps.get(name, 0)
        sound = all(count == known and math.isfinite(total) for *_, total, count in places)
        sound = sound and not another and layout.unclear(name) is None
        columns[name] = _Numbers(
            tuple((least, largest) for least, largest, *_ in places), sound, sizes[name] is not None
        )
    return columns


def _known(layout: Layout, name: str, numbers: pl.Expr) -> pl.Expr:
    """``numbers`` of a column without its gaps, of which NaN is one."""
    return pl.when(~layout.no_entry(name)).then(numbers)


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
        return layout.counted({text: ~sound & ~layout.no_entry(name)})
    unclear = layout.unclear(name)
    if unclear is not None:
        return layout.counted({f"column {name!r} has {EITHER}": unclear})
    lists = layout.lists(name)
    another = f"column {name!r} holds another number of values than the first row ({size})"
    wrong = lists.list.eval(~follows(_entry(layout, name, pl.element()), rule)).list.any()
    checks = {another: lists.list.len() != size, text: wrong}
    known = ~layout.no_entry(name)
    return layout.counted({words: check.fill_null(False) & known for words, check in checks.items()})


def _one_hot(layout: Layout, name: str, gaps: int) -> ContextPiece:
    """A piece with a number for each of its texts that has a code of its own."""
    kinds = layout.counts(layout.hash(name), layout.scan.filter(~layout.no_entry(name))).height
    return ContextPiece(name, min(kinds, MOST_TEXTS) + (gaps > 0), int(kinds == 1), True, gaps)
