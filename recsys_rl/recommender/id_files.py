"""Files of ids, one in each line, and the ids in them that a checkpoint does not have."""

from __future__ import annotations

import sys
from collections.abc import Container, Sequence

from recsys_rl.data.tables.clean import Missing
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
