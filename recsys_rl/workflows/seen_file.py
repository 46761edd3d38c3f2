"""The items that users have already, from a file of events with a user and an item in each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from recsys_rl.errors import UserError
from recsys_rl.tables.clean import no_value, whole_numbers
from recsys_rl.tables.columns import find_columns
from recsys_rl.tables.read import HEADLESS, open_table, pieces


def read_seen(
    path: str,
    users: Sequence[int | str],
    items: Mapping[int | str, int],
    names: Mapping[str, str | None],
    separator: str | None,
) -> dict[int | str, list[int | str]]:
    """The items of the catalogue in the events of each of the ``users``, by user.

    Every event counts, whatever its rating. Rows of other users and items are skipped. The file is read in
    pieces and not held in memory.

    Args:
        users: ids, numbers or texts.
        items: the row of each item id of the catalogue.
        names: the given columns, by role: user and item.
        separator: of a text file; None to find it.

    Raises UserError if the file can't be read, or has no event of any of these users.
    """
    table = open_table(path, separator, HEADLESS)
    columns, _ = find_columns(Path(path), table.names, names, ("user", "item"))
    wanted = {"user": pl.Series(list(users)), "item": pl.Series(list(items))}
    found: dict[int | str, list[int | str]] = {}
    known = False
    for _, piece in pieces(table, list(dict.fromkeys(columns.values()))):
        given = {role: piece[name] for role, name in columns.items()}
        sound = ~(no_value(given["user"]) | no_value(given["item"]))
        ids = {role: _as(column, wanted[role]).filter(sound) for role, column in given.items()}
        own = pl.DataFrame(ids).filter(pl.col("user").is_in(wanted["user"].implode()))
        known = known or own.height > 0
        own = own.filter(pl.col("item").is_in(wanted["item"].implode()))
        for user, its in own.unique().group_by("user").agg("item").rows():
            found.setdefault(user, []).extend(its)
    if not known:
        who = "this user" if len(users) == 1 else "any of these users"
        raise UserError(f"--seen {path} has no event of {who}: leave it out, or give the events of the data.")
    return found


def _as(column: pl.Series, ids: pl.Series) -> pl.Series:
    """The ids of a column as those of the catalogue are: texts, or whole numbers (null for other texts)."""
    texts = column.cast(pl.String, strict=False).str.strip_chars()
    return texts if ids.dtype == pl.String else whole_numbers(texts)
