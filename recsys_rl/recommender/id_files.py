"""Files of ids and of events, and the ids in them that a checkpoint does not have."""

from __future__ import annotations

import sys
from collections.abc import Container, Mapping, Sequence

import polars as pl

from recsys_rl.data.tables.clean import Missing
from recsys_rl.data.tables.layout import Layout
from recsys_rl.data.tables.values import text, whole_number
from recsys_rl.errors import UserError
from recsys_rl.settings.fields import shown
from recsys_rl.utils.files import read_text

NAMED = 5  # ids in a message
Line = tuple[int, int | str]  # number in the file, from 1, and id


def read_ids(
    path: str,
    option: str,
    known: Container[int | str],
    where: str,
    names: bool,
    missing: Missing = "refuse",
    empty: bool = False,
) -> list[int | str]:
    """The ids in the file at ``path``, in its order.

    Args:
        path: a text file with one id in each line; empty lines are skipped.
        option: the option that names the file, for messages.
        known: the ids of the checkpoint.
        where: in which place the known ids stand, as in "in the catalogue".
        names: True if ids are text as it stands, False if they are whole numbers.
        missing: refuse a file with unknown ids, or drop these ids and print a line about them.
        empty: True if all ids may be dropped.

    Raises UserError if the file can't be read or holds no ids, and one error for all ids that are not whole
    numbers, or unknown.
    """
    lines = _lines(path, option)
    wrong = [] if names else [(number, text) for number, text in lines if not text.isdecimal()]
    if wrong:
        are = "is not an id" if len(wrong) == 1 else "are not ids"
        raise UserError(f"{option} {path}: {_named(wrong)} {are}: give whole numbers, one in each line.")
    ids: list[Line] = [(number, text if names else int(text)) for number, text in lines]
    unknown = [(number, id_) for number, id_ in ids if id_ not in known]
    if len(unknown) == len(ids) and not empty:
        raise UserError(
            f"{option} {path}: no id of this file is {where}: {_named(unknown)}; give ids of the data that "
            "the checkpoint was trained on."
        )
    count = f"{option} {path}: {len(unknown):,} of {len(ids):,} ids"
    if unknown and missing == "refuse":
        are, them = ("is", "it") if len(unknown) == 1 else ("are", "them")
        raise UserError(
            f"{count} {are} not {where}: {_named(unknown)}; leave {them} out, or give --missing drop."
        )
    if unknown:
        print(f"{count} left out, not {where}: {_named(unknown)}", file=sys.stderr)
    return [id_ for _, id_ in ids if id_ in known]


def parse_id(text: str, option: str, names: bool) -> int | str:
    """The id that was given for ``option``. Raises UserError if it is not a whole number and should be."""
    if not names and not text.isdecimal():
        raise UserError(f"{option}: {shown(text)} is not an id: give whole numbers.")
    return text if names else int(text)


def _lines(path: str, option: str) -> list[tuple[int, str]]:
    """The lines with text, each with its number."""
    lines = read_text(path, option, "a file of ids", encoding="utf-8-sig").splitlines()
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise UserError(f"{option} {path} holds no ids: give one in each line.")
    return numbered


def _named(lines: Sequence[Line]) -> str:
    """The first ids with their lines, and the number of the others."""
    first = [f"{shown(id_)} (line {number})" for number, id_ in lines[:NAMED]]
    if len(lines) > NAMED:
        return f"{', '.join(first)} and {len(lines) - NAMED:,} more"
    return " and ".join(filter(None, [", ".join(first[:-1]), first[-1]]))


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
