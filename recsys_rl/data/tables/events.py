"""User events from columns, or from any table file, as an InteractionLog.

Events are sorted by (user, time, item). So the order of the rows does not matter in a file with times. In
a file without times, a hash of user and item draws an order in place of the time, as nobody knows whether
the rows are sorted by time, by item or by nothing. data/tables/read.py has the formats, data/tables/schema.py
the names of columns, data/tables/clean.py the checks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys_rl.data.tables.clean import Duplicates, Events, Missing, as_series, clean_events, observed_range
from recsys_rl.data.tables.findings import in_words, words_of
from recsys_rl.data.tables.items import ItemFacts, read_items
from recsys_rl.data.tables.kinds import about_kinds, kinds_in
from recsys_rl.data.tables.read import HEADLESS, TableFile, has_header, open_table
from recsys_rl.data.tables.schema import COLUMNS, EVENTS, NO_COLUMN, columns_text, find_columns, not_read
from recsys_rl.errors import one_line, short
from recsys_rl.settings.fields import check_used
from recsys_rl.types import InteractionLog, UserError, genres_and_year
from recsys_rl.utils.user_hashes import drawn_order


def make_log(
    users: Any,
    items: Any,
    times: Any = None,
    ratings: Any = None,
    *,
    source: str,
    titles: Mapping[Any, str] | None = None,
    genres: Mapping[Any, Sequence[str]] | None = None,
    years: Mapping[Any, float] | None = None,
    rating_range: tuple[float, float] | None = None,
    weights: Any = None,
    attributes: Mapping[str, Mapping[Any, Any]] | None = None,
) -> InteractionLog:
    """Check E events and number their U users and I items 0, 1, ... by ascending id.

    ``users``, ``items``, ``times``, ``ratings``, ``weights`` are columns of equal length E (lists, arrays or
    polars series). Ids are whole numbers 0..2**63-1, or strings. If any id of a column does not look like a
    number, the column is read as strings: the sorted rank of a string becomes the id, its string is kept in
    ``user_names`` or ``item_names``, and the string of an item without a title becomes its title. ``times``
    are numbers (the fraction of a second only orders events), dates, or texts (data/tables/times.py); without
    them a hash of user and item draws the order of a user's events. Without ``ratings`` each event counts as
    a like: rating 1.0 of the range (0, 1). ``weights`` are positive. The keys of ``titles``, ``genres``,
    ``years`` and of each of the ``attributes`` are ids of the source; the default title is "item <id>".
    ``items.encoded`` turns an attribute into numbers, and fills its gaps. ``rating_range`` defaults to the
    smallest and largest rating in the column.

    A repeated event (same user, item and time; without times, same user and item) is an error: it is
    usually a broken export, and it would count twice. Raises UserError, with rows counted from 1.
    """
    given = {"user": users, "item": items, "time": times, "rating": ratings, "weight": weights}
    columns = {
        role: None if values is None else as_series(COLUMNS[role].plain, values)
        for role, values in given.items()
    }
    if len({column.len() for column in columns.values() if column is not None}) > 1:
        raise UserError(f"{source}: the columns differ in length: give one value per event in each.")
    facts = ItemFacts(
        titles=titles or {}, genres=genres or {}, years=years or {}, attributes=attributes or {}
    )
    names = {
        role: column.name or COLUMNS[role].plain for role, column in columns.items() if column is not None
    }
    return _number(clean_events(columns, names, source), source, facts, rating_range)


def read_log(
    path: str | Path,
    user_column: str | None = None,
    item_column: str | None = None,
    time_column: str | None = None,
    rating_column: str | None = None,
    weight_column: str | None = None,
    *,
    event_column: str | None = None,
    event_weights: Mapping[str, float] | None = None,
    separator: str | None = None,
    missing: Missing = "refuse",
    duplicates: Duplicates = "refuse",
    items: str | Path | None = None,
) -> InteractionLog:
    """Read a log from a file that ends in one of read.py's ``ENDINGS``; see ``make_log``.

    A column that is not named is found by its common name if that is unique. The log's ``source`` names all
    columns that are read, with all rows that were dropped or merged. Raises UserError with all problems of
    the file together.
    """
    path = Path(path)
    table = open_table(path, separator, HEADLESS)
    columns = (user_column, item_column, time_column, rating_column, weight_column, event_column)
    given = dict(zip(EVENTS, columns, strict=True))
    named = named_columns(table, given, event_weights)
    return log_and_facts(table, named, given, missing, duplicates, items, event_weights)[0]


def has_kinds(path: str | Path, event_column: str | None = None, separator: str | None = None) -> bool:
    """True if the file has a column of kinds of events. Raises UserError if it can't be read."""
    table = open_table(path, separator, HEADLESS)
    given = {"event": event_column}
    return bool(find_columns(table.path, table.names, given, ("event",), required=()))


def named_columns(
    table: TableFile, given: Mapping[str, str | None], event_weights: Mapping[str, float] | None
) -> dict[str, str]:
    """The column of each role. With weights of kinds, ratings are not read. Raises UserError."""
    _refuse_decisions(table.path)
    named = find_columns(table.path, table.names, given)
    if event_weights is None:
        return named
    no_kinds = f"{table.path} has no column of kinds of events; --event-column would name it"
    check_used(("event_weights", "event" not in named, no_kinds))
    if given.get("rating") not in (None, NO_COLUMN):
        raise UserError("--event-weights and --rating-column both say what a like is: give one of them.")
    return {role: name for role, name in named.items() if role != "rating"}


def _refuse_decisions(path: Path) -> None:
    if has_header(path):
        raise UserError(
            f"{path} is a log of decisions, for recsys-rl ope: give a log of events, with a row for each "
            "event of a user and an item."
        )


def log_and_facts(
    table: TableFile,
    named: dict[str, str],
    given: Mapping[str, str | None],
    missing: Missing,
    duplicates: Duplicates,
    items: str | Path | None,
    event_weights: Mapping[str, float] | None,
) -> tuple[InteractionLog, ItemFacts]:
    """``read_log``, and all that the file of items holds. ``named``: the column of each role."""
    frame = table.rows(list(dict.fromkeys(named.values())))
    about = ""
    if event_weights is None and "event" in named:
        kinds = named.pop("event")
        about = "" if "rating" in named else about_kinds(kinds, kinds_in(frame[kinds]))
    columns = {role: frame[named[role]] if role in named else None for role in EVENTS}
    source = one_line(table.path.name)
    with in_words(words_of(table)):
        events = clean_events(columns, named, source, missing, duplicates, event_weights)
    notes = [columns_text(named), not_read(table.names, named.values()), table.note, about, *events.notes]
    if "weight" in named and given.get("weight") is None:
        notes.append(
            f"likes are weighted by {short(named['weight'])}, as if it held plays, seconds or purchases: "
            f"give --weight-column {NO_COLUMN} if it holds something else"
        )
    facts = ItemFacts()
    if items is not None:
        facts = read_items(items, named["item"], events.frame["item"].dtype == pl.String)
        shown = events.frame["item"].unique().to_list()
        if set(facts.ids).isdisjoint(shown):
            raise UserError(
                f"{items} has no item of {table.path}, column {named['item']!r}: give a file with the "
                "same ids."
            )
        notes += [facts.note, facts.gaps(shown)]
    if "rating" in named:
        ratings = events.frame["rating"]
        if ratings.len() > 1 and ratings.n_unique() == 1:
            notes.append(f"warning: all ratings are {ratings[0]:,.10g}, so each row counts as a like")
    elif event_weights is None:
        notes.append("it has no column 'rating', so each row counts as a like")
    said = "; ".join(filter(None, notes))
    return _number(events, f"{source} ({said})" if said else source, facts, None), facts


def _number(
    events: Events, source: str, facts: ItemFacts, rating_range: tuple[float, float] | None
) -> InteractionLog:
    """The log of checked events, with users and items numbered by ascending id."""
    frame = events.frame
    user_keys, user_rows = _rank(frame["user"])
    item_keys, item_rows = _rank(frame["item"])
    has_rating, has_weight = "rating" in frame.columns, "weight" in frame.columns
    timed = "time" in frame.columns
    times = frame["time"] if timed else _drawn(user_keys, item_keys, user_rows, item_rows)
    frame = pl.DataFrame(
        {
            "user": user_rows,
            "item": item_rows,
            "time": times,
            "rating": frame["rating"]
            if has_rating
            else pl.repeat(1.0, frame.height, dtype=pl.Float32, eager=True),
            **({"weight": frame["weight"]} if has_weight else {}),
        }
    ).sort("user", "time", "item", maintain_order=True)
    names = item_keys.to_list()
    is_text = item_keys.dtype == pl.String
    columns = facts.tensors(names)
    genres = sorted({genre for name in names for genre in facts.genres.get(name, ())})
    return InteractionLog(
        users=_tensor(frame["user"], np.int64),
        items=_tensor(frame["item"], np.int64),
        times=_tensor(frame["time"].floor() if frame["time"].dtype.is_float() else frame["time"], np.int64),
        ratings=_tensor(frame["rating"], np.float32),
        user_ids=_source_ids(user_keys),
        item_ids=_source_ids(item_keys),
        titles=tuple(facts.titles.get(name, name if is_text else f"item {name}") for name in names),
        source=source,
        rating_range=rating_range or (observed_range(frame["rating"]) if has_rating else (0.0, 1.0)),
        weights=_tensor(frame["weight"], np.float32) if has_weight else None,
        user_names=tuple(user_keys.to_list()) if user_keys.dtype == pl.String else (),
        item_names=tuple(names) if is_text else (),
        attributes=columns | facts.genres_and_years(names, genres),
        features=(*genres_and_year(genres), *facts.named_classes(names, columns)),
        timed=timed,
    )


def _drawn(
    user_keys: pl.Series, item_keys: pl.Series, user_rows: pl.Series, item_rows: pl.Series
) -> pl.Series:
    """Numbers in place of times."""
    rows = user_rows.to_numpy(), item_rows.to_numpy()
    return pl.Series(drawn_order(user_keys.to_list(), item_keys.to_list(), *rows))


def _rank(ids: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The distinct ids in ascending order, and the rank of each row's id among them."""
    return ids.unique().sort(), ids.rank("dense").cast(pl.Int64) - 1


def _source_ids(keys: pl.Series) -> Tensor:
    return torch.arange(keys.len()) if keys.dtype == pl.String else _tensor(keys, np.int64)


def _tensor(column: pl.Series, dtype: type) -> Tensor:
    return torch.from_numpy(column.to_numpy().astype(dtype, copy=True))
