"""The survey of the context in a table of decisions: columns context.NAME, which say what the policy knew.

Each column is read by the reader of such tables (pieces.py), a part at a time. Only where it refuses the
column are the rows of the problem sought.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from recsys_rl.data.tables.cells import Cells
from recsys_rl.data.tables.findings import TableError
from recsys_rl.data.tables.layout import Count, Layout
from recsys_rl.data.tables.pieces import (
    MOST_TEXTS,
    SeenPiece,
    TextRule,
    context_columns,
    merged,
    seen_pieces,
)
from recsys_rl.data.tables.schema import column_of, follows, value
from recsys_rl.data.tables.values import EITHER, Kind
from recsys_rl.errors import UserError

PART = 262_144
"""Rows of a column that are read at a time."""


@dataclass(frozen=True)
class ContextPiece:
    """A piece of the context, as it is seen in a whole log."""

    column: str
    size: int  # numbers that a policy sees: of a text, one for each kind with a code; with gaps one more
    constant: int  # of these, the numbers that are the same in each row
    of_texts: bool = False
    gaps: int = 0  # rows without a value
    odd: str = ""  # texts that look like numbers, in words


@dataclass(frozen=True)
class ContextSurvey:
    """The pieces of the context, and the rows for which `recsys-rl ope` refuses them."""

    pieces: tuple[ContextPiece, ...]
    problems: dict[str, Count]


def survey_context(layout: Layout, filled: bool, texts: TextRule) -> ContextSurvey:
    """Read the columns context.NAME, which ``layout`` must have.

    ``filled``: their gaps are no problem unless a column has nothing else, as in people's own tables.
    """
    pieces: list[ContextPiece] = []
    problems: dict[str, Count] = {}
    for name in context_columns(layout.table.names, layout.roles).values():
        try:
            (seen,) = merged((str(layout.table.path), part) for part in _parts(layout, name, texts)).values()
        except UserError as error:
            problems |= _wrong(layout, name, error)
            seen = SeenPiece("", gaps=layout.counted({name: layout.no_entry(name)}).get(name, (0, 0))[0])
        if seen.gaps and (not filled or seen.gaps == layout.rows):
            problems |= layout.counted({f"column {name!r} has no value": layout.no_entry(name)})
        pieces.append(_piece(name, seen))
    return ContextSurvey(tuple(pieces), problems)


def _parts(layout: Layout, name: str, texts: TextRule) -> Iterator[dict[str, SeenPiece]]:
    """The values of a column, a part of its rows at a time. Raises UserError for a wrong one."""
    scan = layout.table.texts([name])
    for start in range(0, layout.rows, PART):
        frame = layout.collect(scan.slice(start, PART))
        rows = pl.int_range(start + 1, start + frame.height + 1, eager=True)
        yield seen_pieces(Cells("", frame, rows), fill=True, texts=texts)


def _piece(column: str, seen: SeenPiece) -> ContextPiece:
    if seen.kind == "text":
        kinds = len(seen.texts)
        size = min(kinds, MOST_TEXTS) + (seen.gaps > 0)
        return ContextPiece(column, size, int(kinds == 1), True, seen.gaps, seen.odd)
    if seen.kind == "":
        return ContextPiece(column, 1, 0, gaps=seen.gaps)
    size, constant = len(seen.low), int((seen.low == seen.high).sum())
    more = seen.gaps > 0 and seen.kind == "number"
    return ContextPiece(column, size + more, constant, gaps=seen.gaps)


def _wrong(layout: Layout, name: str, error: UserError) -> dict[str, Count]:
    """The rows of a column that the reader refuses; by its ``error`` alone where no rule is broken."""
    rule, known = column_of(name), ~layout.no_entry(name)
    text = f"column {name!r} {rule.problem}"
    unclear = layout.unclear(name)
    if unclear is not None:
        return layout.counted({f"column {name!r} has {EITHER}": unclear})
    if not layout.is_list(name):
        found = layout.counted({text: ~follows(_number(layout, name, pl.col(name)), rule) & known})
    else:
        lists = layout.lists(name)
        sizes = layout.collect(layout.scan.filter(known).head(1).select(lists.list.len())).to_series()
        another = f"column {name!r} holds another number of values than the first row ({sizes[0]})"
        wrong = lists.list.eval(~follows(_number(layout, name, pl.element()), rule)).list.any()
        checks = {another: lists.list.len() != sizes[0], text: wrong}
        found = layout.counted({words: check.fill_null(False) & known for words, check in checks.items()})
    return found or {str(error).rstrip("."): (1, _row(error))}


def _row(error: UserError) -> int:
    """The row that an error of a table names; the first one without a row."""
    values = error.findings[0].values if isinstance(error, TableError) else {}
    return int(values.get("row", 1))


def _number(layout: Layout, name: str, cells: pl.Expr) -> pl.Expr:
    """The numbers of the ``cells`` of a column, or of entries of its lists; null where there is none."""
    kind: Kind = layout.types[name]
    return value(cells, kind.inner if isinstance(kind, pl.List) else kind, column_of(name))
