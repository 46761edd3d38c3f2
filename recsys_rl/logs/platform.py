"""`own-log`: the log of a team as a platform without a simulator.

    recsys-rl train --algo reinforce --log clicks.csv --items items.csv

The columns of the log give what a platform has: the items, the named pieces of the context with their
encodings (data/tables/pieces.py), the signals, and the length of sessions. They lie in the settings of the
run and so in its checkpoint, with the encodings of the columns of the items, by which a policy reads other
items too (checkpoint/stock.py). How often an item is shown, which no network sees, and the ranges and
encodings of the context are those of the training side. All rows give what any row must fit
(logs/own_log_survey.py); no other number of a policy depends on the held-out rows. The context of an
observation has:

- `profile`, first, if the log has a column `context.profile` as long as an embedding of the items;
- `clock`, the share of the longest session that is over; and `last_item`, in sessions of several steps with
  items of known features;
- each other column `context.NAME` of the log.

No simulator answers: policies learn from the log (logs/experience/logged.py), are judged by it (`recsys-rl
ope`) and serve people. The reward is the log's only signal, or the sum by --weights.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import polars as pl
import torch
import tyro
from torch import Tensor

from recsys_rl.data.catalogue_hash import catalogue_hash
from recsys_rl.data.tables.columns import DecisionColumns, DecisionFile
from recsys_rl.data.tables.item_encoding import ItemEncoding, fitted
from recsys_rl.data.tables.items import ItemFacts, knows_items, read_items, stock_items
from recsys_rl.data.tables.pieces import Piece
from recsys_rl.data.tables.read import ITEMS_OF, TableFile, files_of
from recsys_rl.errors import UserError, amount, listed, one_line
from recsys_rl.logs.decision_log import DecisionHeader
from recsys_rl.logs.decision_table import facts_of_items, ordered_ids
from recsys_rl.logs.intervals import item_files, items_of_log
from recsys_rl.logs.log_shape import LogShape, SignalRange, check_signals, read_shape, shape_text
from recsys_rl.logs.own_log import LogFiles, OwnLog
from recsys_rl.logs.own_log_survey import Survey, survey
from recsys_rl.logs.rewards import weights_of_signals
from recsys_rl.logs.source import heldout_strangers
from recsys_rl.objective.weighted import FIELD
from recsys_rl.records import Known, OwnTables, Platform, Preset, VisitPieces, WorldFile
from recsys_rl.session import make_interface
from recsys_rl.settings.shared import DataConfig, EnvConfig, TrainConfig
from recsys_rl.types import Catalogue, Feedback, Interface, Population, Signal, Stream, World

NAME = "own-log"
LONGEST = 10_000
"""Steps of the longest session before there is a log."""


@dataclass(frozen=True)
class OwnLogConfig(EnvConfig):
    """The shape of a log. Each field comes from its columns."""

    shape: tyro.conf.Suppress[str] = "{}"
    """Signals, pieces of the context and slates of the log, as JSON; found in its columns."""

    @property
    def log_shape(self) -> LogShape:
        """Raises UserError for a text that is not a shape."""
        return read_shape(self.shape, self.max_episode_steps)[0]

    @property
    def weights(self) -> Mapping[str, float]:
        """The weight of each signal in the reward; one that is absent has 0."""
        return read_shape(self.shape, self.max_episode_steps)[1]

    @property
    def repeats(self) -> bool:
        return self.log_shape.repeats

    @property
    def slate_size(self) -> int:
        return self.log_shape.slate_size

    @property
    def history_length(self) -> int:
        return self.log_shape.history_length


@dataclass(frozen=True)
class OwnLogData(DataConfig, DecisionFile):
    """The columns of a log, and the file about its items."""

    items: str | None = None
    """File about the items: id, title, genres and any other column; `embedding` may hold a list of numbers.
    Without it each item is known by its id alone. With --checkpoint: the items that may be shown from now on,
    by its encodings."""


@dataclass(frozen=True)
class OwnLogUsers:
    """The user model: the signals and rewards of the log. It has no responses."""

    catalogue: Catalogue
    population: Population
    config: OwnLogConfig

    @property
    def shape(self) -> LogShape:
        return self.config.log_shape

    @property
    def repeats(self) -> bool:
        return self.shape.repeats

    @property
    def history_length(self) -> int:
        return self.shape.history_length

    @property
    def slate_size(self) -> int:
        return self.shape.slate_size

    @property
    def context(self) -> tuple[str, ...]:
        return context_of(self.shape, self.catalogue)

    @property
    def signals(self) -> tuple[Signal, ...]:
        ranges, nothing = self.shape.ranges, SignalRange(-math.inf, math.inf)
        known = {name: of if of.binary else nothing for name, of in ranges.items()}
        return tuple(Signal(name, True, *known.get(name, nothing)[:2]) for name in self.shape.signals)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Each signal, summed over the places of a slate."""
        weights = self.config.weights
        return tuple(Stream(name, weights.get(name, 0.0)) for name in self.shape.signals)

    @property
    def bounds(self) -> Mapping[str, float]:
        return {piece.name: 1.0 for piece in self.shape.pieces}

    @property
    def assumptions(self) -> str:
        return ""

    def sample(self, users: Tensor) -> Mapping[str, Tensor]:
        return {piece.name: torch.zeros(len(users), piece.size) for piece in self.shape.pieces}

    def possible(self, user_state: Mapping[str, Tensor]) -> bool:
        return True

    def visible(self, user_state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return user_state

    def rewards(self, feedback: Feedback) -> Tensor:
        return feedback.signals.sum(1)  # (N, M)

    def respond(self, *_: object) -> NoReturn:
        """Raise UserError: no simulator answers."""
        raise UserError(
            "A log of your own has no simulator that could answer a policy: judge it on a log with "
            "recsys-rl ope, or fit users to a log of sessions (recsys-rl fit-users)."
        )

    advance = expected_reward = respond


def context_of(shape: LogShape, catalogue: Catalogue) -> tuple[str, ...]:
    """Names of the pieces of the context, in the order of the observations."""
    sizes = {piece.name: piece.size for piece in shape.pieces}
    first = ["profile"] if sizes.get("profile") == catalogue.embedding.shape[1] else []
    derived = ["clock"]
    if shape.session_length > 1 and knows_items(catalogue):
        derived += ["last_item"]
    return tuple(dict.fromkeys([*first, *derived, *sizes]))


def interface_of(shape: LogShape, catalogue: Catalogue) -> Interface:
    """The interface of sessions of this shape. Raises UserError for a slate larger than the catalogue."""
    return make_interface(
        catalogue,
        context=context_of(shape, catalogue),
        given={piece.name: piece.size for piece in shape.pieces},
        signals=shape.signals,
        session_length=shape.session_length,
        slate_size=shape.slate_size,
        repeats=shape.repeats,
        history_length=shape.history_length,
    )


def _no_context(config: OwnLogConfig, _: Catalogue, profiles: Tensor, __: Tensor) -> Known:
    """Zeros, until the caller gives the context (``Visit.with_context``)."""
    pieces = config.log_shape.pieces
    parts = torch.zeros(len(profiles), sum(piece.size for piece in pieces)).split([x.size for x in pieces], 1)
    return {piece.name: part for piece, part in zip(pieces, parts, strict=True)}


def open_own_log(paths: Sequence[str], data: OwnLogData, env: OwnLogConfig, catalogue: Catalogue) -> OwnLog:
    """The decisions of ``paths`` as a log of the platform with these settings and items. Raises UserError."""
    shape = env.log_shape
    header = DecisionHeader(
        loggers=(),
        interface=interface_of(shape, catalogue),
        signals=shape.signals,
        platform=NAME,
        catalogue=catalogue_hash(catalogue),
    )
    files = LogFiles(tuple(paths), data.columns, data.separator, data.missing == "fill")
    return OwnLog(files, shape, catalogue, header)


@dataclass(frozen=True)
class OwnLogFile:
    """The world and the settings that a log brings (records.Brought)."""

    world: World
    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    home: Mapping[str, Any] = field(default_factory=dict)
    heldout_seed: int | None = None
    note: str = ""


def load_log(given: Mapping[str, Any]) -> OwnLogFile:
    """The platform of the log in the settings ``given``, by their own names.

    Raises UserError without a log, for a file that can't be read, and for several signals without weights.
    """
    paths = given.get("log")
    if not paths:
        raise UserError(
            "A log of your own needs its file and an algorithm that learns from it: give --log FILE and "
            "--algo bc, direct, reinforce, cql, bcq, iql or dt."
        )
    paths = (paths,) if isinstance(paths, str) else tuple(paths)
    columns = tuple(
        sorted((name.removesuffix("_column"), given[name]) for name in given if name.endswith("_column"))
    )
    weights = tuple(given.get("weights") or ())
    own = given.get("items")
    items = tuple(item_files(paths, own))
    stamps = tuple(_stamps(path) for path in (*paths, *items))
    if own is not None and any({*_stamps(own)} & {*of_log} for of_log in stamps[: len(paths)]):
        raise UserError(
            f"--items {own} is a file of --log, whose columns are not features of items: give a file with "
            "one row for each item, or leave --items out."
        )
    fill = given.get("missing") != "refuse"
    return _loaded(paths, stamps, columns, given.get("separator"), items, weights, fill, *_split(given))


def _split(given: Mapping[str, Any]) -> tuple[float, int]:
    """The share and the seed by which users are held out; the defaults for values that are refused later."""
    try:
        share = float(given.get("heldout_fraction") or DataConfig.heldout_fraction)
        seed = int(given.get("seed") or TrainConfig.seed)
    except (OverflowError, TypeError, ValueError):
        return DataConfig.heldout_fraction, TrainConfig.seed
    return (share if 0 < share < 1 else DataConfig.heldout_fraction), seed


def _stamps(path: str) -> tuple[tuple[str, int, int], ...]:
    """The files of ``path`` with their times and sizes, by which a file that was written again is seen."""
    files = [file for file in files_of(Path(path)) if file.exists()]
    return tuple((str(file), (facts := file.stat()).st_mtime_ns, facts.st_size) for file in files)


@functools.lru_cache(2)  # a run reads its platform at several places
def _loaded(
    paths: tuple[str, ...],
    stamps: tuple[tuple[tuple[str, int, int], ...], ...],
    columns: tuple[tuple[str, str | None], ...],
    separator: str | None,
    items: tuple[str, ...],
    weights: tuple[str, ...],
    fill: bool,
    heldout_fraction: float,
    seed: int,
) -> OwnLogFile:
    files = LogFiles(paths, dict(columns), separator, fill)
    overview = survey(files, lambda users: heldout_strangers(users, heldout_fraction, seed))
    facts = _facts(items, files.items, overview)
    source = " + ".join(Path(path).name for path in paths)
    ids, shares = overview.ids, overview.shares
    last = files.last_time if facts.clock == "time" else None
    encoding, merged = fitted(stock_items(ids, facts))
    share_of = dict(zip(ids, shares.tolist(), strict=True))
    # Features tell what the policy needs of an item; that it was there tells that it was not chosen.
    if encoding.knows_items or facts.clock:
        ids = tuple(sorted({*ids, *facts.ids}))
    chosen = stock_items(ids, facts, last)
    encoding, merged = fitted(chosen, facts.genres_column)
    shares = torch.tensor([share_of.get(item.id, 0.0) for item in chosen])
    catalogue = encoding.catalogue(chosen, shares, source, facts.clock)
    shape = dataclasses.replace(overview.shape, items=encoding)
    by = weights_of_signals(files.name, shape.signals, weights, FIELD)
    note = _note(overview, facts, catalogue, merged)
    return _brought(catalogue, paths[0], shape, shape_text(shape, by), note)


def _brought(catalogue: Catalogue, path: str, shape: LogShape, text: str, note: str = "") -> OwnLogFile:
    size = catalogue.embedding.shape[1]
    rows, nobody = torch.zeros(0, size), torch.zeros(0, dtype=torch.int64)
    return OwnLogFile(
        World(catalogue, Population(rows, rows, nobody, nobody, nobody)),
        {
            "data_config": {"data": path},
            "env_config": {
                "num_items": catalogue.num_items,
                "embedding_dim": size,
                "max_episode_steps": shape.session_length,
                "shape": text,
            },
            "model_config": {} if knows_items(catalogue) else {"head": "dense"},
            "agent_config": {"lr": SLATE_LR} if shape.slate_size > 1 else {},
        },
        note=note,
    )


def before_a_log(items: str, signals: Sequence[str], pieces: Sequence[Piece], slate_size: int) -> OwnLogFile:
    """The platform of a team that has no log yet, from the file of its ``items``.

    The items stand in the order that a log of all of them gives. Raises UserError for a file that can't be
    read, for fewer items than a slate has, and for names of signals that a log of them can't have.
    """
    check_signals("--signals", signals)
    facts = read_items(items, "item", True)
    ids, text_ids = ordered_ids(pl.Series(facts.ids, dtype=pl.String))
    facts = facts if text_ids else read_items(items, "item", False)
    chosen = stock_items(ids, facts)
    if len(chosen) < 2:
        raise UserError(f"{items} holds one item, so there is nothing to choose: give a file of several.")
    encoding = fitted(chosen, facts.genres_column)[0]
    catalogue = encoding.catalogue(chosen, torch.zeros(len(ids)), Path(items).name)
    shape = LogShape(tuple(pieces), tuple(signals), slate_size, LONGEST, True, items=encoding)
    interface_of(shape, catalogue)  # raises UserError
    return _brought(catalogue, items, shape, shape_text(shape, {}))


def _facts(paths: Sequence[str], own: TableFile | None, overview: Survey) -> ItemFacts:
    """The facts of the files of items, else of the log's ``own`` table of them.

    Raises UserError for an item of the log that the files lack.
    """
    facts = facts_of_items(paths, own, overview.shape.columns["item"], overview.text_ids)
    if not paths:
        return facts
    known = set(facts.ids)
    lacking = [str(name) for name in overview.ids if name not in known]
    if lacking:
        mend = "add them, or leave --items out to know all items by their ids"
        if all(path.endswith(ITEMS_OF) for path in paths):  # which is read by itself
            mend = "give --items FILE with them"
        names = " + ".join(map(one_line, paths))
        raise UserError(
            f"{names} lacks {amount(len(lacking), 'item')} of the log, as {listed(lacking[:3])}: {mend}."
        )
    return facts


def _note(overview: Survey, facts: ItemFacts, catalogue: Catalogue, merged: str) -> str:
    """Lines about the log and its items; ``merged``: about texts that have no code of their own."""
    several = overview.shape.session_length > 1
    lines = [
        *overview.notes,
        facts.note,
        f"{amount(catalogue.num_items, 'item')}, {_known_by(facts, catalogue)}",
        merged,
    ]
    never = len({*facts.ids} - {*overview.ids}) if knows_items(catalogue) or facts.clock else 0
    if never:
        lines.append(f"{never} of them no decision shows, and they can be chosen too")
    if several and not overview.shape.repeats:
        lines.append("no session shows an item twice, so the policy shows none twice")
    if not overview.has_users:
        by = "context" if overview.shape.pieces else "file and row"
        by_session = "session" in overview.shape.columns
        what = "sessions by the hash of their id" if by_session else f"decisions by the hash of their {by}"
        lines.append(f"no column of users: held out are {what}")
    return "\n".join(filter(None, lines))


def _known_by(facts: ItemFacts, catalogue: Catalogue) -> str:
    """The knowledge that a policy has of the items, in words."""
    if facts.embeddings:
        size = catalogue.embedding.shape[1]
        return f"known by embeddings of {size} numbers, which are used as they are"
    if knows_items(catalogue):
        names = [facts.genres_column] * bool(facts.genres) + sorted(facts.attributes)
        example = next((genres for genres in facts.genres.values() if len(genres) > 1), None)
        several = sum(len(genres) > 1 for genres in facts.genres.values())
        tags = f"; {several} have several values of {facts.genres_column}, as {listed(example or ())}"
        tags += " (in a text | , or ; separates them)"
        return f"known by their features: {listed(names)}{tags * bool(several)}"
    return "known by their ids alone: the head is dense, and no other item can be chosen"


def with_encoding(config: OwnLogConfig, encoding: ItemEncoding) -> OwnLogConfig:
    """The settings of the place with these encodings of its items."""
    shape = dataclasses.replace(config.log_shape, items=encoding)
    return dataclasses.replace(config, shape=shape_text(shape, config.weights))


# Chosen on logs that no benchmark shows (docs/log/2026-11.md); those of sessions as on a simulator. 2,500
# gradient steps of 128 decisions take some ten seconds of one core.
PRESETS: Mapping[str, Preset] = {
    "*": {
        # A row without a successor is an end: nothing says that the session would go on.
        "agent_config": {"gamma": 0.99, "bootstrap_time_limit": False},
        "train_config": {"total_timesteps": 320_000},
    },
    "bc": {"agent_config": {"lr": 0.01}},
    "reinforce": {"agent_config": {"lr": 0.01}},
    "cql": {"agent_config": {"alpha": 0.03, "tau": 0.05}},
    "bcq": {"agent_config": {"tau": 0.05}},
}


SLATE_LR = 0.001
"""Of learners from slates: each decision has a term for each place, and at 0.01 they learn its noise."""


def _judge(run: Any, path: Path) -> None:
    from recsys_rl.logs.judges.judge_own_log import judge_on_tables  # the estimators

    judge_on_tables(run, path)


def _estimates(path: Path, checkpoint: Any) -> dict[str, Any]:
    from recsys_rl.logs.judges.judge_own_log import print_estimates

    return print_estimates(path, checkpoint)


PLATFORM = Platform(
    OwnLogConfig,
    users=OwnLogUsers,
    data_config=OwnLogData,
    presets=PRESETS,
    file=WorldFile(
        (
            *("log", "weights", "items", "separator", "missing", "heldout_fraction", "seed"),
            *(f"{role}_column" for role in DecisionColumns().columns),
        ),
        load_log,
    ),
    tables=OwnTables(
        open_log=open_own_log,
        before_a_log=before_a_log,
        pieces=lambda config: config.log_shape.pieces,
        columns=lambda config: config.log_shape.columns,
        ranges=lambda config: config.log_shape.ranges,
        interface=lambda config, catalogue: interface_of(config.log_shape, catalogue),
        encoding=lambda config: config.log_shape.items,
        with_encoding=with_encoding,
        items_of_log=items_of_log,
        judge=_judge,
        estimates=_estimates,
    ),
    visit_pieces=VisitPieces(
        begin=_no_context,
        after=lambda config, catalogue, known, items, seen: known,
        pieces=lambda config, catalogue, known: known,
    ),
    question="What can be learned from a team's log of decisions, without any simulator?",
    example="--algo reinforce --log clicks.csv",
)
