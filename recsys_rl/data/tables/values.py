"""The values of columns as polars expressions: gaps, whole numbers, numbers, truths, lists and hashes.

Each function takes the ``cells`` of a column and its type ``kind``, and gives null where there is no
such value. ``on`` applies a function to a column in memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import polars as pl
from polars.datatypes import DataTypeClass

Kind = pl.DataType | DataTypeClass
"""The type of a column, or of the entries of its lists."""
NO_VALUE = ("", "nan", "null", "\\n")  # without case and spaces; \N is the null of database exports
# Numbers as programs write them. "007" is a name: if it were read as 7, two ids could become one.
NUMBER = r"(?i)^\s*[+-]?(nan|inf(inity)?|(0|[1-9]\d*)(\.\d*)?(e[+-]?\d+)?)\s*$"
INTEGER = r"^(0|-?[1-9]\d{0,17})$"
"""A whole number in its only form, which 64 bits hold: such ids are the same as numbers and as texts."""
LIST = r"[|;,\[]"
"""A text with one of these signs is a list, as texts have no type."""
AROUND, BETWEEN = "[] ", r"\s*[|,;]\s*"
"""Signs around such a list, and what separates its entries."""
COMMA = r"^\s*[+-]?(\d+|[1-9]\d{0,2}(\.\d{3})+),\d+([eE][+-]?\d+)?\s*$"
"""A number with a decimal comma, as 1,5 or 1.000,5 or 1,5e3. It may also be a list of two numbers."""
EITHER = (
    "a number with a decimal comma or a list of two numbers: write a point before the decimals, or | between "
    "the numbers of a list"
)
"""The end of a sentence about such a text."""
QUOTED = r'^"(.*)"$'
"""A text in quotation marks, which is one even if a number stands between them."""
PADDING = -1  # an empty place of a list


def on(column: pl.Series, function: Callable[..., pl.Expr], *more: Any) -> pl.Series:
    """``function`` of the values of a column."""
    values = function(pl.col("x"), column.dtype, *more)
    return column.to_frame("x").with_columns(values.alias("x"))["x"].alias(column.name)


def no_value(cells: pl.Expr, kind: Kind) -> pl.Expr:
    """True for null, NaN, blank text and NO_VALUE."""
    if kind == pl.String:
        return cells.is_null() | cells.str.strip_chars().str.to_lowercase().is_in(NO_VALUE)
    return cells.is_null() | cells.is_nan() if kind.is_float() else cells.is_null()


def no_entry(cells: pl.Expr, kind: Kind) -> pl.Expr:
    """``no_value``, or a list without an entry."""
    if isinstance(kind, pl.List):
        return cells.is_null() | (cells.list.len() == 0)
    gap = no_value(cells, kind)
    return gap | (cells.str.strip_chars(AROUND) == "") if kind == pl.String else gap


def whole_number(cells: pl.Expr, kind: Kind) -> pl.Expr:
    """Int64; null where a value has a fraction or is too large to be exact."""
    if kind == pl.String:  # 12.0, as programs write whole numbers of a column with gaps
        text = cells.str.strip_chars()
        return pl.coalesce(text.cast(pl.Int64, strict=False), _exact(text.cast(pl.Float64, strict=False)))
    if kind.is_integer():
        return cells.cast(pl.Int64, strict=False)
    return _exact(cells) if kind.is_float() else _nothing(pl.Int64())


def _exact(cells: pl.Expr) -> pl.Expr:
    return (
        pl.when((cells == cells.floor()) & (cells.abs() < 2.0**53)).then(cells).cast(pl.Int64, strict=False)
    )


def number(cells: pl.Expr, kind: Kind) -> pl.Expr:
    """Float64; `true` is 1 and `false` 0."""
    if kind.is_nested():
        return _nothing(pl.Float64())
    return (_digits(cells) if kind == pl.String else cells).cast(pl.Float64, strict=False)


def truth(cells: pl.Expr, kind: Kind) -> pl.Expr:
    """Boolean of true, false, 1 and 0, whatever their case."""
    if kind == pl.Boolean or kind.is_nested():
        return cells if kind == pl.Boolean else _nothing(pl.Boolean())
    values = {"0": False, "1": True}
    return _digits(cells.cast(pl.String)).replace_strict(values, default=None, return_dtype=pl.Boolean)


def measure(cells: pl.Expr, kind: Kind, commas: bool = False) -> pl.Expr:
    """Float32, the finite numbers of a column of ratings or weights. ``commas``: see ``decimal_commas``."""
    if not (kind in (pl.String, pl.Boolean) or kind.is_numeric()):
        return _nothing(pl.Float32())
    if kind == pl.String:
        cells = _digits(cells).str.replace(",", ".", literal=True) if commas else _digits(cells)
    cells = cells.cast(pl.Float32, strict=False)
    return pl.when(cells.is_finite()).then(cells)


def decimal_commas(cells: pl.Expr) -> pl.Expr:
    """One truth: the texts of a column have decimal commas, and 1,234 could not be 1234."""
    thousands = cells.str.contains(r",\d{3}\s*$")
    clear = (cells.str.contains(r"^\s*[+-]?\d+,\d+\s*$") & ~thousands).any()
    return clear & ~cells.str.contains(".", literal=True).any()


def commas_or_lists(cells: pl.Expr) -> pl.Expr:
    """One truth: the texts of a column with a sign of LIST may all be numbers with a decimal comma."""
    signs = cells.str.contains(LIST)
    return signs.any() & (cells.str.contains(COMMA) | ~signs).all()


def text(cells: pl.Expr, kind: Kind) -> pl.Expr:
    """The values as texts without spaces at the ends, the same for a number of any type: 7, 7.0 and "7"."""
    texts = cells.cast(pl.String, strict=False).str.strip_chars()
    if not kind.is_float():
        return texts
    integer = cells.cast(pl.Int64, strict=False)
    return pl.coalesce(pl.when(integer == cells).then(integer).cast(pl.String), texts)


def id_text(cells: pl.Expr, kind: Kind) -> pl.Expr:
    """``text``, and 1 of the text 1.0, as programs write whole numbers of a column with gaps."""
    return text(cells, kind).str.replace(r"^([+-]?\d+)\.0*$", "$1")


def hashed(cells: pl.Expr, kind: Kind) -> pl.Expr:
    """UInt64, the same for equal values, which counts them without holding them.

    Two of n values share a hash with a probability of about n^2 / 2^65 (1e-5 for 20 million).
    """
    return (cells.str.strip_chars() if kind == pl.String else cells).hash(seed=7)


def is_list(kind: Kind) -> bool:
    return isinstance(kind, pl.List | pl.Array)


def as_lists(cells: pl.Expr, kind: Kind) -> pl.Expr:
    """Lists of lists, of texts that separate entries by | , or ; (maybe in [ ]), and of single values."""
    if isinstance(kind, pl.Array):
        return cells.arr.to_list()
    if kind == pl.String:
        return cells.str.strip_chars(AROUND).str.replace_all(BETWEEN, "|").str.split("|")
    return cells if isinstance(kind, pl.List) else pl.concat_list(cells)


def lists_of(column: pl.Series) -> pl.Series | None:
    """The column as lists; None if it holds single values."""
    if not is_list(column.dtype) and (column.dtype != pl.String or not column.str.contains(LIST).any()):
        return None
    return on(column, as_lists)


def entries(cells: pl.Expr, kind: Kind) -> pl.Expr:
    """Lists of ids without padding, of lists of this type."""
    one = pl.element()
    if kind == pl.List(pl.String):
        return cells.list.eval(one.str.strip_chars().filter(one.str.strip_chars() != str(PADDING)))
    return cells.list.eval(one.filter(one != PADDING))


def as_texts(cells: pl.Expr, kind: Kind) -> pl.Expr:
    """Lists of the texts of ids, of lists of this type."""
    inner = kind.inner if isinstance(kind, pl.List) else pl.String()
    return cells.list.eval(id_text(pl.element(), inner))


def _digits(cells: pl.Expr) -> pl.Expr:
    """Texts with 1 in place of `true` and 0 in place of `false`, whatever their case."""
    words = cells.str.strip_chars().str.to_lowercase()
    return (
        pl.when(words == "true").then(pl.lit("1")).when(words == "false").then(pl.lit("0")).otherwise(cells)
    )


def _nothing(kind: Kind) -> pl.Expr:
    return pl.lit(None, dtype=kind)


def is_gap(text: str) -> bool:
    """``no_value`` of one text."""
    return text.strip().lower() in NO_VALUE


def label(text: str) -> str:
    """``labels`` of one text."""
    text = text.strip()
    return text[1:-1] if re.match(QUOTED, text) else text


def labels(cells: pl.Expr, kind: Kind) -> pl.Expr:
    """The texts of a piece of the context, without spaces at the ends; in quotation marks, what they hold."""
    return cells.cast(pl.String).str.strip_chars().str.replace(QUOTED, "$1")


def in_table(text: str) -> str:
    """The text as a table holds it: in quotation marks if it would be a gap there, or an entry a number."""
    entries = re.split(BETWEEN, text.strip(AROUND))  # as of ``as_lists``
    return f'"{text.strip()}"' if entries == [""] or any(map(_is_number, entries)) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text.strip().lower() in ("true", "false")  # which tables take for 1 and 0
    return True


def plain_text(cells: pl.Expr, kind: Kind) -> pl.Expr:
    """The values as texts that are the same in each format of a file; times as nothing, as formats differ."""
    if kind.is_temporal():
        return pl.lit("", dtype=pl.String)
    one = pl.element()
    inner = kind.inner if isinstance(kind, pl.List | pl.Array) else kind
    entry = pl.coalesce(number(one, inner).cast(pl.String), text(one, inner), pl.lit(""))
    return as_lists(cells, kind).list.eval(entry).list.join("|").fill_null("")


def are_numbers(column: pl.Series) -> pl.Series:
    """True for each value of a column of texts that is a number, or a list of numbers in one of its forms."""
    lists = on(column, as_lists)
    return lists.list.eval(number(pl.element(), pl.String()).is_not_null()).list.all()
