"""The named pieces of the context of a team's own log: their kinds, ranges and encodings.

A column ``context.NAME`` is a piece: a number, a list of numbers, or a text. Observations hold a number as it
is if its values are of the order of one, else minus its mean, over its standard deviation; and a text as a
code of zeros and a one. A text that the log never had gets the last code, "other". A column may have gaps: a
missing number is the mean, and an indicator stands beside each number; a missing text has a code of its own,
after "other"; a missing list is zeros. The pieces lie in the settings of the run, so that a newer log, a file
of contexts and a request are encoded alike.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl
import torch
from torch import Tensor

from recsys_rl.data.tables.cells import Cells, tensor_of
from recsys_rl.data.tables.read import TableFile
from recsys_rl.data.tables.schema import named
from recsys_rl.data.tables.values import are_numbers, commas_or_lists, is_gap, label, lists_of, number, on
from recsys_rl.errors import listed, one_line, short
from recsys_rl.types import UserError, is_name

CONTEXT = "context."
MOST_TEXTS = 50
"""Texts of a piece with a code of their own, the most frequent ones."""
LARGE, SMALL = 10.0, 0.05
"""Numbers are kept as they are if none is larger than LARGE and their root mean square is at least SMALL."""
LARGEST = 1e30
"""Largest number of a log: float32 still holds it, and float64 the sum of the squares."""
MOST_SCALES = 1e6
"""Largest distance of a number from ``shift``, in units of ``scale``."""
_KINDS = ("number", "list", "text")


@dataclass(frozen=True)
class Piece:
    """A piece of the context with its encoding."""

    name: str  # without "context."
    kind: Literal["number", "list", "text"]
    low: tuple[float, ...] = ()  # the smallest value of each number in the log; () for texts
    high: tuple[float, ...] = ()  # the largest value of each
    shift: tuple[float, ...] = ()  # an observation holds (value - shift) / scale
    scale: tuple[float, ...] = ()
    values: tuple[str, ...] = ()  # texts with a code of their own, in alphabetical order
    gaps: bool = False  # rows of the log have no value, and requests may have none
    mean: tuple[float, ...] = ()  # of the known values of a number with gaps; () for others
    median: tuple[float, ...] = field(default=(), compare=False)  # of each number, about; () if unknown

    @property
    def size(self) -> int:
        """Numbers in an observation."""
        if self.kind == "list":
            return len(self.low)
        return (len(self.values) if self.kind == "text" else 0) + 1 + self.gaps

    @property
    def rule(self) -> str:
        """The values of the log, in words."""
        more = ", or none" if self.gaps else ""
        if self.kind == "text":
            return f"a text, as {listed(self.values)}{more}"
        low, high = min(self.low), max(self.high)
        of = "a number" if self.kind == "number" else f"a list of {self.size} numbers"
        return f"{of}, in the log from {low:g} to {high:g}{more}"

    @property
    def missing(self) -> tuple[float, ...]:
        """(size,) the numbers of a row without a value: the mean and a 1, a code, or what becomes zeros."""
        if self.kind == "text":
            return (*[0.0] * (len(self.values) + 1), 1.0)
        return (*self.mean, 1.0) if self.kind == "number" else self.shift

    @property
    def scaling(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(size,) each: ``shift`` and ``scale``, and 0 and 1 for codes and indicators."""
        rest = self.size - len(self.shift)
        return (*self.shift, *[0.0] * rest), (*self.scale, *[1.0] * rest)

    def tensor(self, cells: Cells) -> Tensor:
        """(E, size) float32 of a table's column. Raises UserError for the first row with a wrong value."""
        column = f"{CONTEXT}{self.name}"
        if not self.gaps:
            return self._encoded(cells, column)
        some, there = cells.known(column)
        values = self.scaled(torch.tensor([self.missing], dtype=torch.float64)).repeat(len(there), 1)
        if there.any():
            values[torch.from_numpy(there.to_numpy())] = self._encoded(some, column)
        return values

    def _encoded(self, cells: Cells, column: str) -> Tensor:
        """``tensor`` of a column without gaps."""
        if self.kind == "text":
            places = {text: index for index, text in enumerate(self.values)}
            code = cells.labels(column).replace_strict(places, default=len(places), return_dtype=pl.Int64)
            return torch.nn.functional.one_hot(tensor_of(code), self.size).float()
        lists = self.kind == "list"
        values = cells.lists(column, self.size) if lists else cells.values(column).unsqueeze(1)
        values = values.double()
        low, high = torch.tensor(self.bounds, dtype=torch.float64).unbind(1)
        _check_range(cells, column, values, low, high, self.rule)
        return self.scaled(torch.nn.functional.pad(values, (0, self.size - len(self.low))))

    def unknown(self, cells: Cells) -> int:
        """The rows of a table whose text has no code of its own."""
        if self.kind != "text":
            return 0
        column = f"{CONTEXT}{self.name}"
        some = cells.known(column)[0] if self.gaps else cells
        return int((~some.labels(column).is_in(list(self.values))).sum())

    @property
    def bounds(self) -> list[tuple[float, float]]:
        """The lowest and the highest value of each number; a network can't bear any value."""
        width = [MOST_SCALES * scale for scale in self.scale]
        return [(x - most, x + most) for x, most in zip(self.shift, width, strict=True)]

    @property
    def example(self) -> float | str | list[float]:
        """A value that requests may have: the median of the log, or the first text."""
        if self.kind == "text":
            return self.values[0]
        ends = zip(self.low, self.high, strict=True)
        middle = [*self.median] or [(low + high) / 2 for low, high in ends]  # of an earlier version
        return middle if self.kind == "list" else middle[0]

    def scaled(self, values: Tensor) -> Tensor:
        """(N, size) float32 of the numbers (N, size) float64 of N rows."""
        shift, scale = torch.tensor(self.scaling, dtype=torch.float64)
        scaled: Tensor = (values - shift) / scale
        return scaled.float()


def tensors(pieces: Sequence[Piece], cells: Cells) -> dict[str, Tensor]:
    """The tensors (E, size) of the pieces in a table's columns ``context.NAME``, by name.

    Raises UserError for a missing column, and for the first row with a wrong value.
    """
    lacking = next((piece for piece in pieces if f"{CONTEXT}{piece.name}" not in cells), None)
    if lacking is not None:
        raise UserError(
            f"{cells.name} has no column {CONTEXT}{lacking.name}, which the policy needs: {lacking.rule}."
        )
    return {piece.name: piece.tensor(cells) for piece in pieces}


def differ_in_gaps(mine: Sequence[Piece], theirs: Sequence[Piece]) -> str | None:
    """The first piece in which one of two policies takes gaps, and the other does not; None without one."""
    gaps = {piece.name: piece.gaps for piece in theirs}
    return next((piece.name for piece in mine if gaps.get(piece.name, piece.gaps) != piece.gaps), None)


@dataclass
class SeenPiece:
    """The values of a piece in the files of a log that were read so far."""

    kind: Literal["number", "list", "text", ""]  # "": no row has a value
    count: int = 0
    gaps: int = 0  # rows without a value
    mean: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))  # (n,)
    squares: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))  # around the mean
    low: Tensor = field(default_factory=lambda: torch.full((1,), math.inf, dtype=torch.float64))
    high: Tensor = field(default_factory=lambda: torch.full((1,), -math.inf, dtype=torch.float64))
    median: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))  # of files their mean
    texts: Counter[str] = field(default_factory=Counter)
    like_numbers: tuple[int, str] = (0, "")  # texts that look like numbers, and the first of them

    @property
    def constant(self) -> bool:
        """True if all rows have the same value."""
        return len(self.texts) == 1 if self.kind == "text" else bool((self.low == self.high).all())

    @property
    def odd(self) -> str:
        """The texts that look like numbers, in words; "" without any."""
        number, first = self.like_numbers
        are = "looks like a number" if number == 1 else "look like numbers"
        return f"{number:,} of {self.count:,} {are}, as {short(first)}" if number else ""

    def piece(self, name: str) -> tuple[Piece, str]:
        """The piece with its encoding, and a note about merged texts; "" without one.

        Raises UserError for a piece without values.
        """
        if self.kind == "" or not self.count:
            raise UserError(
                f"The column {CONTEXT}{one_line(name)} has no value in the rows that are learned from: leave "
                "it out, or give it a name that does not begin with context."
            )
        gaps = self.gaps > 0
        if self.kind == "text":
            # Of equally frequent texts the first in the alphabet: the order of a hash decides nothing.
            common = sorted(self.texts, key=lambda text: (-self.texts[text], text))[:MOST_TEXTS]
            rest = len(self.texts) - len(common)
            notes = [f"context.{name} has {len(self.texts):,} texts: the {rest:,} rarest are other"] * bool(
                rest
            )
            notes += [f"context.{name} is a column of texts, of which {self.odd}"] * bool(self.odd)
            return Piece(name, "text", values=tuple(sorted(common)), gaps=gaps), "; ".join(notes)
        mean, variance = self.mean, self.squares / self.count
        deviation = variance.sqrt()
        largest = torch.maximum(self.low.abs(), self.high.abs())
        rms = math.sqrt(float((variance + mean.square()).mean()))
        as_it_is = float(largest.max()) <= LARGE and rms >= SMALL
        shift = torch.zeros_like(mean) if as_it_is else mean
        varies = deviation > 1e-12 * largest  # else no more than the rounding of the mean
        spread = torch.ones_like(mean) if as_it_is else deviation.where(varies, 1.0)
        low, high, center, scale = (tuple(row.tolist()) for row in (self.low, self.high, shift, spread))
        filler = tuple(mean.tolist()) if gaps and self.kind == "number" else ()
        median = tuple(self.median.tolist())
        return Piece(name, self.kind, low, high, center, scale, gaps=gaps, mean=filler, median=median), ""

    def add(self, other: SeenPiece) -> None:
        """Add the values of another file, by the formula of Chan et al. (1983) for the squares."""
        self.gaps += other.gaps
        apart, share = other.mean - self.mean, other.count / max(self.count + other.count, 1)
        self.squares = self.squares + other.squares + apart.square() * self.count * share
        self.mean = self.mean + apart * share
        self.median = self.median + (other.median - self.median) * share
        self.count += other.count
        self.low, self.high = torch.minimum(self.low, other.low), torch.maximum(self.high, other.high)
        self.texts.update(other.texts)
        number, first = self.like_numbers
        self.like_numbers = number + other.like_numbers[0], first or other.like_numbers[1]


def context_columns(names: Sequence[str], roles: Mapping[str, str]) -> dict[str, str]:
    """The columns context.NAME among ``names``, by NAME; a column with a role, as that of users, is none."""
    return {name: column for name, column in named(names, CONTEXT).items() if column not in roles.values()}


@dataclass(frozen=True)
class TextRule:
    """Tells the columns of a file whose values are texts, whatever they look like."""

    named: frozenset[str] = frozenset()  # by the user, with "context."
    typed: Callable[[str], bool] = lambda column: False  # strings of the column are texts by the file's types

    @classmethod
    def of(cls, table: TableFile, given: Mapping[str, str | None]) -> TextRule:
        """That of a table with --text-column as in ``given``. Raises UserError for a column it lacks."""
        names = [
            f"{CONTEXT}{name.strip().removeprefix(CONTEXT)}" for name in (given.get("text") or "").split(",")
        ]
        named = frozenset(names) - {CONTEXT}
        if lacking := sorted(named - {*table.names}):
            raise UserError(
                f"{one_line(table.path)} has no column {listed(lacking)} for --text-column: name columns of "
                "the context, as city for context.city."
            )
        return cls(named, table.has_texts)

    def holds(self, column: pl.Series) -> bool:
        return column.name in self.named or (column.dtype == pl.String and self.typed(column.name))


def seen_pieces(
    whole: Cells,
    fill: bool = False,
    learned: Tensor | None = None,
    roles: Mapping[str, str] | None = None,
    texts: TextRule | None = None,
) -> dict[str, SeenPiece]:
    """The pieces of a table by name, with the values of the rows ``learned`` (E,) bool alone; None: of all.

    ``fill``: columns may have gaps; ``roles``: the columns that have a role and are not pieces. A column of
    strings is one of texts by the rule ``texts``, or if fewer than half of its values are numbers or lists of
    numbers. Raises UserError for the first wrong value of any row, with its row.
    """
    pieces: dict[str, SeenPiece] = {}
    everything = torch.ones(whole.frame.height, dtype=torch.bool) if learned is None else learned
    for name, column in context_columns(whole.frame.columns, roles or {}).items():
        _check_name(whole.name, name)
        cells, mine, gaps = whole, everything, 0
        if fill:
            cells, there = whole.known(column)
            mine, gaps = everything[torch.from_numpy(there.to_numpy())], len(there) - cells.frame.height
        if not cells.frame.height:
            pieces[name] = SeenPiece("", gaps=gaps)
            continue
        series = cells.filled(column)
        alike = _like_numbers(series, texts or TextRule())
        if alike is not None:
            known = pl.Series(mine.numpy())
            labels, alike = cells.labels(column).filter(known), alike.filter(known)
            odd = int(alike.sum()), labels.filter(alike).head(1).to_list()
            counted = Counter(dict(labels.value_counts().iter_rows()))
            pieces[name] = SeenPiece(
                "text", len(labels), gaps, texts=counted, like_numbers=(odd[0], odd[1][0] if odd[1] else "")
            )
            continue
        lists = lists_of(series) if series.dtype.is_nested() or series.dtype == pl.String else None
        if lists is not None and series.dtype == pl.String:
            _refuse_lists_beside_numbers(cells, column, series)
        values = cells.values(column).unsqueeze(1) if lists is None else cells.lists(column)
        numbers = values.double()
        if not numbers.shape[1]:
            raise UserError(
                f"{cells.name}: column {column!r} has empty lists: give numbers, or leave it out."
            )
        most = torch.tensor(LARGEST, dtype=torch.float64)
        _check_range(cells, column, numbers, -most, most, f"numbers from {-LARGEST:g} to {LARGEST:g}")
        kind: Literal["number", "list"] = "number" if lists is None else "list"
        none = torch.zeros(numbers.shape[1], dtype=torch.float64)
        pieces[name] = SeenPiece(kind, 0, gaps, none, none, none + math.inf, none - math.inf, none)
        numbers = numbers[mine]
        if len(numbers):
            mean = numbers.mean(0)
            # The squares of large numbers would lose a small spread.
            squares = (numbers - mean).square().sum(0)
            low, high = numbers.amin(0), numbers.amax(0)
            median = numbers.median(0).values
            pieces[name] = SeenPiece(kind, len(numbers), gaps, mean, squares, low, high, median)
    return pieces


def _like_numbers(series: pl.Series, texts: TextRule) -> pl.Series | None:
    """(E,) bool: the texts of a column that look like numbers; None for a column of numbers, or of lists."""
    if series.dtype.is_nested():
        inner = series.explode()
        none = inner.dtype == pl.String and on(inner, number).is_null().all()
        return pl.repeat(False, len(series), eager=True) if none else None
    if series.dtype != pl.String:
        return pl.repeat(False, len(series), eager=True) if texts.holds(series) else None
    alike = are_numbers(series)
    if texts.holds(series):
        return pl.repeat(False, len(series), eager=True)  # the user, or the type, has said so
    return alike if 2 * int(alike.sum()) < len(series) else None


def _refuse_lists_beside_numbers(cells: Cells, column: str, series: pl.Series) -> None:
    """Raise UserError for the first value that is not a number, in a column where most are single numbers."""
    single = on(series, number).is_not_null()
    if (
        2 * int(single.sum()) > len(series)
        and not series.to_frame().select(commas_or_lists(pl.first())).item()
    ):
        mend = "mend it, or give --text-column {name}"
        sentence = "{column} is {value} in {row}, and most rows hold one number: " + mend
        name, value = column.removeprefix(CONTEXT), lambda at: short(series[at])
        cells.refuse(tensor_of(~single), sentence, column=column, value=value, name=name)


def _check_range(cells: Cells, column: str, values: Tensor, low: Tensor, high: Tensor, rule: str) -> None:
    """Raise UserError for the first row of ``values`` (E, size) with a number outside of the range."""
    outside = (values < low) | (values > high)
    cells.refuse(
        outside, "{column} is {value:g} in {row}: give {rule}", column=column, value=values, rule=rule
    )


def merged(files: Iterable[tuple[str, Mapping[str, SeenPiece]]]) -> dict[str, SeenPiece]:
    """The pieces of a log of several files, by their names. Raises UserError if two have other pieces."""
    sums: dict[str, SeenPiece] = {}
    first = ""
    for file, pieces in files:
        if not first:
            first = file
            sums = {name: dataclasses.replace(x, texts=Counter(x.texts)) for name, x in pieces.items()}
            continue
        for name in dict.fromkeys([*sums, *pieces]):
            one, two = sums.get(name), pieces.get(name)
            if one and two and "" in (one.kind, two.kind):  # the other file tells the kind
                of = two if one.kind == "" else one
                sums[name] = dataclasses.replace(of, gaps=one.gaps + two.gaps, texts=Counter(of.texts))
                continue
            if one is None or two is None or one.kind != two.kind or len(one.low) != len(two.low):
                raise UserError(
                    f"{file} and {first} have different columns {CONTEXT}{one_line(name)}: "
                    f"{_told(two)}, and {_told(one)}; give logs with the same context."
                )
            one.add(two)
    return sums


def _told(piece: SeenPiece | None) -> str:
    if piece is None:
        return "none"
    return f"a list of {len(piece.low)} numbers" if piece.kind == "list" else f"a {piece.kind}"


def _check_name(file: str, name: str) -> None:
    """Raise UserError for a name that an observation can't have."""
    if not is_name(name):
        raise UserError(
            f"{file}: {CONTEXT}{short(name)} is not a name of a piece of the context: give letters, digits "
            "and signs other than [ and ]."
        )


def pieces_text(pieces: Sequence[Piece]) -> str:
    """The pieces as a text of JSON, for the settings of a run."""
    return json.dumps([dataclasses.asdict(piece) for piece in pieces])


def read_pieces(text: str) -> tuple[Piece, ...]:
    """The inverse of ``pieces_text``. Raises UserError for another text."""
    try:
        pieces = tuple(_piece(**entry) for entry in json.loads(text))
        names = [piece.name for piece in pieces]
        if len(set(names)) < len(names):
            raise ValueError("a name twice")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"These pieces of the context can't be read ({error}): train again.") from error
    return pieces


def pieces_of_file(path: str | Path, sections: Mapping[str, Any]) -> tuple[Piece, ...]:
    """The pieces that a TOML file describes, a section each, with ``kind``, ``values``, ``low`` and ``high``.

    ``sections``: the file as a mapping. A list also has its ``size``, and texts have values alone. Any may
    have ``missing = true``: then requests may lack it. Raises UserError for a wrong section.
    """
    pieces = []
    for name, section in sections.items():
        _check_name(one_line(path), name)
        try:
            entry = dict(section)
            kind, size = entry.pop("kind"), entry.pop("size", 1)
            values = _texts(entry.pop("values", []))
            low, high = (float(entry.pop(name, default)) for name, default in (("low", -1), ("high", 1)))
            gaps = entry.pop("missing", False)
            entry |= {} if type(gaps) is bool else {"missing": gaps}
            if entry or type(size) is not int or not 0 < size < 10**6 or (kind == "text") != bool(values):
                raise ValueError(f"{next(iter(entry), 'size or values')}")
            if not -LARGEST <= low < high <= LARGEST:
                raise ValueError(f"low {low:g} and high {high:g}")
            seen = SeenPiece(kind, 1, gaps)
            if kind == "text":
                seen.texts.update(values)
            else:
                middle, half = (low + high) / 2, (high - low) / 2
                own = torch.ones(size, dtype=torch.float64)
                ends = middle * own, half**2 / 3 * own, low * own, high * own, middle * own
                seen = SeenPiece(kind, 1, gaps, *ends)
            piece, _ = seen.piece(name)
            pieces.append(_piece(**dataclasses.asdict(piece)))
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise UserError(
                f"{one_line(path)}: [{short(name)}] is not a piece of the context ({short(str(error))}): "
                'give kind = "number" with low and high, "list" with size, or "text" with values.'
            ) from error
    return tuple(pieces)


def _texts(values: object) -> list[str]:
    """The texts of a section. Raises ValueError for one that a log of them would give in another way."""
    if not isinstance(values, list):
        raise ValueError("values is not a list")
    for text in values:
        if not isinstance(text, str) or text != label(text) or is_gap(text):
            raise ValueError(f"the value {short(text)}")
    return values


def _piece(name: str, kind: Any, **parts: Any) -> Piece:
    """A piece of primitives. Raises TypeError or ValueError for wrong ones."""
    numbers = {name: tuple(map(float, parts.pop(name))) for name in ("low", "high", "shift", "scale")}
    values, gaps, mean = tuple(parts.pop("values")), parts.pop("gaps", False), parts.pop("mean", ())
    median = tuple(map(float, parts.pop("median", ())))  # of an earlier version: none
    lengths = {len(column) for column in numbers.values()}
    mean = tuple(map(float, mean))
    sound = (
        kind in _KINDS
        and not parts
        and all(math.isfinite(number) for column in numbers.values() for number in column)
        and all(number > 0 for number in numbers["scale"])
        and all(type(text) is str for text in values)
        and list(values) == sorted(set(values))
        and (lengths == {0} and bool(values) if kind == "text" else len(lengths) == 1 and not values)
        and (kind != "number" or lengths == {1})
        and type(gaps) is bool
        and len(mean) == (gaps and kind == "number")
        and all(map(math.isfinite, (*mean, *median)))
        and len(median) in (0, len(numbers["low"]))
    )
    if not sound or (lengths == {0} and kind != "text"):
        raise ValueError(f"the piece {short(name)}")
    _check_name("the settings", name)
    return Piece(name, kind, **numbers, values=values, gaps=gaps, mean=mean, median=median)
