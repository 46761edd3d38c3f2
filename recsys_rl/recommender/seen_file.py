"""The items that users have already, from a file of events with a user and an item in each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from recsys_rl.data.tables.layout import Layout
from recsys_rl.data.tables.values import text, whole_number
from recsys_rl.errors import UserError


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
    layout = Layout.open(path, names, separator, ("user", "item"))
    wanted = {"user": pl.Series(list(users)), "item": pl.Series(list(items))}
    ids = {}
    for role, name in layout.roles.items():
        # As the ids of the catalogue are: texts, or whole numbers (null for other texts).
        of_catalogue = text if wanted[role].dtype == pl.String else whole_number
        ids[role] = of_catalogue(pl.col(name), layout.types[name])
    gaps = [layout.gap(name) for name in layout.roles.values()]
    own = layout.scan.filter(~pl.any_horizontal(gaps)).select(**ids)
    own = own.filter(pl.col("user").is_in(wanted["user"].implode())).unique()
    events = layout.collect(own)
    if events.is_empty():
        who = "this user" if len(users) == 1 else "any of these users"
        raise UserError(f"--seen {path} has no event of {who}: leave it out, or give the events of the data.")
    known = events.filter(pl.col("item").is_in(wanted["item"].implode()))
    return dict(known.group_by("user").agg("item").iter_rows())
