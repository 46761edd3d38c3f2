"""The log of `recsys-rl ope` with its catalogue and its rewards: recorded, people's own, or public."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.checkpoint.home import load_at_home
from recsys_rl.data.catalogue_hash import catalogue_hash
from recsys_rl.data.tables.items import ItemFacts, catalogue_of_items, knows_items
from recsys_rl.data.tables.read import is_own
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.errors import one_line
from recsys_rl.evaluation.players import Table
from recsys_rl.evaluation.policies import Behaviours
from recsys_rl.logs.checks import check_catalogue
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.decision_table import DecisionTable
from recsys_rl.logs.ope.config import OpeConfig
from recsys_rl.logs.ope.item_models import MOST_ITEMS
from recsys_rl.logs.ope.lower import Bounds
from recsys_rl.logs.ope.part import (
    PER_SECOND,
    Parts,
    about_tables,
    answered,
    begun_since,
    end_of_learning,
    heldout,
    judged_parts,
    later,
    start_of,
)
from recsys_rl.logs.ope.place import Recoded, challenger_of, check_place
from recsys_rl.logs.ope.reward_bounds import bounds_of_sum, reward_bounds
from recsys_rl.logs.ope.unknown import Knowing, with_unknown
from recsys_rl.logs.own_log import OwnLog
from recsys_rl.logs.parts import sampled, with_propensities
from recsys_rl.logs.public import LOGS
from recsys_rl.logs.reader import header_of_log
from recsys_rl.logs.rewards import (
    Rewards,
    has_signals,
    of_platform,
)
from recsys_rl.logs.source import LogSource, open_log, over_log
from recsys_rl.logs.users.from_log import of_learned
from recsys_rl.logs.users.platform import LearnedUsers
from recsys_rl.objective.weighted import check_weights, parse_weights, stream_weights
from recsys_rl.session import PIECES
from recsys_rl.settings.fields import check_used, did_you_mean
from recsys_rl.settings.names import DEFAULT_ALGO
from recsys_rl.training.latest import print_latest
from recsys_rl.types import Catalogue, Interface, UserError
from recsys_rl.utils.progress import announce
from recsys_rl.utils.seeding import generators

STREAMS = ("evaluation users", "policy", "random", "mixture", "ope", "world", "propensities", "clusters")
FITTED = 262_144  # rows of a recorded log on which models are fitted: all rows, or a sample of sessions
FITTED_OWN = 65_536  # the same of people's own tables with propensities: a training may hold its part of them
PART = 65_536  # rows of a part of a larger log
PROBABILITIES = "your own may have a column probabilities, of every item"
HELDOUT_OF_NOBODY = (
    "--users heldout needs a checkpoint, whose training left users out: give --checkpoint FILE, or leave it "
    "out."
)
TABLE_OPTIONS = ("items", "separator")  # beside those of columns


@dataclass(frozen=True)
class ReadLog:
    """A log, and what is known of it beside its rows."""

    log: DecisionLog  # a sample of it, where it has more than FITTED rows
    catalogue: Catalogue
    rewards: Rewards
    streams: Mapping[str, torch.Generator]
    table: DecisionTable | None = None  # what people's own file has beside the log
    checkpoint: str | None = None  # its file
    behaviours: Behaviours | None = None  # the policies of the checkpoint
    others: tuple[Behaviours, ...] = ()  # of further checkpoints, which may have made the log
    versions: Mapping[str, Behaviours] = field(default_factory=dict)  # by the files of OpeConfig.versions
    parts: Callable[[], Iterator[DecisionLog]] | None = None  # None: ``log`` is the whole
    by_item: bool = False  # a reward model has coefficients of each item (logs/ope/item_models.py)
    bounds: Bounds | None = None  # between which each reward of a decision lies; None if unknown
    known: Tensor | None = None  # (I,) bool: the items that the checkpoints know (unknown.py); None: all
    left_out: int = 0  # sessions without enough known items


def read_log(options: OpeConfig) -> ReadLog:
    """The log of --log. Raises UserError for a file or options that don't fit it."""
    public = options.source in LOGS
    own = not public and is_own(options.log)
    _check_options(options, public, own)
    if public or (own and options.checkpoint is None):
        folders = options.data_dir, options.cache_dir
        return _of_table(options, open_log(options.log, None, options, options.items, folders), own)
    return _of_own_tables(options) if own else _of_recorded(options)


def _of_own_tables(options: OpeConfig) -> ReadLog:
    """People's own tables, judged by checkpoints whose policies learned from such tables."""
    files = _checkpoints(options)
    source = _opened(options, files)
    known, strange = None, source.unknown_items
    if strange:
        own = next(iter(files.values())).catalogue.num_items
        files = {file: with_unknown(checkpoint, strange) for file, checkpoint in files.items()}
        source = _opened(options, files)
        known = torch.arange(source.catalogue.num_items) < own
    every, left_out = [*files.values()], 0
    rows: Parts = partial(judged_parts, source, every, PART, end_of_learning(options, source, every))
    rows = every_row = _judged_on(options, rows, every, PER_SECOND)
    if known is not None:
        rows, left_out = answered(rows, source.catalogue, known)
    log, parts = _sampled(options, rows, FITTED_OWN if source.has_propensities else FITTED)
    all_judged = [log] if parts is None and not left_out else every_row()
    for note in about_tables(source, every, all_judged, options.since):
        announce(note)
    return replace(_by_checkpoint(options, log, files, True, known), parts=parts, left_out=left_out)


def _opened(options: OpeConfig, files: Mapping[str, Checkpoint]) -> OwnLog:
    """The log as the first of the checkpoints reads it."""
    source = open_log(options.log, next(iter(files.values())), options)
    assert isinstance(source, OwnLog)
    return source


def _of_recorded(options: OpeConfig) -> ReadLog:
    """A log of `recsys-rl record` or of a server."""
    source = open_log(options.log)
    by_checkpoint = source.header.platform or options.checkpoint is not None
    files = _checkpoints(options, source.header.platform) if by_checkpoint else {}
    rows: Parts = partial(source.parts, PART)
    if source.header.applications:
        rows, note = with_propensities(source.name, source.header, rows)
        if note:
            print(note, file=sys.stderr)
    log, parts = _sampled(options, _judged_on(options, rows, [*files.values()]), FITTED)
    _refuse_without_support(options.source, log)
    if files:
        read = _by_checkpoint(options, log, files, own=False)
    else:
        read = _of_signals(options, log, source, _bare_catalogue(options.source, log))
    return replace(read, parts=parts)


def _check_options(options: OpeConfig, public: bool, own: bool) -> None:
    """Raise UserError for options that have no effect on this kind of log, or lack the checkpoint."""
    source, checkpoint = options.source, options.checkpoint
    if len(options.log) > 1 and not own:
        raise UserError(
            f"{source}: several logs are read together only if they are tables of your own: give one, or a "
            "folder with the parts of one."
        )
    if not public and len(options.log) == 1 and not Path(options.log[0]).exists() and not Path(source).suffix:
        raise UserError(
            f"Log {source} was not found{did_you_mean(source, LOGS)}: choose {', '.join(LOGS)}, or give a "
            "file."
        )
    of_tables = {f"{name}_column": value is not None for name, value in options.columns.items()}
    of_tables |= {name: getattr(options, name) is not None for name in TABLE_OPTIONS}
    of_tables["missing"] = options.missing == "refuse"
    other, recorded = "only for a log of your own", "only for a log of recsys-rl record"
    check_used(
        ("checkpoint", public and checkpoint is not None, f"{source} has no policy of a checkpoint"),
        ("data_dir", not public and options.data_dir is not None, f"only for {', '.join(LOGS)}"),
        ("logger", bool(options.logger) and (public or own), f"{recorded}; {PROBABILITIES}"),
        *((name, given and not own, other) for name, given in of_tables.items()),
    )
    if options.logger and checkpoint is None and not header_of_log(Path(options.log[0])).platform:
        raise UserError("--logger needs --checkpoint FILE, with the catalogue of the log: give both.")
    if options.users == "heldout" and checkpoint is None and (public or own):
        raise UserError(HELDOUT_OF_NOBODY)


def _checkpoints(options: OpeConfig, platform: str = "") -> dict[str, Checkpoint]:
    """The checkpoint that brings the items, and those of policies, by their files."""
    path = options.checkpoint or f"checkpoints/{DEFAULT_ALGO}.pt"
    return {
        file: over_log(load_at_home(file, options.env, platform), options.log, options.items)
        for file in (path, *options.versions)
    }


def _judged_on(
    options: OpeConfig, rows: Parts, checkpoints: Sequence[Checkpoint], per_second: float | None = None
) -> Parts:
    """The decisions of --users and --since; ``per_second``: as of ``later``."""
    if options.users == "heldout":
        if not checkpoints:
            raise UserError(HELDOUT_OF_NOBODY)
        rows = heldout(rows, checkpoints)
    return rows if options.since is None else later(rows, options.since, per_second)


def _sampled(options: OpeConfig, rows: Parts, most: int) -> tuple[DecisionLog, Parts | None]:
    """The log as of ``sampled``, and its parts if that is not the whole. Raises UserError for none."""
    logs = rows()
    first = next(logs, None)
    if first is None:
        raise _no_session(options)
    log, complete = sampled(chain([first], logs), most, generators(options.seed, "sample")["sample"])
    return log, None if complete else rows


def _no_session(options: OpeConfig) -> UserError:
    """The error of a log of which --users and --since leave nothing."""
    whose = " of users who were held out from training" if options.users == "heldout" else ""
    since = "" if options.since is None else f" that began at {one_line(options.since)} or later"
    return UserError(f"{options.source} holds no session{whose}{since}, so nothing here can judge a policy.")


def _of_table(options: OpeConfig, source: LogSource, own: bool) -> ReadLog:
    """People's own table, or a public log, from --since on."""
    table = source.table
    assert table is not None
    for note in table.notes:
        print(one_line(note), file=sys.stderr)
    if options.since is not None:
        per_second = PER_SECOND if own else None
        table = table.part(begun_since(table.log, start_of(options.since), options.since, per_second))
        if not table.log.num_rows:
            raise _no_session(options)
    return _of_signals(options, table.log, source, table.catalogue, table)


def _refuse_without_support(name: str, log: DecisionLog) -> None:
    """Raise UserError for a log that LinUCB made alone."""
    if log.header.loggers == ("linucb",):
        raise UserError(
            f"{name} was logged by linucb, which chooses without chance, so that it holds no answer to any "
            "other choice: record lints, or linucb with --mix random --epsilon 0.2."
        )


def _bare_catalogue(name: str, log: DecisionLog) -> Catalogue:
    """The catalogue of a log in our format without a checkpoint: only the numbers of its items are known."""
    derived = [name for name, _ in log.header.interface.context if name in PIECES and name not in log.given]
    if set(derived) & {"last_item", "streak"}:
        raise UserError(
            f"{name} needs the embeddings of the items for its observations ({derived[0]}): give "
            "--checkpoint FILE with their catalogue."
        )
    number = log.header.num_items
    shares = log.items[log.items >= 0].bincount(minlength=number).float() / log.num_rows
    return catalogue_of_items(range(number), ItemFacts(), shares, name)


def _of_signals(
    options: OpeConfig,
    log: DecisionLog,
    source: LogSource,
    catalogue: Catalogue,
    table: DecisionTable | None = None,
) -> ReadLog:
    """A log without a checkpoint: its streams are its signals, summed over the places of a slate."""
    others = [name for name in options.table_policies if name != "random"]
    if others:
        raise UserError(
            f"Policy {others[0]!r} needs a log with a checkpoint: on {options.source}, judge "
            "--target FILE with your policy's probabilities, or --policy random."
        )
    if options.target is None and not options.table_policies:
        raise UserError(
            f"No policy to judge on {options.source}: give --target FILE with your policy's probabilities (a "
            "row for each row of the log, column propensity), or --policy random."
        )
    rewards = source.rewards(options.weights)
    by = dict(zip(rewards.names, rewards.weights.tolist(), strict=True))
    bounds = bounds_of_sum(log, by, rewards(log.feedback), {})
    return ReadLog(log, catalogue, rewards, generators(options.seed, *STREAMS), table, bounds=bounds)


def _by_checkpoint(
    options: OpeConfig,
    log: DecisionLog,
    files: Mapping[str, Checkpoint],
    own: bool,
    known: Tensor | None = None,
) -> ReadLog:
    """A log of the items of the first checkpoint of ``files``; ``known`` as in ReadLog.

    Raises UserError for a log of other items, sessions or signals, and for a policy of others.
    """
    path, checkpoint = next(iter(files.items()))
    if checkpoint.world.is_empty:
        raise UserError(f"{path} is of {checkpoint.config.env}, which has no catalogue of items.")
    if not own:
        source = f"--data {checkpoint.config.data_config.data} --seed {checkpoint.config.train_config.seed}"
        check_catalogue(options.source, log.header, checkpoint.catalogue, source)
    generator = generators(options.seed, *STREAMS)
    other = UserError(
        f"{options.source} was logged in other sessions than those of {path} (platform, length, or pieces of "
        "the context): give the checkpoint of the same settings."
    )
    behaviours = _behaviours(options, checkpoint, log.header.interface, generator, other, known)
    env = behaviours.env
    facts = env.user_model.facts if isinstance(env.user_model, LearnedUsers) else None
    if facts is None and not has_signals(log.header, env.user_model):
        names = [signal.name for signal in env.signals]
        raise UserError(
            f"{options.source} has the signals {', '.join(log.header.signals)}, but the rewards of "
            f"{checkpoint.config.env} are made of {', '.join(names)}: write them in this order."
        )
    given = parse_weights(options.weights, "weights")
    check_weights(given, env.streams if facts is None else facts.streams, "weights")
    by = stream_weights(env.streams, given)
    # Learned users are judged on the log of their platform too.
    of = of_platform(log.header, env.user_model, by)
    rewards = of if facts is None else of_learned(facts, log.header, given)
    print_latest(path, checkpoint)
    versions = {path: behaviours} | {
        file: _version(options, file, other, behaviours, generator, known)
        for file, other in files.items()
        if file != path
    }
    others = (*_others(options, log, generator), *list(versions.values())[1:])
    catalogue = checkpoint.catalogue
    by_item = not checkpoint.config.platform.simulates and log.items.shape[1] == 1
    by_item = by_item and not knows_items(catalogue) and catalogue.num_items <= MOST_ITEMS
    single = facts is None and log.header.interface.session_length == 1
    bounds = None
    if single:  # as each checkpoint knows the ranges of signals
        ends = {reward_bounds(log, of.checkpoint.config, of.env.user_model, by) for of in versions.values()}
        bounds = next(iter(ends)) if len(ends) == 1 else None
    return ReadLog(
        log,
        catalogue,
        rewards,
        generator,
        checkpoint=path,
        behaviours=behaviours,
        others=others,
        versions=versions,
        by_item=by_item,
        bounds=bounds,
        known=known,
    )


def _version(
    options: OpeConfig,
    file: str,
    checkpoint: Checkpoint,
    base: Behaviours,
    generator: dict[str, torch.Generator],
    known: Tensor | None,
) -> Behaviours:
    """The policies of a further checkpoint. Raises UserError for other items or sessions than of ``base``."""
    mine, theirs = base.checkpoint, checkpoint
    own = mine.config.platform.tables is not None
    texts = ", or knows other texts of its contexts" if own else ""
    other = UserError(
        f"{file} is of another catalogue or of other sessions than {options.checkpoint}{texts}: compare "
        "checkpoints of the same items and settings of the platform"
        + (", as --checkpoint of recsys-rl train brings them." if own else ".")
    )
    if theirs.world.is_empty:
        raise other
    if own:
        try:
            check_place(Path(file), theirs, mine)
        except UserError as error:
            raise other from error
    elif catalogue_hash(mine.catalogue) != catalogue_hash(theirs.catalogue):
        raise other
    like = challenger_of(theirs, mine) if own else None
    recoded = like if isinstance(like, Recoded) else None
    return _behaviours(options, theirs, base.env.interface, generator, other, known, recoded)


def _others(
    options: OpeConfig, log: DecisionLog, generator: dict[str, torch.Generator]
) -> tuple[Behaviours, ...]:
    """The policies of the checkpoints of --logger. Raises UserError for one that can't be the log's."""
    behaviours = []
    for path in options.logger:
        checkpoint = over_log(load_at_home(path, options.env, log.header.platform), options.log)
        other = UserError(
            f"--logger {path} is of another catalogue or of other sessions than {options.source}: give the "
            "checkpoint of the policy that made the log."
        )
        if checkpoint.world.is_empty or log.header.catalogue != catalogue_hash(checkpoint.catalogue):
            raise other
        behaviours.append(_behaviours(options, checkpoint, log.header.interface, generator, other))
    return tuple(behaviours)


def _behaviours(
    options: OpeConfig,
    checkpoint: Checkpoint,
    interface: Interface,
    generator: dict[str, torch.Generator],
    other: UserError,
    known: Tensor | None = None,
    recoded: Recoded | None = None,
) -> Behaviours:
    """The policies of a checkpoint, which choose among the items that they know.

    ``recoded``: how they read a log of another encoding. Raises ``other`` if the sessions have another
    interface.
    """
    users, cpu = checkpoint.population.heldout[:1], torch.device("cpu")
    table = Table(checkpoint.config, checkpoint.world, users, options.seed, cpu, generator)
    env = table.env()
    if not isinstance(env, RecEnv) or env.interface != interface:
        raise other
    reading = None
    if known is not None or recoded is not None:
        reading = partial(_reading, known=known, recoded=recoded, places=interface.slate_size)
    return Behaviours(checkpoint, table, env, options.cache_dir, reading)


def _reading(agent: Any, known: Tensor | None, recoded: Recoded | None, places: int) -> Any:
    """The agent of a checkpoint, as it reads the log; ``places``: K."""
    agent = agent if recoded is None else replace(recoded, policy=agent)
    return agent if known is None else Knowing(agent, known, places)
