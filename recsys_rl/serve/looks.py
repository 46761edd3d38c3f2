"""What is read from the record for a report, and for the trial of a new version."""

from __future__ import annotations

import sys

from recsys_rl.serve.problems import Problem
from recsys_rl.serve.rows import Decision, Whole
from recsys_rl.serve.store import Damaged, Store

STORED = 32  # latest decisions on which a new version is tried
SEE = "see recsys-rl log check."


def look(store: Store, decision: int) -> tuple[Whole, Decision]:
    """A decision with its session. Raises Problem, Damaged."""
    found = store.decision(decision)
    if found is None:
        raise Problem(404, "unknown-decision", "There is no decision with this id.")
    return found


def stored(store: Store) -> list[tuple[Whole, Decision]]:
    """The latest decisions whose sessions can be read, each with its session.

    Those that can't be read are named: no new version can mend them, so they must not hinder one.
    """
    found = []
    try:
        rows, unreadable = store.latest(STORED)
    except Damaged as damage:
        print(f"a new version is tried without stored decisions ({damage}): {SEE}", file=sys.stderr)
        return []
    for row, *_ in rows:
        try:
            found.append(look(store, row.number))
        except Damaged:
            unreadable.append(row.number)
    for number in unreadable:
        print(
            f"a new version is tried without decision {number}, which can't be read: {SEE}",
            file=sys.stderr,
        )
    return found
