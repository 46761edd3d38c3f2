"""The columns of an exported table, by the names that the team's own log has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from recsys_rl.serve.facts import COLUMNS, ITEMS_KNOWN
from recsys_rl.tables.schema import of_propensities

MOST_CANDIDATES = 1_000
"""Items of a place whose rows name all of them as candidates, where no session showed some of them."""
KINDS = {"number": pl.Float64(), "text": pl.String(), "list": pl.List(pl.Float64())}
INTEGER = r"^(0|-?[1-9]\d{0,17})$"


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
    candidates: tuple[int, ...] | None  # the only items that could be shown; None: all
    signals: list[list[float]]  # (K, S)
    context: Mapping[str, Any]  # by piece, as the request gave it


def frame_of(rows: Sequence[TableRow], facts: Mapping[str, Any], never_shown: int) -> pl.DataFrame:
    """The table. ``facts``: of the record; ``never_shown``: the number of items that no row shows.

    Users and sessions stand there only if the log has them too, so that one policy can learn from both.
    """
    slate, names = facts["slate_size"], facts.get(COLUMNS, {})
    ids, of_log = pl.Series(facts["items"], dtype=pl.String), bool(names)
    if ids.str.contains(INTEGER).all():
        ids = ids.cast(pl.Int64)
    columns: dict[str, pl.Series] = {}
    if not of_log or "user" in names:
        columns[names.get("user", "user")] = pl.Series([row.user for row in rows], dtype=pl.String)
    if not of_log or "session" in names:
        columns[names.get("session", "session")] = pl.Series([row.session for row in rows], dtype=pl.String)
    columns[names.get("time", "time")] = pl.Series([row.time for row in rows], dtype=pl.Int64)
    columns[names.get("policy", "policy")] = pl.Series([row.policy for row in rows], dtype=pl.String)
    columns["version"] = pl.Series([row.version for row in rows], dtype=pl.String)
    items = _lists(ids, [row.items for row in rows])
    columns[names.get("item", "item" if slate == 1 else "items")] = items if slate > 1 else items.list.first()
    columns |= _propensities(rows, slate, names.get("propensity", "propensity"))
    candidates = [row.candidates for row in rows]
    # An item that no row names is unknown to a policy that learns from the table, unless it has features.
    lacking = never_shown and facts.get(ITEMS_KNOWN) is False and len(ids) <= MOST_CANDIDATES
    if lacking or "candidates" in names or any(some is not None for some in candidates):
        every = range(len(ids))
        offered = [every if some is None else some for some in candidates]
        columns[names.get("candidates", "candidates")] = _lists(ids, offered)
    for index, signal in enumerate(facts["signals"]):
        values = pl.Series(
            [[place[index] for place in row.signals] for row in rows], dtype=pl.List(pl.Float64)
        )
        name = signal if names.get("reward") == signal else f"signal.{signal}"
        columns[name] = values if slate > 1 else values.list.first()
    for piece, kind, _ in facts["context"]:
        columns[f"context.{piece}"] = pl.Series([row.context[piece] for row in rows], dtype=KINDS[kind])
    return pl.DataFrame(columns)


def _propensities(rows: Sequence[TableRow], slate: int, name: str) -> dict[str, pl.Series]:
    """The columns of the probabilities; none if some are unknown."""
    if not all(row.logprobs for row in rows):
        return {}
    sums = pl.Series([sum(row.logprobs) for row in rows], dtype=pl.Float64)
    columns = {name: sums if of_propensities(name).name == "logprob" else sums.exp()}
    if slate > 1 and all(len(row.logprobs) == slate for row in rows):
        columns["place_logprobs"] = pl.Series([row.logprobs for row in rows])
    return columns


def _lists(ids: pl.Series, rows: Sequence[Sequence[int]]) -> pl.Series:
    """The ids of the items in each row, as lists."""
    places = pl.Series("row", rows, dtype=pl.List(pl.Int64))
    flat = ids.gather(places.explode()).alias("id")
    numbers = pl.Series("at", range(len(places)), dtype=pl.UInt32)
    frame = pl.DataFrame({"at": numbers, "row": places}).explode("row").with_columns(flat)
    return frame.group_by("at", maintain_order=True).agg("id")["id"]
