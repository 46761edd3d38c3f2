"""The door to a log of decisions, whoever made it: its parts, the side of each user, and its rewards."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.checkpoint.home import split_of
from recsys_rl.checkpoint.stock import (
    check_new_items,
    encoding_of,
    find_encoding,
    item_column,
    joined,
    over,
)
from recsys_rl.data.catalogue import split_users
from recsys_rl.data.tables.columns import DecisionFile
from recsys_rl.data.tables.items import check_columns, read_items, stock_items
from recsys_rl.data.tables.read import files_of, is_own, items_beside, open_table
from recsys_rl.data.tables.several import check_together
from recsys_rl.data.timeline import clock_of
from recsys_rl.errors import UserError, one_line
from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog, cut
from recsys_rl.logs.decision_table import DecisionTable, read_table
from recsys_rl.logs.intervals import items_of_log
from recsys_rl.logs.parts import PART, gathered, parts, sampled
from recsys_rl.logs.public import LOGS
from recsys_rl.logs.reader import fingerprint, header_of_log, num_rows
from recsys_rl.logs.rewards import Rewards, of_platform, of_signals, weights_of_signals
from recsys_rl.make import make_user_model
from recsys_rl.objective.weighted import check_weights, parse_weights, stream_weights
from recsys_rl.settings.config import Config
from recsys_rl.types import Population, World
from recsys_rl.utils.find import find
from recsys_rl.utils.user_hashes import number_of


def heldout_rows(log: DecisionLog, population: Population, heldout_fraction: float, seed: int) -> Tensor:
    """(E,) bool: decisions for held-out users.

    They are those of the population, and of the users that it lacks those whose hash says so
    (``split_users``). Of data with text for ids, a log may know a user by the number of the text
    (``number_of``).
    """
    ids, of_heldout = population.user_ids, population.heldout
    if population.user_names:
        ids = torch.cat([ids, torch.tensor([number_of(name) for name in population.user_names])])
        of_heldout = torch.cat([of_heldout, of_heldout + len(population.user_names)])
    heldout = torch.isin(log.users, ids[of_heldout])
    strange = ~torch.isin(log.users, ids)
    heldout[strange] = heldout_strangers(log.users[strange], heldout_fraction, seed)
    return heldout


def heldout_strangers(users: Tensor, heldout_fraction: float, seed: int) -> Tensor:
    """(E,) bool: those of ``users`` (E,) int64 whose hash says that they are held out (``split_users``)."""
    others, user = users.unique(return_inverse=True)
    return torch.from_numpy(split_users(others.tolist(), heldout_fraction, seed))[user]


@dataclass(frozen=True)
class Place:
    """The settings, items and users by which a log is read."""

    config: Config
    world: World
    split: tuple[float, int]  # the share and the seed by which strangers are held out

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        return cls(checkpoint.config, checkpoint.world, split_of(checkpoint))

    @classmethod
    def of_run(cls, config: Config, world: World) -> Self:
        """The place of a run with these settings."""
        share = getattr(config.data_config, "heldout_fraction", 0.0)
        return cls(config, world, (share, config.train_config.seed))


class LogSource(ABC):
    """The decisions of a log: RecordedLog and TableLog here, or OwnLog (own_log.py)."""

    header: DecisionHeader
    name: str  # for errors
    files: Sequence[Path]
    place: Place | None = None
    table: DecisionTable | None = None  # what people's own file has beside the log, read without a checkpoint
    unit = "user"  # the noun for those who are held out as a whole: a user, or what stands for one
    has_times = False  # ``times`` of its decisions are known to be those of a clock

    @property
    @abstractmethod
    def num_rows(self) -> int: ...

    @abstractmethod
    def parts(self, rows: int) -> Iterator[DecisionLog]:
        """The checked decisions in parts of whole sessions, of about ``rows`` rows. Raises UserError."""

    def gathered(self, rows: int) -> Iterator[DecisionLog]:
        """``parts``, where small files are read together."""
        return self.parts(rows)

    def fingerprint(self) -> bytes:
        """32 bytes that are equal for logs with the same decisions in the same files."""
        total = hashlib.sha256()
        for path in self.files:
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        return total.digest()

    def at(self, place: Place) -> Self:
        """The log, read at this place."""
        self.place = place
        return self

    def heldout(self, log: DecisionLog) -> Tensor:
        """(E,) bool: decisions of a part for users who are held out at its place."""
        assert self.place is not None
        return heldout_rows(log, self.place.world.population, *self.place.split)

    def heldout_parts(self, rows: int = PART) -> Iterator[DecisionLog]:
        """The decisions for held-out users of each part that has any."""
        for part in self.parts(rows):
            heldout = self.heldout(part)
            if bool(heldout.any()):
                yield part.rows(heldout)

    def rewards(self, weights: Sequence[str] = (), field: str = "weights") -> Rewards:
        """The rewards by ``weights`` NAME=NUMBER of streams: of its place, or without one of its signals.

        Raises FieldError about ``field`` for a wrong weight, and UserError for signals without any.
        """
        if self.place is None:
            by = weights_of_signals(self.name, self.header.signals, weights, field)
            return of_signals(self.header.signals, by)
        users, given = make_user_model(self.place.config, self.place.world), parse_weights(weights, field)
        check_weights(given, users.streams, field)
        return of_platform(self.header, users, stream_weights(users.streams, given))


class RecordedLog(LogSource):
    """A log of `recsys-rl record`, a file or a folder of its parts."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Raise UserError for another file, and for several logs."""
        if len(paths) > 1:
            check_together([open_table(path) for path in paths])
        self.path, self.name = Path(paths[0]), one_line(paths[0])
        self.header = header_of_log(self.path)

    @property
    def num_rows(self) -> int:
        return sum(map(num_rows, files_of(self.path)))

    def fingerprint(self) -> bytes:
        return fingerprint(self.path)

    def parts(self, rows: int) -> Iterator[DecisionLog]:
        return parts(self.path, rows)

    def gathered(self, rows: int) -> Iterator[DecisionLog]:
        return gathered(self.path, rows)


class TableLog(LogSource):
    """A table that is read for its own sake, without a policy: people's own, or a public log."""

    def __init__(self, name: str, table: DecisionTable) -> None:
        self.name, self.table, self.header = name, table, table.log.header
        self.decisions = table.log

    @property
    def num_rows(self) -> int:
        return self.decisions.num_rows

    def parts(self, rows: int) -> Iterator[DecisionLog]:
        return cut(self.decisions, rows)


def open_log(
    paths: Sequence[str],
    checkpoint: Checkpoint | Place | None = None,
    file: DecisionFile | None = None,
    items: str | None = None,
    folders: tuple[str | None, str | None] = (None, None),
) -> LogSource:
    """The log of these paths: of `recsys-rl record`, tables of people's own, or a public log.

    Args:
        checkpoint: by whose settings, items and users it is read. A table of people's own that is read
            without one brings its items, and is held in memory.
        file: columns and separator of such tables, in place of those of the checkpoint's log.
        items: a file about the items of a table that is read without a checkpoint.
        folders: of a public log's files, and of downloads.

    Raises UserError for a file that can't be read, and for one that does not fit the checkpoint.
    """
    file = file or DecisionFile()
    if paths[0] in LOGS:
        load: Callable[[str | None, str | None], DecisionTable] = find(LOGS[paths[0]], "--log")
        return TableLog(paths[0], load(*folders))
    missing = next((path for path in paths if not Path(path).exists()), None)
    if missing is not None and len(paths) > 1:
        raise UserError(f"{one_line(missing)} is not a file: give the paths of tables of your own.")
    place = Place.of(checkpoint) if isinstance(checkpoint, Checkpoint) else checkpoint
    if not is_own(tuple(paths)):
        source: LogSource = RecordedLog(paths)
    elif place is None:
        fill = file.missing == "fill"
        name = " + ".join(map(one_line, paths))
        return TableLog(name, read_table(paths, file.columns, file.separator, items, fill))
    else:
        config, tables = place.config, place.config.platform.tables
        if tables is None:
            raise UserError(
                f"{one_line(paths[0])} is a table of your own, and not a log of `recsys-rl record` of "
                f"{one_line(config.env)}: leave --env and --checkpoint out, or give a policy of such a "
                "table."
            )
        data = dataclasses.replace(config.data_config, **file.given)
        source = tables.open_log(paths, data, config.env_config, place.world.catalogue)
    return source if place is None else source.at(place)


def over_log(checkpoint: Checkpoint, paths: Sequence[str], items: str | None = None) -> Checkpoint:
    """The policy over the items beside the log at ``paths``; as it is without a file of them.

    Where some file of the log is no export, the items that the policy knows beside those stay. A file of
    ``items`` comes before it: these, and the others that the policy knows.

    Raises UserError for a file that can't be read.
    """
    if items is not None:
        checkpoint = with_items(checkpoint, items)
    file, encoding = items_of_log(paths), find_encoding(checkpoint)
    if file is None or encoding is None:
        return checkpoint
    whole = all(items_beside(part).is_file() for path in paths for part in files_of(Path(path)))
    text_ids = whole or bool(checkpoint.catalogue.item_names)
    facts = read_items(file, item_column(checkpoint), text_ids, encoding.columns)
    stock = stock_items(facts.ids, facts)
    if not whole:
        stock = joined(checkpoint, stock, goes_on=False, clock=facts.clock)
    return over(checkpoint, stock, clock=facts.clock)


def with_items(checkpoint: Checkpoint, path: str) -> Checkpoint:
    """The policy over the items of the file at ``path`` and the others that it knows.

    Raises UserError for a file that can't be used, and for a policy that can't know other items.
    """
    check_new_items(checkpoint)
    encoding, known = encoding_of(checkpoint), checkpoint.catalogue
    facts = read_items(path, item_column(checkpoint), bool(known.item_names), encoding.columns)
    check_columns(path, facts, encoding.columns)
    clock = facts.clock or clock_of(known)
    goes_on = clock_of(known) in ("", clock)  # else their moments are on another clock
    items = joined(checkpoint, stock_items(facts.ids, facts), goes_on, clock)
    return over(checkpoint, items, clock=clock)


def sample_of(source: LogSource, rows: int, generator: torch.Generator) -> tuple[DecisionLog, str]:
    """The decisions of a log, or random sessions of one with more than ``rows`` rows; and a note on these.

    Raises UserError for a wrong value.
    """
    log, whole = sampled(source.parts(PART), rows, generator)
    if whole:
        return log, ""
    shares = f"{log.num_rows:,} of {source.num_rows:,} rows"
    return log, f"{source.name}: a random {log.num_sessions:,} of its sessions, {shares}"
