"""The items that users have already, from a file of events with a user and an item in each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from recsys_rl.errors import UserError
from recsys_rl.tables.read import HEADLESS, open_table
from recsys_rl.tables.schema import find_columns
from recsys_rl.tables.values import no_value, text, whole


def read_seen(
    path: str,
    users: Sequence[int | str],
    items: Mapping[int | str, int],
    names: Mapping[str, str | None],
    separator: str | None,
) -> dict[int | str, list[int | str]]:
    """The items of the catalogue in the events of each of the ``users``, by user.

    Every event counts, whatever its rating. Rows of other users and items are skipped. The file is not
    held in memory.

    Args:
        users: ids, numbers or texts.
        items: the row of each item id of the catalogue.
        names: the given columns, by role: user and item.
        separator: of a text file; None to find it.

    Raises UserError if the file can't be read, or has no event of any of these users.
    """
    table = open_table(path, separator, HEADLESS)
    columns = find_columns(Path(path), table.names, names, ("user", "item"))
    wanted = {"user": pl.Series(list(users)), "item": pl.Series(list(items))}
    scan = table.texts(list(dict.fromkeys(columns.values())))
    kinds, ids, gaps = scan.collect_schema(), {}, []
    for role, name in columns.items():
        # As the ids of the catalogue are: texts, or whole numbers (null for other texts).
        of_catalogue = text if wanted[role].dtype == pl.String else whole
        ids[role] = of_catalogue(pl.col(name), kinds[name])
        gaps.append(no_value(pl.col(name), kinds[name]))
    own = scan.filter(~pl.any_horizontal(gaps)).select(**ids)
    own = own.filter(pl.col("user").is_in(wanted["user"].implode())).unique()
    events = table.collect(own)
    if events.is_empty():
        who = "this user" if len(users) == 1 else "any of these users"
        raise UserError(f"--seen {path} has no event of {who}: leave it out, or give the events of the data.")
    known = events.filter(pl.col("item").is_in(wanted["item"].implode()))
    return dict(known.group_by("user").agg("item").iter_rows())
