"""A team's own log of decisions: a text or Parquet file with named columns and no header of ours.

docs/09_logs.md lists the columns. Ids may be numbers or strings. The items are those that the log shows or
names as candidates; what is known of them is in the file of ``items``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys_rl.data.tables.cells import spread, tensor_of
from recsys_rl.data.tables.findings import NUMBERS, Words, in_words, names_of, words_of
from recsys_rl.data.tables.items import ItemFacts, catalogue_of_items, read_item_files, read_items
from recsys_rl.data.tables.layout import roles_of
from recsys_rl.data.tables.pieces import TextRule
from recsys_rl.data.tables.read import TableFile
from recsys_rl.data.tables.schema import (
    BY_NAME,
    BY_START,
    CONTEXT_HINT,
    DECISIONS,
    columns_text,
    not_read,
    plain_name,
)
from recsys_rl.data.tables.several import SeveralFiles, open_tables
from recsys_rl.data.tables.values import NUMBER, on, whole_number
from recsys_rl.errors import one_line, short
from recsys_rl.logs.checks import check_rows
from recsys_rl.logs.decision_columns import Table
from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog, assemble
from recsys_rl.logs.intervals import item_files
from recsys_rl.types import Catalogue, Interface, UserError

WINDOW = 50  # items of the history that reward models see


@dataclass(frozen=True)
class DecisionTable:
    """The log of a table of decisions, and what other files of its owner must fit."""

    log: DecisionLog
    catalogue: Catalogue
    items: tuple[str, ...]  # (I,) ids as text, in the order of the catalogue
    rows: Tensor  # (E,) int64: the place in the file of each row of ``log``
    sessions: tuple[str, ...] | None = None  # ids as text by number of the session; None: a row is a session
    session_column: str = ""  # "" without sessions
    probabilities: Tensor | None = None  # (E, I) float64 of every item under the logger, if they are known
    notes: tuple[str, ...] = ()
    words: Words = field(default_factory=dict)  # for the rows and ids of the file

    def part(self, kept: Tensor) -> DecisionTable:
        """The rows where ``kept`` (E,) bool is True, which are whole sessions."""
        every = None if self.probabilities is None else self.probabilities[kept]
        return dataclasses.replace(self, log=self.log.rows(kept), rows=self.rows[kept], probabilities=every)


def read_table(
    path: str | Path | Sequence[str | Path],
    given: Mapping[str, str | None] | None = None,
    separator: str | None = None,
    items: str | Path | None = None,
    fill: bool = True,
) -> DecisionTable:
    """Read and check the file at ``path``, or several files as one table of whole sessions each.

    ``given`` names columns by role, ``items`` is a file about the items, which comes before those beside
    exports of a record. ``fill``: columns context.NAME may have gaps.

    Raises UserError for the first mistake, with its row.
    """
    paths = [path] if isinstance(path, str | Path) else path
    table = open_tables(paths, separator)
    files = item_files([*map(str, paths)], items)
    with in_words(words_of(table)):
        read = _read(table, given or {}, files, fill)
    # Without the text, which may be large: the file is opened again for an error.
    words: Words = {"row": lambda row: words_of(open_tables(paths, separator))["row"](row)}
    return dataclasses.replace(read, words=names_of(words, read.items, read.sessions))


def _read(
    table: TableFile, given: Mapping[str, str | None], items: Sequence[str], fill: bool
) -> DecisionTable:
    path, name = table.path, one_line(table.path)
    read, signals, notes = _opened(table, given)
    columns = read.columns
    shown = read.ids("item")  # (E,) lists of text
    places = read.places(shown)
    offered = read.ids("candidates") if "candidates" in columns else None
    parts = [lists.explode() for lists in (shown, offered) if lists is not None]
    every = pl.concat([*parts, pl.Series(read.named_items, dtype=pl.String)]).unique()
    if items and (of_file := read_item_files(items, columns["item"], True)).clock:
        every = pl.concat([every, pl.Series(of_file.ids, dtype=pl.String)]).unique()  # they could be shown
    names, text_ids = ordered_ids(every)
    texts = tuple(map(str, names))
    facts = facts_of_items(items, table.items, columns["item"], text_ids)
    sessions, numbers = read.keys("session")
    if isinstance(table, SeveralFiles) and sessions is not None:
        again = table.goes_on(pl.Series(numbers.numpy()), pl.int_range(1, len(numbers) + 1, eager=True))
        sentence = "{session} of {row} began in another file: each session must be whole in one file"
        read.refuse(tensor_of(again), sentence, session=lambda at: short(sessions[int(numbers[at])]))
    users, user_numbers = read.keys("user")
    steps = read.steps(numbers)
    pieces = read.context(fill, TextRule.of(table, given))
    interface = _interface(len(names), places, int(steps.max()) + 1, pieces, signals)
    loggers, of_row, under_each, note = read.loggers()
    chosen = _rows_of(shown, names).view(-1, places)
    probabilities = read.probabilities(texts)
    log = read.decisions(
        DecisionHeader(loggers=loggers, interface=interface, signals=signals),
        users=numbers if users is None else user_numbers,
        sessions=numbers,
        steps=steps,
        items=chosen,
        candidates=(
            _there(read, names, facts)
            if offered is None
            else spread(offered.list.len(), _rows_of(offered, names))
        ),
        probabilities=probabilities,
        loggers=(of_row, under_each),
        given=pieces,
    )
    order = torch.from_numpy(np.lexsort((log.steps.numpy(), log.sessions.numpy())))
    log = ended(log.rows(order))
    words = words_of(table)
    with in_words(names_of(words, texts, sessions, users)):
        check_rows(name, log, order + 1)
    shares = log.items.flatten().bincount(minlength=len(names)).float() / log.num_rows
    return DecisionTable(
        log=log,
        catalogue=catalogue_of_items(texts if text_ids else names, facts, shares, one_line(path.name)),
        items=texts,
        rows=order,
        sessions=None if sessions is None else tuple(sessions),
        session_column=columns.get("session", ""),
        probabilities=None if probabilities is None else probabilities[order],
        notes=tuple(filter(None, [*notes, facts.note, note, *(note.said(words) for note in read.notes)])),
    )


def facts_of_items(
    items: Sequence[str], own: TableFile | None, item_column: str, text_ids: bool
) -> ItemFacts:
    """The facts in the files of ``items``, else in the log's ``own`` table of them, else none.

    ``item_column``: of the log, whose name the file may have too. Raises UserError.
    """
    if items:
        return read_item_files(items, item_column, text_ids)
    return ItemFacts() if own is None else read_items(own, "item", text_ids)


def _opened(table: TableFile, given: Mapping[str, str | None]) -> tuple[Table, tuple[str, ...], list[str]]:
    """The table with its columns by role, the names of its signals, and notes. Raises UserError."""
    name, columns = one_line(table.path), roles_of(table, given, DECISIONS, ("item",))
    both = [name for name in table.names if plain_name(name) in ("propensity", "logprob")]
    if len(both) > 1 and given.get("propensity") is None:
        raise UserError(f"{name} has both {both[0]} and {both[1]}: give --propensity-column.")
    frame = table.collect(table.texts(table.names))
    if frame.height == 0:
        raise UserError(f"{name} holds no decisions: give a log with at least one row.")
    read = Table(name, frame, columns)
    signals = read.signal_names(given.get("reward") is not None)
    return read, signals, [columns_text(columns), unread(table.names, columns), table.note]


def _interface(
    number: int, places: int, length: int, pieces: Mapping[str, Tensor], signals: tuple[str, ...]
) -> Interface:
    """The interface of sessions of up to ``length`` steps, which show ``places`` of ``number`` items each."""
    return Interface(
        context=(("clock", 1), *((piece, values.shape[1]) for piece, values in pieces.items())),
        action_sizes=(number,),
        slate_size=places,
        repeats=True,
        history_length=max(places, min(WINDOW, places * length)) if length > 1 else 0,
        signals=signals,
        session_length=length,
    )


def unread(names: Sequence[str], columns: Mapping[str, str]) -> str:
    """A note about the columns that are neither in ``columns`` nor known by their name."""
    known = [name for name in names if name in BY_NAME or name.startswith(BY_START)]
    return not_read(names, {*known, *columns.values()}, CONTEXT_HINT)


def ordered_ids(ids: pl.Series) -> tuple[list[object], bool]:
    """The distinct ids in ascending order, as numbers if all are, and whether they are texts."""
    if ids.str.contains(NUMBER).all():
        numbers = on(ids, whole_number)
        if not numbers.has_nulls():
            return numbers.unique().sort().to_list(), False
    return ids.sort().to_list(), True


def _there(read: Table, names: Sequence[Any], facts: ItemFacts) -> Tensor | None:
    """(E, C) the items that each row could show, by the moments of the file of items; None without these."""
    if not facts.clock or (facts.clock == "stock" and "stock" not in read):
        return None
    if facts.clock == "time" and "time" not in read.columns:
        return None
    moments = read.values("stock").long() if facts.clock == "stock" else read.times()
    known, row = moments.unique(return_inverse=True)  # (U,), (E,)
    could = facts.timeline(names).ids_available_at(known)  # (U, C)
    width = int(could.sum(1).max())
    places = could.int().argsort(dim=1, descending=True, stable=True)[:, :width]
    found: Tensor = places.masked_fill(~could.gather(1, places), -1)[row]
    return found


def _rows_of(lists: pl.Series, names: Sequence[object]) -> Tensor:
    """(n,) int64: the place of each id of the lists, one list after another."""
    flat = lists.explode()
    if names and not isinstance(names[0], str):
        flat = on(flat, whole_number)
    places = {name: index for index, name in enumerate(names)}
    return tensor_of(flat.replace_strict(places, return_dtype=pl.Int64))


def ended(log: DecisionLog, longest: int | None = None) -> DecisionLog:
    """The log in which the last row of a session, if it has no end, is truncated.

    ``longest``: steps of the longest session, if nothing tells the ends of sessions. Then the last row of a
    shorter one is terminated: its user left.
    """
    last = torch.ones(log.num_rows, dtype=torch.bool)
    last[:-1] = log.sessions[1:] != log.sessions[:-1]
    if longest is not None:
        left = last & (log.steps < longest - 1)
        log = dataclasses.replace(log, terminated=log.terminated | left)
    return dataclasses.replace(log, truncated=log.truncated | (last & ~log.terminated))


def by_design(number: int, what: str) -> str:
    """The name of a logger that draws each of ``number`` items with the same probability."""
    return f"a uniform draw from {number:,} {what} (propensity 1/{number:,}, known by design)"


def single_decisions(
    users: Tensor,
    items: Tensor,
    rewards: Tensor,
    propensities: Tensor,
    *,
    signal: str,
    logger: str,
    catalogue: Catalogue,
    ids: Sequence[str],
    times: Tensor | None = None,
    context: Mapping[str, Tensor] | None = None,
) -> DecisionTable:
    """A public log of E decisions of one item each, in the order of the rows; each is a session of one step.

    Args:
        users: (E,) int64; an interval takes the rows of a user as one.
        items: (E,) int64, rows of the catalogue.
        rewards: (E,), the outcome ``signal``.
        propensities: (E,), in (0, 1].
        ids: (I,) of the items, as the source has them.
        times: (E,) int64; the order of the rows without them.
        context: pieces of the observation, (E, size) each.
    """
    number = len(users)
    given = {name: values.float() for name, values in (context or {}).items()}
    interface = _interface(catalogue.num_items, 1, 1, given, (signal,))
    order = torch.arange(number)
    log = assemble(
        DecisionHeader(loggers=(logger,), interface=interface, signals=(signal,)),
        users=users,
        times=order if times is None else times,
        items=items.unsqueeze(1),
        logprobs=propensities.double().log(),
        signals=rewards.view(-1, 1, 1),
        truncated=torch.ones_like(order),
        given=given,
    )
    words = names_of(NUMBERS, ids, None)
    return DecisionTable(log, catalogue, tuple(ids), rows=order, words=words)
