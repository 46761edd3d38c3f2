"""The columns of an exported table, by the names that the team's own log has."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from recsys_rl.data.tables import schema
from recsys_rl.data.tables.schema import common_names, of_propensities
from recsys_rl.data.tables.values import INTEGER, in_table
from recsys_rl.serving.facts import COLUMNS, ITEMS_KNOWN

MOST_CANDIDATES = 1_000
"""Items of a place whose rows name all of them as candidates, where no session showed some of them."""
KINDS = {"number": pl.Float64(), "text": pl.String(), "list": pl.List(pl.Float64())}
_ADDED = ("time", "policy", "version", "propensity", "candidates", "place_logprobs")
"""Roles of columns that an export may have where the log has none."""


@dataclass(frozen=True)
class TableRow:
    """One row of a table: items and candidates are rows of the catalogue."""

    user: str
    session: str
    time: int  # milliseconds since 1970
    policy: str  # the name of the logger
    version: str  # of a policy of ours; "" for an application
    items: tuple[int, ...]  # (K,)
    logprobs: tuple[float, ...]  # of each place, or of the whole slate; () if it is unknown
    candidates: tuple[int, ...] | None  # of the request; None: all
    exclude: tuple[int, ...]
    above: tuple[int, ...]  # the items of the rows of its list before it
    signals: list[list[float]]  # (K, S)
    context: Mapping[str, Any]  # by piece, as the request gave it; None: it has no value

    @property
    def limited(self) -> bool:
        """True if the request named candidates, or excluded items."""
        return self.candidates is not None or bool(self.exclude)

    def showable(self, items: int) -> list[int]:
        """The rows of the catalogue, of so many ``items``, that could be shown."""
        forbidden = {*self.exclude, *self.above}
        some = range(items) if self.candidates is None else self.candidates
        return [item for item in some if item not in forbidden]


def frame_of(rows: Sequence[TableRow], facts: Mapping[str, Any], never_shown: int) -> pl.DataFrame:
    """The table. ``facts``: of the record; ``never_shown``: the number of items that no row shows.

    Users and sessions stand there only if the log has them too, so that one policy can learn from both.
    """
    slate, of_log = facts["slate_size"], facts.get(COLUMNS, {})
    names = _names(of_log)
    ids = pl.Series(facts["items"], dtype=pl.String)
    if ids.str.contains(INTEGER).all():
        ids = ids.cast(pl.Int64)
    columns: dict[str, pl.Series] = {}
    if not of_log or "user" in of_log:
        columns[names.get("user", "user")] = pl.Series([row.user for row in rows], dtype=pl.String)
    if not of_log or "session" in of_log:
        columns[names.get("session", "session")] = pl.Series([row.session for row in rows], dtype=pl.String)
    columns[names["time"]] = pl.Series([row.time for row in rows], dtype=pl.Int64)
    columns[names["policy"]] = pl.Series([row.policy for row in rows], dtype=pl.String)
    columns[names["version"]] = pl.Series([row.version for row in rows], dtype=pl.String)
    items = _lists(ids, [row.items for row in rows])
    columns[names.get("item", "item" if slate == 1 else "items")] = items if slate > 1 else items.list.first()
    columns |= _propensities(rows, slate, names["propensity"], names["place_logprobs"])
    # An item that no row names is unknown to a policy that learns from the table, unless it has features.
    lacking = never_shown and facts.get(ITEMS_KNOWN) is False and len(ids) <= MOST_CANDIDATES
    if lacking or "candidates" in of_log or any(row.limited for row in rows):
        columns[names["candidates"]] = _lists(ids, [row.showable(len(ids)) for row in rows])
    if any(row.above for row in rows):
        columns["list_place"] = pl.Series([len(row.above) // slate for row in rows], dtype=pl.Int64)
    for index, signal in enumerate(facts["signals"]):
        values = pl.Series(
            [[place[index] for place in row.signals] for row in rows], dtype=pl.List(pl.Float64)
        )
        name = signal if names.get("reward") == signal else f"signal.{signal}"
        columns[name] = values if slate > 1 else values.list.first()
    for piece, kind, _ in facts["context"]:
        given = (row.context[piece] for row in rows)
        cells = [in_table(value) if isinstance(value, str) else value for value in given]
        columns[f"context.{piece}"] = pl.Series(cells, dtype=KINDS[kind])
    return pl.DataFrame(columns)


def _names(of_log: Mapping[str, str]) -> dict[str, str]:
    """The column of each role: that of the log, else the first usual name that the log uses for no other."""
    names = dict(of_log)
    for role in _ADDED:
        usual = [role, *(common_names(role) if role in schema.COLUMNS else ())]
        more = (f"{role}_{number}" for number in itertools.count(2))
        free = (name for name in itertools.chain(usual, more) if name not in names.values())
        names.setdefault(role, next(free))
    return names


def _propensities(rows: Sequence[TableRow], slate: int, name: str, of_places: str) -> dict[str, pl.Series]:
    """The columns of the probabilities, ``name`` and ``of_places``; none if some are unknown."""
    if not all(row.logprobs for row in rows):
        return {}
    sums = pl.Series([sum(row.logprobs) for row in rows], dtype=pl.Float64)
    columns = {name: sums if of_propensities(name).name == "logprob" else sums.exp()}
    if slate > 1 and all(len(row.logprobs) == slate for row in rows):
        columns[of_places] = pl.Series([row.logprobs for row in rows])
    return columns


def _lists(ids: pl.Series, rows: Sequence[Sequence[int]]) -> pl.Series:
    """The ids of the items in each row, as lists."""
    places = pl.Series("row", rows, dtype=pl.List(pl.Int64))
    flat = ids.gather(places.explode()).alias("id")
    numbers = pl.Series("at", range(len(places)), dtype=pl.UInt32)
    frame = pl.DataFrame({"at": numbers, "row": places}).explode("row").with_columns(flat)
    return frame.group_by("at", maintain_order=True).agg("id")["id"]
