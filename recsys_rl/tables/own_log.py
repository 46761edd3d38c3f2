"""A team's own log of decisions as the log of a run: tables with named columns, read by the run's settings.

``survey`` finds what all decisions have in common (LogShape) and the ids of the items; it lies in the
settings and the catalogue of a run. ``OwnLog`` reads the same files, or later ones, by them, a part at a
time: items become rows of that catalogue, and the context is encoded as in training. Each file is a table
that `recsys-rl ope` reads too (tables/decision_table.py), with whole sessions. A user is known by their own
id, or the hash of its text; where a log has no users, by the hash of the session, or of the context, or
of the file's name and the row.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys_rl.errors import UserError, amount, listed, one_line, short
from recsys_rl.tables.cells import spread, tensor_of
from recsys_rl.tables.checks import check_rows
from recsys_rl.tables.decision_columns import Table
from recsys_rl.tables.decision_log import DecisionHeader, DecisionLog, cut
from recsys_rl.tables.decision_table import WINDOW, ended, ids_of_file, ordered_ids, unread
from recsys_rl.tables.layout import roles_of
from recsys_rl.tables.lines import lines_of
from recsys_rl.tables.pieces import CONTEXT, Piece, SeenPiece, merged, seen_pieces, tensors
from recsys_rl.tables.read import TableFile, files_of, open_table
from recsys_rl.tables.schema import BY_NAME, BY_START, DECISIONS, columns_text, named
from recsys_rl.tables.values import lists_of, on, whole_number
from recsys_rl.types import Catalogue, is_name
from recsys_rl.utils.user_hashes import number_of

ENDS = ("terminated", "truncated")
"""The columns that tell where sessions end."""
_INTEGER = r"^(0|-?[1-9]\d{0,17})$"


@dataclass(frozen=True)
class LogShape:
    """Facts about all decisions of a log, which the settings of a run hold."""

    pieces: tuple[Piece, ...]  # of the context, in the order of the columns
    signals: tuple[str, ...]
    slate_size: int  # K
    session_length: int  # T: steps of the longest session
    repeats: bool  # False: no session of several steps shows an item twice
    columns: Mapping[str, str] = field(default_factory=dict)  # of each role, in the first file

    @property
    def history_length(self) -> int:
        """L: items in the history of an observation; 0 for sessions of one step."""
        if self.session_length == 1:
            return 0
        items = self.session_length * self.slate_size
        return items if not self.repeats else max(self.slate_size, min(WINDOW, items))


@dataclass(frozen=True)
class Survey:
    """A log as a whole."""

    shape: LogShape
    ids: tuple[int | str, ...]  # of the items that it shows or names, ascending
    shares: Tensor  # (I,) float32: decisions that show the item, by all decisions
    rows: int
    sessions: int
    has_users: bool
    tells_ends: bool  # a file has a column ``terminated`` or ``truncated``
    item_column: str
    notes: tuple[str, ...]

    @property
    def text_ids(self) -> bool:
        return isinstance(self.ids[0], str)


@dataclass(frozen=True)
class LogFiles:
    """The files of a log, and the columns that the user named."""

    paths: tuple[str, ...]  # tables, and folders of Parquet files
    given: Mapping[str, str | None]  # the column of each role
    separator: str | None = None

    @property
    def name(self) -> str:
        return " + ".join(one_line(path) for path in self.paths)

    @cached_property
    def files(self) -> tuple[TableFile, ...]:
        """Each file. Raises UserError for one that is missing or can't be read, and for other columns."""
        tables = []
        for path in map(Path, self.paths):
            several = files_of(path) if path.is_dir() else [path]
            tables += [open_table(file, self.separator) for file in several]
        if len({table.path.resolve() for table in tables}) < len(tables):
            raise UserError(f"{self.name}: --log names a file twice: give each once.")
        for role, noun in (("propensity", "propensities"), ("user", "users"), ("session", "sessions")):
            having = [self.has(table, role) for table in tables]
            if any(having) and not all(having):
                without, having_it = (one_line(tables[having.index(x)].path) for x in (False, True))
                raise UserError(
                    f"{without} has no column of {noun}, and {having_it} has: give files with the same "
                    "columns."
                )
        return tuple(tables)

    def has(self, table: TableFile, role: str) -> bool:
        """True if the table has a column of this role; of propensities, also under one policy or by item."""
        if role != "propensity":
            return role in self.roles(table)
        starts = ("propensity.", "probability.")
        given = any(name.startswith(starts) or name == "probabilities" for name in table.names)
        return given or role in self.roles(table)

    @property
    def without_ends(self) -> list[str]:
        """The names of the files without a column ``terminated`` or ``truncated``."""
        return [one_line(table.path.name) for table in self.files if not {*ENDS} & {*table.names}]

    def roles(self, table: TableFile) -> dict[str, str]:
        return roles_of(table, self.given, DECISIONS, ("item",))

    def cells(
        self, table: TableFile, columns: Sequence[str], start: int = 0, rows: int | None = None
    ) -> Table:
        """The rows of a table from ``start`` on, with these columns. Raises UserError if there are none."""
        scan = table.texts(list(columns))
        scan = scan if rows is None else scan.slice(start, rows)
        whole = set(columns) == set(table.names)
        return Table(one_line(table.path), table.collect(scan), self.roles(table), whole)


def survey(files: LogFiles) -> Survey:
    """Read the log once, a column at a time where a file is Parquet.

    Raises UserError for a file without decisions, for files with other columns, and for a wrong value.
    """
    every: list[pl.Series] = []
    signals: tuple[str, ...] = ()
    places = length = rows = sessions = 0
    repeats, notes, seen_sessions = False, [], np.zeros(0, np.uint64)
    pieces: list[tuple[str, dict[str, SeenPiece]]] = []
    users: set[str] = set()  # two of them, if there are two
    for table in files.files:
        with lines_of(table):
            of_file = _of_file(files, table)
            pieces.append((one_line(table.path), _pieces_of_file(files, table)))
        if signals and signals != of_file.signals:
            raise UserError(
                f"{one_line(table.path)} has the signals {listed(of_file.signals)}, and the files before "
                f"{listed(signals)}: give files with the same columns."
            )
        if places and places != of_file.places:
            raise UserError(
                f"{one_line(table.path)} shows {of_file.places} items in a decision, and the files before "
                f"{places}: give slates of the same size."
            )
        if of_file.sessions is not None:
            if np.isin(of_file.sessions, seen_sessions).any():
                raise UserError(
                    f"{one_line(table.path)} goes on with a session of the files before: each session must "
                    "be whole in one file."
                )
            seen_sessions = np.concatenate([seen_sessions, of_file.sessions])
        signals, places = of_file.signals, of_file.places
        length, rows = max(length, of_file.length), rows + of_file.rows
        sessions += of_file.rows if of_file.sessions is None else len(of_file.sessions)
        repeats = repeats or of_file.repeats
        every += of_file.shown
        users |= of_file.users
        notes += [note for note in of_file.notes if note not in notes]
    if len(users) == 1:
        raise UserError(
            f"{files.name} is of one user, {short(min(users))}, so nobody could be held out: give rows of "
            "several users, or --user-column - to hold out sessions or contexts."
        )
    counted = pl.concat(every).to_frame("id").with_columns(pl.col("id")).to_series().value_counts()
    ids, shares = _items(files, counted, rows)
    kinds = merged(pieces)
    made = [piece.piece(name) for name, piece in kinds.items()]
    constant = [name for name, piece in kinds.items() if piece.constant]
    notes += [note for _, note in made if note]
    silent = files.without_ends
    if length > 1 and 0 < len(silent) < len(files.files):
        notes.append(
            f"{listed(silent)}: no column terminated or truncated, so where a session is shorter than the "
            "longest, its user left"
        )
    notes += [f"context that never changes: {listed(constant)}"] if constant else []
    columns, known = files.roles(files.files[0]), tuple(piece for piece, _ in made)
    shape = LogShape(known, signals, places, length, repeats or length == 1, columns)
    return Survey(
        shape,
        ids,
        shares,
        rows,
        sessions,
        bool(users),
        len(silent) < len(files.files),
        columns["item"],
        tuple(notes),
    )


def check_signals(source: str, names: Sequence[str]) -> None:
    """Raise UserError for a name that a run's file can't hold, and for a name twice; ``source``: of them."""
    wrong = next((name for name in names if not is_name(name)), None)
    if wrong is not None:
        raise UserError(
            f"{source}: {short(wrong)} is no name of a signal: give letters, digits and signs other than [ "
            "and ]."
        )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{source}: the signal {short(twice)} stands twice: give each name once.")


@dataclass(frozen=True)
class _FileFacts:
    signals: tuple[str, ...]
    places: int
    length: int
    rows: int
    sessions: np.ndarray[tuple[int], np.dtype[np.uint64]] | None  # hashes of their ids, each once
    repeats: bool
    shown: list[pl.Series]  # ids as text, and "\0" before those that are candidates alone
    users: set[str]  # two of them, if there are two
    notes: list[str]


def _of_file(files: LogFiles, table: TableFile) -> _FileFacts:
    roles = files.roles(table)
    thin = [roles[role] for role in ("item", "candidates", "session", "time", "user") if role in roles]
    thin += [name for name in ("step",) if name in table.names]
    read = files.cells(table, list(dict.fromkeys(thin)))
    if read.frame.height == 0:
        raise UserError(f"{one_line(table.path)} holds no decisions: give a log with at least one row.")
    if "step" in read and "session" not in roles:
        raise UserError(f"{one_line(table.path)} has steps but no column of sessions: give --session-column.")
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
    offered = []
    if "candidates" in roles:
        offered = [read.ids("candidates").explode().unique()]
    return _FileFacts(
        signals,
        read.places(shown),
        length,
        read.frame.height,
        hashes,
        length > 1 and bool(pairs.is_duplicated().any()),
        [shown.explode().alias("id"), *("\0" + ids.alias("id") for ids in offered)],
        set(read.names("user").unique().head(2)) if "user" in roles else set(),
        [columns_text(roles), unread(table.names, roles), table.note, *names.notes, *read.notes],
    )


def _pieces_of_file(files: LogFiles, table: TableFile) -> dict[str, SeenPiece]:
    columns = list(named(table.names, CONTEXT).values())
    groups = [columns] if table.raw is not None else [[name] for name in columns]
    pieces: dict[str, SeenPiece] = {}
    for group in filter(None, groups):
        pieces |= seen_pieces(files.cells(table, group))
    return pieces


def _items(files: LogFiles, counted: pl.DataFrame, rows: int) -> tuple[tuple[int | str, ...], Tensor]:
    """The ids of the items, ascending, and the share (I,) of the decisions that show each."""
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
    return ids, torch.tensor([by_id[name] / rows for name in names])


class OwnLog:
    """The decisions of a team's files, by the shape and the catalogue of a run."""

    def __init__(
        self, files: LogFiles, shape: LogShape, catalogue: Catalogue, header: DecisionHeader
    ) -> None:
        """``header``: without loggers; those of the files are added.

        Raises UserError for files that can't be read.
        """
        self.files, self.shape, self.catalogue = files, shape, catalogue
        names, self._policies = _loggers(files)
        self.header = DecisionHeader(**{**vars(header), "loggers": names})
        ids = catalogue.item_names or tuple(catalogue.item_ids.tolist())
        self._rows = {name: index for index, name in enumerate(ids)}
        self._others: dict[tuple[Path, int], dict[str, int]] = {}  # of each part that was read

    @property
    def name(self) -> str:
        return self.files.name

    @cached_property
    def num_rows(self) -> int:
        count = pl.len()
        return sum(
            int(table.collect(table.scan(table.names[:1]).select(count)).item()) for table in self.files.files
        )

    @property
    def unit(self) -> str:
        """The noun for those who are held out as a whole, by the hash of what tells them apart."""
        roles = self.files.roles(self.files.files[0])
        rest = "context" if self.shape.pieces else "decision"
        return next((role for role in ("user", "session") if role in roles), rest)

    @property
    def has_propensities(self) -> bool:
        return self.files.has(self.files.files[0], "propensity")

    @property
    def others(self) -> dict[str, int]:
        """Decisions, of those that were read, with a text that has no code of its own, by piece."""
        total: Counter[str] = Counter()
        for part in self._others.values():
            total.update(part)
        return {name: number for name, number in total.items() if number}

    def fingerprint(self) -> bytes:
        """32 bytes that are equal for the same files in the same order."""
        total = hashlib.sha256()
        for table in self.files.files:
            with table.path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        return total.digest()

    def parts(self, rows: int) -> Iterator[DecisionLog]:
        """The checked decisions in parts of about ``rows`` rows, of whole sessions; text is read at once."""
        first_session = 0
        before: Counter[str] = Counter()
        for table in self.files.files:
            # By its name alone, so that a file that is moved, or gets more rows, keeps its sides.
            file = f"{table.path.name} {before[table.path.name]}"
            before[table.path.name] += 1
            roles = self.files.roles(table)
            columns = [*roles.values(), *(name for name in table.names if self._is_read(name))]
            columns = list(dict.fromkeys(columns))
            by_rows = table.raw is None and "session" not in roles
            start = 0
            while True:
                read = self.files.cells(table, columns, start, rows if by_rows else None)
                if read.frame.height:
                    with lines_of(table, start):
                        log = self._log(read, first_session, file, start)
                        pieces = self.shape.pieces
                        self._others[table.path, start] = {x.name: x.unknown(read) for x in pieces}
                    yield from cut(log, rows)
                    first_session += read.frame.height
                start += rows
                if not by_rows or read.frame.height < rows:
                    break

    def _log(self, read: Table, first_session: int, file: str, start: int) -> DecisionLog:
        """The decisions of the rows of ``file`` from ``start`` on; ``first_session``: number of the first."""
        shape = self.shape
        shown = read.ids("item")
        if read.places(shown) != shape.slate_size:
            raise UserError(
                f"{read.name} shows {read.places(shown)} items in a decision, and the policy chooses "
                f"{shape.slate_size}: give a log of the same kind."
            )
        offered = read.ids("candidates") if "candidates" in read.columns else None
        sessions, numbers = read.keys("session")
        steps = read.steps(numbers)
        given = tensors(shape.pieces, read)
        chosen = self._places(read, shown).view(-1, shape.slate_size)
        texts = [str(name) for name in self._rows]
        probabilities = self._probabilities(read, texts, chosen)
        logprobs = read.logprobs(probabilities, chosen)
        loggers, of_row, under = self._loggers_of(read)
        if under is not None:
            logprobs = read.own_logprobs(logprobs, loggers, of_row, under)
        log = DecisionLog(
            header=self.header,
            users=self._users(read, sessions, numbers, file, start),
            sessions=numbers,
            steps=steps,
            times=read.times() if "time" in read.columns else steps,
            items=chosen,
            logprobs=logprobs,
            signals=read.signals(shape.signals, shape.slate_size),
            terminated=read.flags("terminated"),
            truncated=read.flags("truncated"),
            loggers=of_row,
            given=given,
            place_logprobs=read.place_logprobs(shape.slate_size),
            logger_logprobs=under,
            candidates=None if offered is None else spread(offered.list.len(), self._places(read, offered)),
        )
        order = torch.from_numpy(np.lexsort((log.steps.numpy(), log.sessions.numpy())))
        # Of this file alone, so that it means the same beside other files.
        tells_ends = any(name in read for name in ENDS)
        log = ended(log.rows(order), None if tells_ends else shape.session_length)
        if int(log.steps.max()) >= shape.session_length:
            raise UserError(
                f"{read.name} has a session of {int(log.steps.max()) + 1} steps, and the policy knows "
                f"sessions of up to {shape.session_length}: train it on logs with such sessions too."
            )
        with ids_of_file(read.name, texts, sessions, _user_texts(read, log.users[order.argsort()])):
            check_rows(read.name, log, order + 1)
        return replace(log, sessions=log.sessions + first_session)

    def _probabilities(self, read: Table, texts: Sequence[str], chosen: Tensor) -> Tensor | None:
        """(E, I) float64 of every item of the catalogue under the logger, if they are known.

        They are of the items that the log knows; the file of items may add others, which have 0. ``texts``
        are the ids of all, ``chosen`` (E, K) those that are shown.
        """
        lists = lists_of(read.filled("probabilities")) if "probabilities" in read else None
        if lists is not None:
            listed_all = int(lists.list.len()[0]) == len(texts)
            known = list(range(len(texts))) if listed_all else self._known_to_log
        else:
            shown, columns = set(chosen.flatten().tolist()), set(read.named_items)
            known = [row for row, text in enumerate(texts) if row in shown or text in columns]
        found = read.probabilities([texts[row] for row in known])
        return (
            None
            if found is None
            else found.new_zeros(len(found), len(texts)).index_copy(1, torch.tensor(known), found)
        )

    @cached_property
    def _known_to_log(self) -> list[int]:
        """The rows in the catalogue, ascending, of the items that the files show or name as candidates."""
        known: set[int] = set()
        for table in self.files.files:
            roles = self.files.roles(table)
            ids = [role for role in ("item", "candidates") if role in roles]
            read = self.files.cells(table, list(dict.fromkeys(roles[role] for role in ids)))
            for role in ids:
                known |= set(self._row_of(read.ids(role).explode().unique()).drop_nulls().to_list())
        return sorted(known)

    def _is_read(self, name: str) -> bool:
        return name in BY_NAME or name in self.shape.signals or name.startswith(BY_START)

    def _places(self, read: Table, lists: pl.Series) -> Tensor:
        """(n,) int64: the row of each id of the lists in the catalogue, one list after another."""
        flat = lists.explode()
        numbers = self._row_of(flat)
        if numbers.has_nulls():
            index = int(numbers.is_null().arg_true()[0])
            row = int(lists.list.len().cum_sum().search_sorted(index, "right"))
            raise UserError(
                f"{read.name}: item {short(flat[index])} of row {row + 1} is not among the "
                f"{amount(self.catalogue.num_items, 'item')} of the policy: train it on logs that show the "
                "item, or leave such rows out."
            )
        return tensor_of(numbers)

    def _row_of(self, ids: pl.Series) -> pl.Series:
        """The row of each id in the catalogue; null for others."""
        keys = ids if self.catalogue.item_names else on(ids, whole_number)
        return keys.replace_strict(self._rows, default=None, return_dtype=pl.Int64)

    def _users(
        self, read: Table, sessions: list[str] | None, numbers: Tensor, file: str, start: int
    ) -> Tensor:
        """(E,) int64: the numbers of the users, the same in each log."""
        if "user" in read.columns:
            texts = read.names("user")
            distinct = texts.unique()
            known = {
                text: int(text) if integer else number_of(text)
                for text, integer in zip(distinct, distinct.str.contains(_INTEGER), strict=True)
            }
            return tensor_of(texts.replace_strict(known, return_dtype=pl.Int64))
        if sessions is not None:
            return torch.tensor([number_of(text) for text in sessions])[numbers]
        if not self.shape.pieces:
            return torch.tensor([number_of(f"{file} {start + row}") for row in range(read.frame.height)])
        return _hashes(read, self.shape.pieces)

    def _loggers_of(self, read: Table) -> tuple[tuple[str, ...], Tensor, Tensor | None]:
        """Names of the loggers, that of each row (E,), and the logprobs (E, P) under each where known."""
        nobody = torch.zeros(read.frame.height, dtype=torch.int64)
        if not self._policies:
            return self.header.loggers, nobody, None
        names = self.header.loggers
        under = torch.stack([read.values(f"propensity.{name}").double().log() for name in names], 1)
        return names, read.named(self._policies, names), under


def _user_texts(read: Table, users: Tensor) -> dict[int, str]:
    """A text of each number in ``users`` (E,), in the order of the file; {} if no message names a user."""
    if not {"user", "session"} <= read.columns.keys():
        return {}
    return dict(zip(users.tolist(), read.texts(read.columns["user"]).to_list(), strict=True))


def _loggers(files: LogFiles) -> tuple[tuple[str, ...], str]:
    """Names of the policies that made a log, and the column of their names.

    The column is "" unless the probability under each is known in every row: then they count as one logger,
    with its own propensity in each row.
    """
    loggers: set[str] = set()
    known, columns = True, set()
    for table in files.files:
        column = files.roles(table).get("policy")
        if column is None:
            known = False
            continue
        columns.add(column)
        loggers |= set(files.cells(table, [column]).texts(column).unique().to_list())
    names = tuple(sorted(loggers))
    of_each = {f"propensity.{name}" for name in names}
    known = known and len(names) > 1 and len(columns) == 1
    known = known and all(of_each <= set(table.names) for table in files.files)
    if known:
        return names, columns.pop()
    return ((" + ".join(names) or "the log's policy"),), ""


def _hashes(read: Table, pieces: Sequence[Piece]) -> Tensor:
    """(E,) int64: the hash of each row's context, of its values and not of their encoding."""
    columns = []
    for piece in sorted(pieces, key=lambda piece: piece.name):  # in any order of the columns
        if piece.kind == "text":
            texts = read.texts(f"{CONTEXT}{piece.name}").str.strip_chars()
            known = {text: number_of(text) for text in texts.unique()}
            columns.append(tensor_of(texts.replace_strict(known, return_dtype=pl.Int64)).unsqueeze(1))
        else:
            column = f"{CONTEXT}{piece.name}"
            values = read.values(column).unsqueeze(1) if piece.kind == "number" else read.lists(column)
            columns.append((values.float() + 0.0).contiguous().view(torch.int32).long())  # -0 is 0
    rows = torch.cat(columns, 1).numpy()
    hashes = [
        int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "big") >> 1 for row in rows
    ]
    return torch.tensor(hashes)
