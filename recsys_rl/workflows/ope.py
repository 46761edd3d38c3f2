"""Estimate from a log of decisions the return that a policy would have earned."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint, load
from recsys_rl.data import LOGS
from recsys_rl.decisions.checks import check_catalogue
from recsys_rl.decisions.log import DecisionLog, catalogue_hash
from recsys_rl.decisions.parts import read_decisions
from recsys_rl.decisions.reader import has_header
from recsys_rl.decisions.table import OwnLog, read_own
from recsys_rl.decisions.table_catalogue import own_catalogue
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.errors import one_line
from recsys_rl.evaluation.behaviours import Behaviours
from recsys_rl.evaluation.players import Table
from recsys_rl.files.items import ItemFacts
from recsys_rl.lookup import DEFAULT_ALGO
from recsys_rl.objective.weighted import check_weights, parse_weights, stream_weights, weighted
from recsys_rl.ope.logged import Prepared, prepare
from recsys_rl.ope.printing import print_result
from recsys_rl.ope.propensities import with_propensities
from recsys_rl.schema import did_you_mean
from recsys_rl.session import PIECES
from recsys_rl.types import Catalogue, Feedback, Stream, UserError
from recsys_rl.utils.files import check_writable, write_text
from recsys_rl.utils.find import find
from recsys_rl.utils.progress import announce
from recsys_rl.utils.seeding import generators
from recsys_rl.workflows.latest import print_latest
from recsys_rl.workflows.ope_bench import Bench, Rewards
from recsys_rl.workflows.ope_config import OpeConfig
from recsys_rl.workflows.ope_errors import errors_of
from recsys_rl.workflows.ope_result import result_of

STREAMS = ("evaluation users", "policy", "random", "mixture", "ope", "propensities", "clusters")
MOST_VALUES = 100  # of the piece of --q-by
OWN_OPTIONS = ("items", "separator")  # beside those of columns


def ope(options: OpeConfig) -> dict[str, Any]:
    """Judge the policies, print the table, and write the JSON file. Returns its content.

    Raises UserError for a file or a policy that can't be used.
    """
    if options.log is None:
        raise UserError("The log is missing: give --log FILE.")
    if options.json is not None:
        check_writable(Path(options.json), "--json")
        for given in (options.log, options.checkpoint, options.target, options.items, *options.logger):
            if given is not None and Path(options.json).resolve() == Path(given).resolve():
                raise UserError(f"--json {options.json} is a file that is read: give another name.")
    if options.threads:
        torch.set_num_threads(options.threads)
    announce(f"reading {one_line(options.log)}")
    result = result_of(make_bench(options))
    print_result(result)
    if options.json is not None:
        write_text(Path(options.json), json.dumps(result, indent=1, allow_nan=False) + "\n")
    return result


def make_bench(options: OpeConfig) -> Bench:
    """The log with its catalogue and its rewards: of a checkpoint, or people's own."""
    assert options.log is not None
    if options.log in LOGS:
        return _public_bench(options, options.log)
    if options.data_dir is not None:
        raise UserError(
            f"--data-dir is for a public log ({', '.join(LOGS)}), and {options.log} is a file: leave it out."
        )
    if not Path(options.log).exists() and not Path(options.log).suffix:
        raise UserError(
            f"There is no log {options.log}{did_you_mean(options.log, LOGS)}: choose {', '.join(LOGS)}, or "
            "give a file."
        )
    if not has_header(options.log):
        _refuse_logger(options)
        if options.checkpoint is not None:
            raise UserError(
                f"{options.log} is no log of recsys-rl record, so --checkpoint does not fit it: leave it out."
            )
        own = read_own(options.log, options.columns, options.separator, options.items)
        for note in own.notes:
            print(one_line(note), file=sys.stderr)
        return _own_bench(options, own.log, own.catalogue, own)
    _refuse_own_options(options, f"{options.log} has the columns of ours")
    log = read_decisions(options.log)
    if log.header.platform or options.checkpoint is not None:
        return _checkpoint_bench(options, log)
    if options.logger:
        raise UserError("--logger needs --checkpoint FILE, with the catalogue of the log: give both.")
    return _own_bench(options, log, _bare_catalogue(options.log, log), None)


def _public_bench(options: OpeConfig, name: str) -> Bench:
    """A log of data.LOGS."""
    if options.checkpoint is not None:
        raise UserError(f"--log {name} has no policy of a checkpoint: leave --checkpoint out.")
    _refuse_logger(options)
    _refuse_own_options(options, f"{name} has its own columns")
    load_log: Callable[[str | None, str | None], OwnLog] = find(LOGS[name], "--log")
    own = load_log(options.data_dir, options.cache_dir)
    return _own_bench(options, own.log, own.catalogue, own)


def _refuse_logger(options: OpeConfig) -> None:
    if options.logger:
        raise UserError(
            f"--logger is for a log of recsys-rl record, and {options.log} is none: leave it out. Your own "
            "log may hold the logger's probability of every item in a column probabilities."
        )


def _refuse_own_options(options: OpeConfig, why: str) -> None:
    given = [f"{name}-column" for name, value in options.columns.items() if value is not None]
    given += [name for name in OWN_OPTIONS if getattr(options, name) is not None]
    if given:
        raise UserError(f"--{given[0]} is for your own log, and {why}.")


def _bare_catalogue(name: str, log: DecisionLog) -> Catalogue:
    """The catalogue of a log in our format without a checkpoint: only the numbers of its items are known."""
    derived = [x for x, _ in log.header.interface.context if x in PIECES and x not in log.handed]
    if set(derived) & {"last_item", "streak"}:
        raise UserError(
            f"{name} needs the embeddings of the items for its observations ({derived[0]}): give "
            "--checkpoint FILE with their catalogue."
        )
    number = log.header.num_items
    shares = log.items[log.items >= 0].bincount(minlength=number).float() / log.num_rows
    return own_catalogue(range(number), ItemFacts(), shares, name)


def _own_bench(options: OpeConfig, log: DecisionLog, catalogue: Catalogue, own: OwnLog | None) -> Bench:
    """A log without a checkpoint: its streams are its signals, summed over the places of a slate."""
    others = [name for name in options.table_policies if name != "random"]
    if others:
        raise UserError(
            f"There is no policy {others[0]!r} without a checkpoint of its own: of {options.log}, judge "
            "--target FILE with your policy's probabilities, or --policy random."
        )
    if options.target is None and not options.table_policies:
        raise UserError(
            f"No policy to judge on {options.log}: give --target FILE with your policy's probabilities (a "
            "row for each row of the log, column propensity), or --policy random."
        )
    given = parse_weights(options.weights, "weights")
    names = log.header.signals
    if len(names) > 1 and not given:
        raise UserError(
            f"{options.log} has the signals {', '.join(names)}: say what counts, as in --weights "
            f"{names[0]}=1."
        )
    streams = tuple(Stream(name, 0.0 if given else 1.0) for name in names)
    check_weights(given, streams, "weights")
    by = stream_weights(streams, given)

    def rewards(feedback: Feedback) -> Tensor:
        return weighted(feedback.signals.sum(1), by)  # (E,)

    return _bench(options, log, catalogue, rewards, None, own)


def _checkpoint_bench(options: OpeConfig, log: DecisionLog) -> Bench:
    path = options.checkpoint or f"checkpoints/{DEFAULT_ALGO}.pt"
    checkpoint = load(path, options.env)
    if checkpoint.world.is_empty:
        raise UserError(f"{path} is of {checkpoint.config.env}, which has no catalogue of items.")
    assert options.log is not None
    source = f"--data {checkpoint.config.data_config.data} --seed {checkpoint.config.train_config.seed}"
    check_catalogue(options.log, log, checkpoint.catalogue, source)
    generator = generators(options.seed, *STREAMS)
    table = _table(options, checkpoint, generator)
    env = table.env()
    assert isinstance(env, RecEnv)
    if log.header.interface != env.interface:
        raise UserError(
            f"{options.log} was logged in other sessions than those of {path} (platform, length, or pieces "
            "of the context): give the checkpoint of the same settings."
        )
    known = tuple(signal.name for signal in env.signals)
    if log.header.signals != known:
        raise UserError(
            f"{options.log} has the signals {', '.join(log.header.signals)}, but the rewards of "
            f"{checkpoint.config.env} are made of {', '.join(known)}: write them in this order."
        )
    given = parse_weights(options.weights, "weights")
    check_weights(given, env.streams, "weights")
    by = stream_weights(env.streams, given)

    def rewards(feedback: Feedback) -> Tensor:
        return weighted(env.user_model.rewards(feedback), by)  # (E,)

    print_latest(path, checkpoint)
    behaviours = Behaviours(checkpoint, table, env, options.cache_dir)
    bench = _bench(options, log, checkpoint.catalogue, rewards, behaviours, None, generator, path)
    return dataclasses.replace(bench, others=_others(options, log, generator))


def _others(
    options: OpeConfig, log: DecisionLog, generator: dict[str, torch.Generator]
) -> tuple[Behaviours, ...]:
    """The policies of the checkpoints of --logger. Raises UserError for one that can't be the log's."""
    found = []
    for path in options.logger:
        checkpoint = load(path, options.env)
        other = UserError(
            f"--logger {path} is of another catalogue or of other sessions than {options.log}: give the "
            "checkpoint of the policy that made the log."
        )
        if checkpoint.world.is_empty or log.header.catalogue != catalogue_hash(checkpoint.catalogue):
            raise other
        table = _table(options, checkpoint, generator)
        env = table.env()
        assert isinstance(env, RecEnv)
        if env.interface != log.header.interface:
            raise other
        found.append(Behaviours(checkpoint, table, env, options.cache_dir))
    return tuple(found)


def _table(options: OpeConfig, checkpoint: Checkpoint, generator: dict[str, torch.Generator]) -> Table:
    users = checkpoint.population.heldout[:1]
    return Table(checkpoint.config, checkpoint.world, users, options.seed, torch.device("cpu"), generator)


def _check_logistic(name: str | None, log: DecisionLog, rewards: Tensor) -> None:
    """Raise UserError where a logistic regression can't predict the rewards (E,) or their sums."""
    wrong = (rewards < 0) | (rewards > 1)
    if bool(wrong.any()):
        raise UserError(
            f"{one_line(name)} has the reward {float(rewards[wrong][0]):g}, but --q logistic predicts "
            "numbers in 0..1: give --q ridge or mlp."
        )
    if int(log.steps.max()) > 0:
        raise UserError(
            f"{one_line(name)} has sessions of several steps, whose rewards add up, but --q logistic "
            "predicts numbers in 0..1: give --q ridge or mlp."
        )


def _check_q_by(options: OpeConfig, prepared: Prepared) -> None:
    """Raise UserError unless the log has the piece of --q-by, with few values, in sessions of one step."""
    name, features = str(options.q_by), prepared.features
    columns = features.columns_of(name)
    if columns is None:
        known = [x for x, _ in features.interface.context if features.columns_of(x) is not None]
        mend = f"choose one of {', '.join(known)}" if known else "leave it out"
        raise UserError(
            f"--q-by {name} is not a piece of the context of {one_line(options.log)}"
            f"{did_you_mean(name, known)}: {mend}."
        )
    if prepared.grid.shape[1] > 1:
        raise UserError(
            f"{one_line(options.log)} has sessions of several steps, and --q-by is for sessions of one step: "
            "leave it out."
        )
    values = len(prepared.rows[:, columns].unique(dim=0))
    if values > MOST_VALUES:
        raise UserError(
            f"{name} has {values:,} values in {one_line(options.log)}, and --q-by fits a model for each: "
            f"choose a piece with at most {MOST_VALUES} values."
        )


def _bench(
    options: OpeConfig,
    log: DecisionLog,
    catalogue: Catalogue,
    rewards: Rewards,
    behaviours: Behaviours | None,
    own: OwnLog | None,
    generator: dict[str, torch.Generator] | None = None,
    checkpoint: str | None = None,
) -> Bench:
    generator = generator or generators(options.seed, *STREAMS)
    earned = rewards(log.feedback)  # (E,)
    if options.q == "logistic":
        _check_logistic(options.log, log, earned)
    fitted = None
    with errors_of(options.log, own):
        if not log.has_propensities:
            log, fitted = with_propensities(log, catalogue, generator["propensities"])
        prepared = prepare(log, catalogue, earned, options.discount, generator["ope"])
    if options.q_by is not None:
        _check_q_by(options, prepared)
    return Bench(options, prepared, rewards, behaviours, generator, fitted, own, checkpoint)
