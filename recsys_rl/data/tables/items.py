"""Facts about the items of a log: a file of titles, genres, attributes, vectors, and a catalogue of it."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from recsys_rl.data import timeline
from recsys_rl.data.tables.cells import Cells
from recsys_rl.data.tables.item_encoding import EMBEDDING, GENRES, NOTHING, YEAR, StockItem, fitted
from recsys_rl.data.tables.read import TableFile, open_table
from recsys_rl.data.tables.schema import COLUMNS, ITEMS, common_names, find_columns, plain_name
from recsys_rl.data.tables.times import format_in, seconds
from recsys_rl.data.tables.values import label, no_value, on, whole_number
from recsys_rl.data.timeline import ALWAYS, NEVER, STOCK, TIMES, Clock, ItemTimeline
from recsys_rl.errors import listed, one_line, short
from recsys_rl.types import Catalogue, ItemFeature, UserError

MOST_GENRES = 100  # the most frequent are kept
NAMED_CLASSES = ("kind", "skill")  # columns whose texts a platform reads
ALWAYS_CLASSES = {"creator"}  # numbers in these columns are names, too
FEW_TEXTS, MOST_DISTINCT = 20, 0.5
"""A column of more than FEW_TEXTS different texts, which are more than this share of its values, is left out:
links, descriptions and codes are not attributes that items share."""

LARGEST = 1e19
"""Numbers beyond it are refused: in 32 bits their squares overflow. Whole numbers of 64 bits are below."""
MOMENTS = ("\0since", "\0until")
_HEADLESS = ("item", "title", "genres")
_YEAR, _IN_TITLE = r"\b(1[89]\d\d|20\d\d)\b", r"\((\d{4})\)"


@dataclass(frozen=True)
class ItemFacts:
    """Facts about items by their ids; ids without a fact are absent."""

    ids: Sequence[Any] = ()  # each once
    titles: Mapping[Any, str] = field(default_factory=dict)
    genres: Mapping[Any, Sequence[str]] = field(default_factory=dict)
    genres_column: str = "genres"  # its name in the file
    years: Mapping[Any, float] = field(default_factory=dict)
    attributes: Mapping[str, Mapping[Any, Any]] = field(default_factory=dict)  # by column, then id
    embeddings: Mapping[Any, Tensor] = field(default_factory=dict)  # (D,) float32 each; {} or of every id
    # With columns of moments (data/timeline.py) an id may have several rows. The last one is known by the id,
    # and the others by a key, ``former``, in the order of the file.
    clock: Clock = ""
    periods: Mapping[Any, tuple[int, int]] = field(default_factory=dict)  # by id or key
    former: Mapping[Any, Any] = field(default_factory=dict)  # the id of each key
    columns: Collection[str] = ()  # of the file, also those without a value, by the names of attributes
    repeats: bool = False  # an id stands in several rows, the first of which is kept
    note: str = ""

    def timeline(self, ids: Sequence[Any]) -> ItemTimeline:
        """The periods of these ids; one of which the file says nothing could be shown at any time."""
        periods: dict[Any, list[tuple[int, int]]] = {id_: [] for id_ in ids}
        for key, period in self.periods.items():
            periods.get(self.former.get(key, key), []).append(period)
        rows = [(id_, *ends) for id_, own in periods.items() for ends in own or [(ALWAYS, NEVER)]]
        ends = torch.tensor([row[1:] for row in rows], dtype=torch.int64).view(-1, 2)
        return ItemTimeline(tuple(row[0] for row in rows), ends[:, 0], ends[:, 1], self.clock)

    def then(self, later: ItemFacts) -> ItemFacts:
        """The facts of both; where ``later`` has a column, it has the word on the items that it knows.

        Raises UserError for vectors of two lengths, and where both tell when items could be shown.
        """
        if self.clock and later.clock:
            raise UserError("both files tell when an item could be shown: leave these columns out of one")
        sizes = {len(next(iter(of.embeddings.values()))) for of in (self, later) if of.embeddings}
        if len(sizes) > 1:
            raise UserError(
                f"embeddings of {min(sizes)} and {max(sizes)} numbers: give vectors of one length"
            )
        known = {*later.ids}

        def both(old: Mapping[Any, Any], new: Mapping[Any, Any], told: bool) -> dict[Any, Any]:
            return {id_: value for id_, value in old.items() if not told or id_ not in known} | {**new}

        mine, theirs = self.attributes, later.attributes
        return replace(
            later,
            ids=[*(id_ for id_ in self.ids if id_ not in known), *later.ids],
            titles=both(self.titles, later.titles, False),
            genres=both(self.genres, later.genres, bool(later.genres)),
            genres_column=(later if later.genres else self).genres_column,
            years=both(self.years, later.years, bool(later.years)),
            attributes={
                name: both(mine.get(name, {}), theirs.get(name, {}), name in later.columns)
                for name in dict.fromkeys((*mine, *theirs))
            },
            embeddings=both(self.embeddings, later.embeddings, False),
            clock=later.clock or self.clock,
            periods=both(self.periods, later.periods, bool(later.clock)),
            former={**self.former, **later.former},
            columns={*self.columns, *later.columns},
            repeats=self.repeats or later.repeats,
            note="; ".join(filter(None, (self.note, later.note))),
        )

    def gaps(self, ids: Sequence[Any]) -> str:
        """A note about attributes that some of these items lack, and what ``encoded`` puts there; "" if none.

        Columns without any value are left out.
        """
        lacking = {
            name: sum(id_ not in values for id_ in ids) for name, values in self.attributes.items() if values
        }
        parts = ", ".join(f"{name} ({count:,})" for name, count in lacking.items() if count)
        filled = "filled with the mean of the others, or for texts with a class of its own"
        return f"items without a value: {parts}, {filled}" if parts else ""

    def tensors(self, ids: Sequence[Any]) -> dict[str, Tensor]:
        """Each attribute of these items (I,), as ``encoded`` gives it."""
        return {
            name: encoded([values.get(id_) for id_ in ids], name in ALWAYS_CLASSES)
            for name, values in self.attributes.items()
        }

    def named_classes(self, ids: Sequence[Any], tensors: Mapping[str, Tensor]) -> tuple[ItemFeature, ...]:
        """The features of NAMED_CLASSES that hold texts; ``tensors`` as ``tensors(ids)`` gives them."""
        return tuple(
            ItemFeature(name, "classes", self.texts_of(name, ids))
            for name in NAMED_CLASSES
            if name in tensors and not tensors[name].is_floating_point()
        )

    def texts_of(self, name: str, ids: Sequence[Any]) -> tuple[str, ...]:
        """The different texts of an attribute, in the order of ``encoded``."""
        texts = sorted({str(self.attributes[name].get(id_, "")).strip() for id_ in ids})
        return tuple(one_line(text) or "none" for text in texts)

    def genres_and_years(self, ids: Sequence[Any], names: Sequence[str]) -> dict[str, Tensor]:
        """Genres (I, G) of these items, 0 or 1, in the order of ``names``; years (I,), NaN if unknown."""
        columns = {name: column for column, name in enumerate(names)}
        genres = torch.zeros(len(ids), len(names))
        for row, id_ in enumerate(ids):
            for name in columns.keys() & self.genres.get(id_, ()):
                genres[row, columns[name]] = 1.0
        years = [self.years.get(id_, math.nan) for id_ in ids]
        return {"genres": genres, "year": torch.tensor(years, dtype=torch.float32)}


def read_items(
    source: str | Path | TableFile, item_column: str, text_ids: bool, known: Collection[str] = ()
) -> ItemFacts:
    """Read a file about items, or the table of them that a log has.

    Raises UserError if it can't be read or holds no ids, and for an attribute beyond LARGEST.

    Args:
        item_column: the name of the item column in the log, which is looked for first.
        text_ids: True if the ids of the log are strings; else other ids than whole numbers are left out.
        known: columns that are attributes already, also if nearly each item of this file has its own text.
    """
    table = source if isinstance(source, TableFile) else open_table(source, headless=_HEADLESS)
    path, file = table.path, one_line(table.path)
    id_column = _id_column(path, table.names, item_column)
    names = list(dict.fromkeys(table.names))
    rows = table.rows(names)
    vectors = _vectors(file, rows)
    clock, rows = _moments(file, rows)
    frame, strange, repeated = _by_id(rows, id_column, text_ids, clock)
    former = dict(frame.filter(pl.col("\0former")).select("\0id", "\0own").rows())
    every = frame["\0id"].to_list()
    others = [name for name in names if name not in (id_column, *STOCK, *TIMES)]
    roles = find_columns(table.path, others, {}, ITEMS, required=())
    embeddings = {} if vectors is None else dict(zip(every, vectors[frame["\0row"].to_list()], strict=True))
    titles, genres = (_column(frame, roles.get(role)) for role in ("title", "genres"))
    years, unclear = _years(frame, roles.get("year"), titles)
    columns = {name: _column(frame, name) for name in others if name not in (*roles.values(), EMBEDDING)}
    attributes, blank, endless, own = _attributes(file, columns, known)
    said = "; ".join(filter(None, [table.note, strange, blank, repeated, unclear, endless, own]))
    periods = dict(zip(every, frame.select(*MOMENTS).rows(), strict=True)) if clock else {}
    number = len(every) - len(former)
    return ItemFacts(
        ids=[id_ for id_ in every if id_ not in former],
        titles={id_: " ".join(str(text).split()) for id_, text in titles.items()},
        genres=_most_frequent({id_: _split(value) for id_, value in genres.items()}),
        genres_column=roles.get("genres", ItemFacts.genres_column),
        years=years,
        attributes={_plain(name): values for name, values in attributes.items()},
        embeddings=embeddings,
        clock=clock,
        periods=periods,
        former=former,
        columns={_plain(name) for name in names},
        repeats=bool(repeated),
        note=f"{number:,} items in {one_line(path.name)}" + f" ({said})" * bool(said),
    )


def read_item_files(
    paths: Sequence[str | Path], item_column: str, text_ids: bool, known: Collection[str] = ()
) -> ItemFacts:
    """The facts of ``read_items`` in several files, of which a later one has the last word.

    Raises UserError, also for files that don't fit each other.
    """
    facts = read_items(paths[0], item_column, text_ids, known)
    for path in paths[1:]:
        more = read_items(path, item_column, text_ids, {*known, *facts.attributes})
        try:
            facts = facts.then(more)
        except UserError as error:
            raise UserError(f"{' and '.join(map(one_line, paths))}: {error}.") from error
    return facts


def _plain(name: str) -> str:
    """The name of an attribute."""
    return re.sub(r"\W+", "_", name)


def _id_column(path: str | Path, names: Sequence[str], item_column: str) -> str:
    fits = [name for name in names if plain_name(name) in {*common_names("item"), "id"}]
    if item_column in names:
        return item_column
    if len(fits) != 1:
        raise UserError(
            f"{path} has {'no' if not fits else 'more than one'} column for the id of an item; its columns "
            f"are {listed(names)}: name the column {item_column!r}, as in the log."
        )
    return fits[0]


def _moments(file: str, rows: pl.DataFrame) -> tuple[Clock, pl.DataFrame]:
    """The clock of the file's columns of moments, and the rows with these as MOMENTS.

    Raises UserError for a value that is none.
    """
    for clock, names in timeline.COLUMNS.items():
        there = [name for name in names if name in rows.columns]
        if not there:
            continue
        moments: list[Any] = []
        for name, own, end in zip(names, MOMENTS, (ALWAYS, NEVER), strict=True):
            if name not in there:
                moments.append(pl.lit(end, pl.Int64).alias(own))
                continue
            some = rows[name].filter(~on(rows[name], no_value))
            if clock == "stock":
                values = on(rows[name], whole_number)
            elif len(some):
                values = (on(rows[name], seconds, format_in(some)) * 1e6).cast(pl.Int64, strict=False)
            else:
                values = pl.Series(name, [None] * rows.height, dtype=pl.Int64)
            if values.drop_nulls().len() < len(some):
                at = int((values.is_null() & ~on(rows[name], no_value)).arg_true()[0])
                wanted = "a whole number" if clock == "stock" else "a time"
                raise UserError(f"{file}: {name} is {short(rows[name][at])} in row {at + 1}: give {wanted}.")
            moments.append(values.fill_null(end).alias(own))
        return clock, rows.with_columns(moments)
    return "", rows


def _by_id(rows: pl.DataFrame, id_column: str, text_ids: bool, clock: Clock) -> tuple[pl.DataFrame, str, str]:
    """The first row of each id, with its id and its number; notes about odd ids and repeated ones.

    With a ``clock`` each row: the last one of an id by its moments, and the others under keys of their own.
    """
    ids = rows[id_column].cast(pl.String).str.strip_chars()
    keys = ids if text_ids else on(ids, whole_number)
    odd = ids.filter(keys.is_null() & ids.is_not_null())
    every = rows.with_columns(keys.alias("\0id"), keys.alias("\0own")).with_row_index("\0row")
    every = every.drop_nulls("\0id")
    if clock:
        latest = (pl.col(MOMENTS[0]) == pl.col(MOMENTS[0]).max().over("\0own")).alias("\0latest")
        every = every.unique(["\0own", MOMENTS[0]], keep="first", maintain_order=True).with_columns(latest)
        key = pl.format("\0{} {}", "\0row", "\0own")
        if not text_ids:
            key = -1 - (1 << 61) - pl.col("\0row").cast(pl.Int64)  # no id of a log
        ids_of = pl.when("\0latest").then("\0id").otherwise(key).alias("\0id")
        frame = every.with_columns(ids_of, (~pl.col("\0latest")).alias("\0former"))
    else:
        frame = every.unique("\0id", keep="first", maintain_order=True)
        frame = frame.with_columns(pl.lit(False).alias("\0former"))
    more = every.height - frame.height
    note = ""
    if len(odd):
        note = f"left out, as the ids of the log are whole numbers: {len(odd):,}, such as {short(odd[0])}"
    return frame, note, f"repeated ids: {more:,}, the first row is kept" if more else ""


def _years(frame: pl.DataFrame, column: str | None, titles: dict[Any, str]) -> tuple[dict[Any, float], str]:
    """The years by id, without a column those in the titles; a note about unreadable ones."""
    texts, pattern = (titles, _IN_TITLE) if column is None else (_column(frame, column), _YEAR)
    found = {id_: re.search(pattern, str(text)) for id_, text in texts.items()}
    unclear = [texts[id_] for id_, match in found.items() if match is None and column is not None]
    note = f"unreadable years: {len(unclear):,}, such as {short(unclear[0])}" if unclear else ""
    return {id_: float(match[1]) for id_, match in found.items() if match is not None}, note


def _attributes(
    file: str, columns: Mapping[str, Any], known: Collection[str]
) -> tuple[dict[str, Any], str, str, str]:
    """The columns that are attributes; notes about empty columns, infinite numbers, and texts of one item."""
    blank = [name for name, values in columns.items() if not values]
    own = [
        name
        for name, values in columns.items()
        if _plain(name) not in known and _nearly_unique(values.values(), name)
    ]
    attributes, endless = {}, []
    for name in [name for name in columns if name not in (*blank, *own)]:
        infinite = {id_ for id_, number in _numbers(columns[name], name).items() if math.isinf(number)}
        endless += [f"{short(name)} ({len(infinite):,})"] if infinite else []
        attributes[name] = {id_: value for id_, value in columns[name].items() if id_ not in infinite}
        _check_size(file, name, attributes[name])
    return (
        attributes,
        f"left out, as all their cells are empty: {', '.join(map(short, blank))}" if blank else "",
        f"infinite numbers, which count as no value: {', '.join(endless)}" if endless else "",
        f"no attributes, as nearly each item has a text of its own: {listed(own)}" if own else "",
    )


def _vectors(name: str, frame: pl.DataFrame) -> Tensor | None:
    """(n, D) float32 of the column ``embedding``; None without it.

    Raises UserError for a row without a vector, or with one of another length, and for single numbers.
    """
    if EMBEDDING not in frame.columns or not frame.height:
        return None
    vectors = Cells(name, frame).lists(EMBEDDING, rule=COLUMNS["context."])
    if vectors.shape[1] < 2:
        raise UserError(f"{name}: {EMBEDDING!r} holds single values: give a list of at least two numbers.")
    return vectors.float()


def _column(frame: pl.DataFrame, name: str | None) -> dict[Any, Any]:
    """The values of a column by id, without gaps."""
    if name is None:
        return {}
    return dict(frame.filter(~no_value(pl.col(name), frame.schema[name])).select("\0id", pl.col(name)).rows())


def _nearly_unique(values: Collection[Any], name: str) -> bool:
    """True for texts of which nearly each item has its own."""
    texts = {str(value).strip() for value in values}
    if name in ALWAYS_CLASSES or len(texts) <= max(FEW_TEXTS, MOST_DISTINCT * len(values)):
        return False
    return not all(map(_is_number, texts))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_size(file: str, name: str, values: Mapping[Any, Any]) -> None:
    """Raise UserError for the first number of a column that is too large to be an attribute."""
    for id_, number in _numbers(values, name).items():
        if abs(number) > LARGEST:
            raise UserError(
                f"{file}: column {name!r} is {number:g} for the item {short(id_)}, which is too large for an "
                f"attribute: give numbers of at most {LARGEST:g}, or none."
            )


def _numbers(values: Mapping[Any, Any], name: str) -> dict[Any, float]:
    """The numbers of a column by id; {} of a column of texts or classes."""
    if name in ALWAYS_CLASSES:
        return {}
    try:
        return {id_: float(str(value).strip()) for id_, value in values.items()}
    except ValueError:
        return {}


def _split(value: object) -> list[str]:
    """The names in a list, or in a text that separates them by | , or ;"""
    parts: Iterable[Any] = value if isinstance(value, list) else re.split(r"[|;,]", str(value).strip("[]"))
    names = (str(name).strip().strip("'\"") for name in parts)
    return [name for name in dict.fromkeys(names) if name and name != "(no genres listed)"]


def _most_frequent(genres: Mapping[Any, list[str]]) -> dict[Any, list[str]]:
    count: dict[str, int] = {}
    for row in genres.values():
        for name in row:
            count[name] = count.get(name, 0) + 1
    frequent = set(sorted(count, key=lambda name: (-count[name], name))[:MOST_GENRES])
    return {id_: [name for name in row if name in frequent] for id_, row in genres.items()}


def encoded(values: Sequence[Any], classes: bool = False) -> Tensor:
    """Numbers (I,) as float32, with the mean for a gap; any other values as int64 numbers of their classes.

    Classes are numbered in alphabetical order. A gap is a class of its own, the first.
    """
    texts = ["" if value is None else str(value).strip() for value in values]
    try:
        numbers = [float(text) if text else float("nan") for text in texts]
    except ValueError:
        classes = True
    else:
        column = torch.tensor(numbers, dtype=torch.float64)
        finite = column.isfinite()
        if not classes and bool(finite.any()):
            return torch.where(finite, column, column[finite].mean()).float()
    names = {name: number for number, name in enumerate(sorted(set(texts)))}
    return torch.tensor([names[text] for text in texts], dtype=torch.int64)


def catalogue_of_items(ids: Sequence[Any], facts: ItemFacts, shown: Tensor, source: str) -> Catalogue:
    """The catalogue of the items ``ids`` (I,), with encodings of their own (item_encoding.py).

    An item that has changed has the features of its last row. ``shown`` (I,) float32, the share of rows that
    show an item, is the popularity; no reward of the log is in a feature, so that cross-fitting leaks
    nothing.
    """
    items = stock_items(ids, replace(facts, former={}))
    return fitted(items)[0].catalogue(items, shown, source)


def stock_items(ids: Sequence[Any], facts: ItemFacts, last: int | None = None) -> list[StockItem]:
    """The items ``ids`` (I,) with what is known of each, after their former rows.

    ``last``: the last moment of the log, on the clock of the file; an item with a later end is still there.
    None if it is unknown: then an item with any end is gone.
    """
    numbers, wanted = {name for name, values in facts.attributes.items() if _numbers(values, name)}, {*ids}
    keys = [(key, id_) for key, id_ in facts.former.items() if id_ in wanted] + [(id_, id_) for id_ in ids]
    items = []
    for key, id_ in keys:
        since, until = facts.periods.get(key, (ALWAYS, NEVER))
        title, features = str(facts.titles.get(key, id_)), _features(key, facts, numbers)
        items.append(
            StockItem(
                id_,
                title,
                features,
                key == id_ and until > (NEVER - 1 if last is None else last),
                since,
                until,
            )
        )
    return items


def check_columns(path: object, facts: ItemFacts, columns: Collection[str]) -> None:
    """Raise UserError if the file at ``path`` lacks a column that a policy reads, or repeats an id.

    Otherwise an item of the file would lose what was known of it, or one of its rows would be dropped.
    """
    lacking = [
        name
        for name in columns
        if name not in (GENRES, YEAR)
        and not (facts.embeddings if name == EMBEDDING else name in facts.columns)
    ]
    if lacking:
        raise UserError(
            f"{one_line(path)} lacks columns that the policy knows of its items, {listed(lacking)}: add "
            "them; cells may be empty."
        )
    if facts.repeats:
        raise UserError(f"{one_line(path)} has an id in several rows: give each item once.")


def _features(id_: object, facts: ItemFacts, numbers: Collection[str]) -> dict[str, Any]:
    """The values of one item, by column; ``numbers``: the columns of numbers."""
    row: dict[str, Any] = {}
    if facts.genres.get(id_):
        row[GENRES] = [*facts.genres[id_]]
    if id_ in facts.years and YEAR not in facts.attributes:
        row[YEAR] = float(facts.years[id_])
    for name, values in facts.attributes.items():
        if id_ not in values:
            continue
        text = str(values[id_]).strip()
        if name not in numbers:
            row[name] = one_line(label(text))
        elif math.isfinite(value := float(text)):
            row[name] = value
    if id_ in facts.embeddings:
        row[EMBEDDING] = facts.embeddings[id_].tolist()
    return row


def knows_items(catalogue: Catalogue) -> bool:
    """True if more is known of the items of a team's log than their ids."""
    if catalogue.own:
        return catalogue.facts != NOTHING
    of, rest = catalogue.embedding[:, :-2], catalogue.embedding[:, -2:]  # of an earlier version
    if bool(rest.any()):  # embeddings of a file; others end with two zeros
        return True
    return of.shape[1] > 0 and not (len(of) == of.shape[1] and torch.equal(of, torch.eye(len(of))))
