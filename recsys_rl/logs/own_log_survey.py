"""The overview of a team's own log: the shape of its decisions and the ids of its items, before it is read.

Each file is read a few columns at a time. logs/own_log.py then reads the rows by the shape. All rows give
what any row must fit: the ids of the items, the signals, the longest session, whether one shows an item
twice, and of each piece of the context its kind and whether it has gaps. Those of the training side alone
give the numbers that a policy sees: how often each item is shown, and the encodings of the context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys_rl.data.tables.findings import in_words, words_of
from recsys_rl.data.tables.pieces import SeenPiece, TextRule, context_columns, merged, seen_pieces
from recsys_rl.data.tables.read import TableFile
from recsys_rl.data.tables.schema import columns_text
from recsys_rl.data.tables.values import on, whole_number
from recsys_rl.errors import UserError, listed, one_line, short
from recsys_rl.logs.decision_columns import Table
from recsys_rl.logs.decision_table import ordered_ids, unread
from recsys_rl.logs.log_shape import LogShape, SignalRange, check_signals
from recsys_rl.logs.own_log import LogFiles, users_of
from recsys_rl.utils.user_hashes import number_of


@dataclass(frozen=True)
class Survey:
    """A log as a whole."""

    shape: LogShape
    ids: tuple[int | str, ...]  # of the items that it shows or names, ascending
    shares: Tensor  # (I,) float32: decisions of the training side that show the item, by all of that side
    rows: int
    sessions: int
    has_users: bool
    notes: tuple[str, ...]

    @property
    def text_ids(self) -> bool:
        return isinstance(self.ids[0], str)


Heldout = Callable[[Tensor], Tensor]
"""(E,) bool of the numbers (E,) of users: True for those who are held out."""


def nobody(users: Tensor) -> Tensor:
    """A Heldout of a log whose rows are all learned from."""
    return torch.zeros(len(users), dtype=torch.bool)


def survey(files: LogFiles, heldout: Heldout = nobody) -> Survey:
    """Read the log once, a column at a time where a file is Parquet.

    Raises UserError for a file without decisions, for files with other columns, for a wrong value, and where
    all decisions are held out.
    """
    facts: list[_FileFacts] = []
    for table, name in files.named:
        with in_words(words_of(table)):
            of_file = _of_file(files, table, name, heldout)
        _check_goes_on(facts, of_file)
        facts.append(of_file)
    first, users = facts[0], set[str]().union(*(of.users for of in facts))
    learned = sum(int(of.learned.sum()) for of in facts)
    _check_sides(files, users, learned, bool(first.pieces))
    ids, shares = _items(files, pl.concat([ids for of in facts for ids in of.shown]).value_counts(), learned)
    kinds = merged([(one_line(of.table.path), of.pieces) for of in facts])
    made = [piece.piece(name) for name, piece in kinds.items()]
    constant = [name for name, piece in kinds.items() if piece.constant]
    length = max(of.length for of in facts)
    notes: list[str] = []
    for of in facts:
        notes += [note for note in of.notes if note not in notes]
    notes += [note for _, note in made if note]
    if length > 1 and (silent := files.without_ends):
        which = f"{listed(silent)}: " if len(silent) < len(files.files) else ""
        notes.append(
            f"{which}no column terminated or truncated, so where a session is shorter than the longest, its "
            "user left"
        )
    notes += [f"context that never changes: {listed(constant)}"] if constant else []
    known, repeats = tuple(piece for piece, _ in made), length == 1 or any(of.repeats for of in facts)
    columns, ranges = files.roles(first.table), _ranges(files, facts)
    shape = LogShape(known, first.signals, first.places, length, repeats, columns, ranges)
    rows, sessions = sum(of.rows for of in facts), sum(of.num_sessions for of in facts)
    return Survey(shape, ids, shares, rows, sessions, bool(users), tuple(notes))


@dataclass(frozen=True)
class _FileFacts:
    table: TableFile
    signals: tuple[str, ...]
    places: int
    length: int
    rows: int
    learned: Tensor  # (E,) bool: the rows of the training side
    sessions: np.ndarray[tuple[int], np.dtype[np.uint64]] | None  # hashes of their ids, each once
    repeats: bool
    shown: list[pl.Series]  # ids as text, and "\0" before those that no row of the training side shows
    users: set[str]  # two of them, if there are two
    notes: list[str]
    pieces: dict[str, SeenPiece]

    @property
    def num_sessions(self) -> int:
        return self.rows if self.sessions is None else len(self.sessions)


def _check_goes_on(before: Sequence[_FileFacts], of: _FileFacts) -> None:
    """Raise UserError if a file is no continuation of the files before it."""
    name = one_line(of.table.path)
    if before and of.signals != before[0].signals:
        raise UserError(
            f"{name} has the signals {listed(of.signals)}, and the files before {listed(before[0].signals)}: "
            "give files with the same columns."
        )
    if before and of.places != before[0].places:
        raise UserError(
            f"{name} shows {of.places} items in a decision, and the files before {before[0].places}: give "
            "slates of the same size."
        )
    seen = [other.sessions for other in before if other.sessions is not None]
    if of.sessions is not None and seen and np.isin(of.sessions, np.concatenate(seen)).any():
        raise UserError(
            f"{name} goes on with a session of the files before: each session must be whole in one file."
        )


def _check_sides(files: LogFiles, users: set[str], learned: int, has_context: bool) -> None:
    """Raise UserError if there is nobody to hold out, or nothing to learn from."""
    if len(users) == 1:
        raise UserError(
            f"{files.name} is of one user, {short(min(users))}, so nobody could be held out: give rows of "
            "several users, or --user-column - to hold out sessions or contexts."
        )
    if not learned:
        unit = files.unit(has_context)
        raise UserError(
            f"{files.name} holds no decisions to learn from: all its {unit}s are held out from training. "
            f"Give a log of more {unit}s."
        )


def _of_file(files: LogFiles, table: TableFile, name: str, heldout: Heldout) -> _FileFacts:
    roles = files.roles(table)
    thin = [roles[role] for role in ("item", "candidates", "session", "time", "user") if role in roles]
    thin += ["step"] if "step" in table.names else []
    read = files.cells(table, list(dict.fromkeys(thin)))
    if read.frame.height == 0:
        raise UserError(f"{one_line(table.path)} holds no decisions: give a log with at least one row.")
    names = Table(one_line(table.path), pl.DataFrame(schema=dict.fromkeys(table.names, pl.String)), roles)
    signals = names.signal_names(files.given.get("reward") is not None)
    check_signals(names.name, signals)
    shown = read.ids("item")
    ids, numbers = read.keys("session")
    steps = read.steps(numbers)
    length = int(steps.max()) + 1
    pairs = pl.DataFrame({"session": numbers.numpy(), "item": shown}).explode("item")
    hashes = None
    if ids is not None:
        hashes = np.array([number_of(text) for text in ids], dtype=np.uint64)
    learned = ~heldout(_users(files, table, name, read, ids, numbers))
    offered = [shown.filter(pl.Series(~learned.numpy())).explode().unique()]
    if "candidates" in roles:
        offered.append(read.ids("candidates").explode().unique())
    told = [note.said() for note in (*names.notes, *read.notes)]
    return _FileFacts(
        table,
        signals,
        read.places(shown),
        length,
        read.frame.height,
        learned,
        hashes,
        length > 1 and bool(pairs.is_duplicated().any()),
        [
            shown.filter(pl.Series(learned.numpy())).explode().alias("id"),
            *("\0" + others.alias("id") for others in offered),
        ],
        set(read.names("user").unique().head(2)) if "user" in roles else set(),
        [columns_text(roles), unread(table.names, roles), table.note, *told],
        _pieces_of_file(files, table, learned),
    )


def _users(
    files: LogFiles, table: TableFile, name: str, read: Table, sessions: list[str] | None, numbers: Tensor
) -> Tensor:
    """(E,) int64: the numbers of the users of a file, as OwnLog numbers them."""
    columns = [*context_columns(table.names, read.columns).values()]
    if not columns or {"user", "session"} & read.columns.keys():
        return users_of(read, {}, sessions, numbers, name)
    no_row = torch.zeros(read.frame.height, dtype=torch.bool)
    kinds = {piece: seen.kind for piece, seen in _pieces_of_file(files, table, no_row).items()}
    return users_of(files.cells(table, columns), kinds, sessions, numbers, name)


def _pieces_of_file(files: LogFiles, table: TableFile, learned: Tensor) -> dict[str, SeenPiece]:
    """The pieces of a file, of its rows ``learned`` (E,) bool."""
    columns = list(context_columns(table.names, files.roles(table)).values())
    groups, texts = (
        [columns] if table.of_lines else [[name] for name in columns],
        TextRule.of(table, files.given),
    )
    pieces: dict[str, SeenPiece] = {}
    for group in filter(None, groups):
        pieces |= seen_pieces(files.cells(table, group), files.fill, learned, texts=texts)
    return pieces


def _ranges(files: LogFiles, facts: Sequence[_FileFacts]) -> dict[str, SignalRange]:
    """The range of each signal in the rows that are learned from."""
    ranges = {}
    for name in facts[0].signals:
        every = []
        for of in facts:
            column = f"signal.{name}" if f"signal.{name}" in of.table.names else name
            with in_words(words_of(of.table)):
                read = files.cells(of.table, [column])
                every.append(read.signals((name,), of.places)[of.learned].unique())
        values = torch.cat(every).unique()
        ranges[name] = SignalRange(float(values[0]), float(values[-1]), values.tolist() == [0.0, 1.0])
    return ranges


def _items(files: LogFiles, counted: pl.DataFrame, learned: int) -> tuple[tuple[int | str, ...], Tensor]:
    """The ids of the items, ascending, and the share (I,) of the ``learned`` decisions that show each."""
    texts = counted["id"].str.strip_prefix("\0")
    shown = pl.DataFrame({"id": texts, "count": counted["count"] * ~counted["id"].str.starts_with("\0")})
    shown = shown.group_by("id").agg(pl.col("count").sum())
    names, text_ids = ordered_ids(shown["id"])
    keys = shown["id"] if text_ids else on(shown["id"], whole_number)
    by_id: dict[object, int] = {}
    for name, count in zip(keys.to_list(), shown["count"].to_list(), strict=True):
        by_id[name] = by_id.get(name, 0) + count
    if len(names) < 2:
        raise UserError(
            f"{files.name} shows one item alone, {short(str(names[0]))}, so there is nothing to choose: give "
            "a log of a policy that shows different items, or a column of candidates."
        )
    ids: tuple[int | str, ...] = tuple(names)  # type: ignore[arg-type]
    return ids, torch.tensor([by_id[name] / learned for name in names])
