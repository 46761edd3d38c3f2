"""Learn users from a log of decisions: an ensemble of networks in one file, and a report on them."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recsys_rl.data.catalogue_hash import catalogue_hash
from recsys_rl.data.tables.columns import log_name
from recsys_rl.data.tables.frames import with_files
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.experience.logged import MOST_ROWS
from recsys_rl.logs.users.file import LearnedFile, load_users, save_users
from recsys_rl.logs.users.fit import FitSizes, UserFitting
from recsys_rl.logs.users.fit_report import fit_report, print_fit_report
from recsys_rl.logs.users.fit_users_config import FitUsersConfig as FitUsersConfig
from recsys_rl.logs.users.fit_users_log import LogToFit, log_to_fit
from recsys_rl.logs.users.from_log import (
    Learnable,
    facts_of,
    learnable,
    sessions_of,
    split_sessions,
)
from recsys_rl.logs.users.inputs import context_sizes, item_tables
from recsys_rl.logs.users.item_means import item_means
from recsys_rl.logs.users.network import UserNetwork
from recsys_rl.logs.users.session_table import SessionTable, session_table
from recsys_rl.logs.users.signals import are_binary, kinds_of
from recsys_rl.make import make_env
from recsys_rl.protocols import UserModel
from recsys_rl.settings.config import Config, to_dict
from recsys_rl.settings.fields import check_used
from recsys_rl.types import UserError, World
from recsys_rl.utils.files import check_writable, write_text
from recsys_rl.utils.progress import announce, counted
from recsys_rl.utils.seeding import generators
from recsys_rl.utils.stopping import stop_signals

CHECKED = 0.1  # share of the users that decide which epoch of a member is kept


class Interrupted(Exception):
    """The fit stopped after a request, and its file is written."""


@dataclass
class Fit:
    """A fit under way."""

    file: LearnedFile
    fitting: UserFitting
    held: SessionTable  # the sessions of the report
    users: UserModel | None  # the true simulator
    all_signals: SessionTable | None  # the sessions of the report as the simulator needs them


def fit_users(options: FitUsersConfig | None = None, **settings: Any) -> dict[str, Any]:
    """Learn users from a log, write them to ``out``, and print the report.

        fit_users(log="log.parquet", checkpoint="checkpoints/ppo.pt", out="users.pt")

    ``log`` may be a data frame in place of a path, or a list of these.

    Returns: the report (logs/users/fit_report.py), as ``--json`` writes it. Raises UserError for a log or a
    checkpoint that can't be used. Raises Interrupted after Ctrl-C, SIGTERM or SIGHUP, when the file is
    written.
    """
    with with_files(settings) as known:
        return _fitted(dataclasses.replace(options or FitUsersConfig(), **known))


def _fitted(options: FitUsersConfig) -> dict[str, Any]:
    out = Path(options.out)
    _check_outputs(options, out)
    if options.threads:
        torch.set_num_threads(options.threads)
    before = _before(options, out)
    fit = begin(options)
    if before is not None:
        _restore(fit, before, options)
    _go_on(fit, options, out)
    report = fit_report(fit.file, fit.held, fit.fitting.fitted, fit.users, fit.all_signals)
    if not options.quiet:
        print(f"users: {out}", file=sys.stderr)
        print_fit_report(report)
    if options.json is not None:
        write_text(Path(options.json), json.dumps(report, indent=1) + "\n")
    return report


def begin(options: FitUsersConfig) -> Fit:
    """Read log, items and users, and make the networks. Raises UserError."""
    read, config, note = log_to_fit(options, MOST_ROWS)
    if note and not options.quiet:
        announce(note)
    fit = begin_fit(options, read, options.seed)
    # Of users whom the population lacks, this seed says who is held out.
    info = {**fit.file.info, "heldout_seed": config.train_config.seed, "home": _home(read, config)}
    return dataclasses.replace(fit, file=dataclasses.replace(fit.file, info=info))


def _home(read: LogToFit, config: Config) -> dict[str, Any]:
    """The log's platform with its settings, for policies that are trained in the users; {} if unknown."""
    log = read.log
    if not log.header.platform or make_env(config, read.world, 1).interface != log.header.interface:
        return {}
    home = {"env": config.env, "env_config": to_dict(config.env_config)}
    if config.platform.data_config is not None:  # no source of data has these settings
        home["data_config"] = to_dict(config.data_config)
    return home


def begin_fit(options: FitUsersConfig, read: LogToFit, seed: int = 0) -> Fit:
    """A new fit of ``options`` to a log that has been read. Raises UserError."""
    log, world, users = read.log, read.world, read.users
    name = " + ".join(Path(log_name(path)).name for path in options.log) or "the log"
    streams = generators(seed, "split", "networks", "order", "parts")
    what = learnable(name, log, users, read.weights)
    facts = dataclasses.replace(facts_of(name, log, what), catalogue=catalogue_hash(world.catalogue))
    parts = _parts(options, name, log, read.known, what, streams["split"])
    inner, checked = split_sessions(parts.fitted, "users", CHECKED, streams["split"])
    # A signal that is 0 and 1 in the part to learn from may have other values in the part of the report.
    binary = are_binary(torch.cat([_seen(parts.fitted)[0], _seen(parts.held)[0]]))
    kinds = kinds_of(*_seen(parts.fitted), binary)
    sizes = context_sizes(facts.interface, facts.given, world.catalogue)
    learned_from = parts.fitted.rows(inner)
    means = item_means(learned_from, world.catalogue.num_items, streams["parts"])
    tables = item_tables(world.catalogue, means.all)
    of_parts = [item_tables(world.catalogue, mean).columns for mean in means.others]
    members = tuple(UserNetwork(tables, sizes, kinds, streams["networks"]) for _ in range(options.members))
    fitting = UserFitting(
        members,
        learned_from,
        parts.fitted.rows(checked),
        FitSizes(epochs=options.epochs),
        streams["order"],
        of_parts,
        means.fold,
    )
    own = {name: getattr(options, name) for name in _OF_FIT}
    info = {
        "log": read.fingerprint.hex(),
        "settings": {**own, "weights": list(options.weights), "seed": seed},
    }
    file = LearnedFile(facts, world, members, means.all, read.data_config, {}, info)
    return Fit(file, fitting, parts.held, users, _all_signals(parts, log, users, world))


class _Parts(NamedTuple):
    """The sessions of a log, in two parts."""

    fitted: SessionTable
    held: SessionTable  # those of the report
    reported: DecisionLog  # decisions with those of the report
    rows: Tensor | None  # (B,) int64: the sessions of the report among those of ``reported``; None: all


def _parts(
    options: FitUsersConfig,
    name: str,
    log: DecisionLog,
    known: Tensor,
    what: Learnable,
    generator: torch.Generator,
) -> _Parts:
    """The sessions to learn from and those of the report. ``known`` as in ``begin_fit``. Raises UserError."""
    table = sessions_of(log.rows(known), what)
    separate = options.heldout == "users" and not bool(known.all())
    no_share = separate and options.heldout_share != FitUsersConfig.heldout_share
    check_used(("heldout_share", no_share, f"only with --heldout time: {name} has users who are held out"))
    if separate:
        reported = log.rows(~known)
        parts = _Parts(table, sessions_of(reported, what), reported, None)  # nobody else needs to be held out
    else:
        fitted, held = split_sessions(table, options.heldout, options.heldout_share, generator)
        parts = _Parts(table.rows(fitted), table.rows(held), log.rows(known), held)
    if len(parts.fitted.users.unique()) < 2:
        raise UserError(
            f"{name} leaves one user to learn from, and two are needed, as one of them decides which epoch "
            f"of a network is kept: {_more_users(options, len(table.users.unique()), separate)}."
        )
    return parts


def _all_signals(
    parts: _Parts, log: DecisionLog, users: UserModel | None, world: World
) -> SessionTable | None:
    """The sessions of the report with all signals of the simulator; None if it can't play them."""
    if users is None or log.header.signals != tuple(signal.name for signal in users.signals):
        return None
    table = session_table(parts.reported, torch.zeros(parts.reported.num_rows))
    table = table if parts.rows is None else table.rows(parts.rows)
    # The simulator has no state of people whom its population lacks.
    return table if bool(torch.isin(table.users, world.population.user_ids).all()) else None


def _more_users(options: FitUsersConfig, users: int, separate: bool) -> str:
    """The advice by which two of the ``users`` to learn from remain.

    ``separate``: the report is on others.
    """
    if users < 2 or separate:
        return "give a log of more training users"
    if options.heldout == "users" and users == 2:
        return "give a log of three users or more, or --heldout time"
    return "give a smaller --heldout-share, or a log of more users"


_OF_FIT = ("members", "epochs", "heldout", "heldout_share", "weights")
"""Options that decide what is fitted; a resumed fit has the same."""


def _seen(table: SessionTable) -> tuple[Tensor, Tensor]:
    """The signals (R, S) of shown places, and where users left, (R',) bool of R' steps."""
    return table.signals[table.shown], table.left_after[table.under_way]


def _before(options: FitUsersConfig, out: Path) -> LearnedFile | None:
    """The interrupted fit to finish; None for a new one. Raises UserError."""
    if not options.resume:
        return None
    before = load_users(out, finished=False)
    if not before.fitting:
        raise UserError(f"{out} is finished: leave --resume out to fit it again.")
    return before


def _restore(fit: Fit, before: LearnedFile, options: FitUsersConfig) -> None:
    """Go on with the fit of ``before``. Raises UserError if it is of another log or other settings."""
    if before.info.get("log") != fit.file.info["log"]:
        raise UserError(
            f"{options.source} holds other decisions than at the start of this fit: give it as it was."
        )
    old, new = before.info.get("settings", {}), json.loads(json.dumps(fit.file.info["settings"]))
    for name in new:
        if old.get(name) != new[name]:
            raise UserError(
                f"--{name.replace('_', '-')} was {old.get(name)} at the start of this fit, and is "
                f"{new[name]} now: leave --resume out for a new fit."
            )
    try:
        for member, saved in zip(fit.file.members, before.members, strict=True):
            member.load_state_dict(saved.state_dict())
        fit.fitting.load_state_dict(before.fitting)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{options.out} holds no fit that can go on: leave --resume out.") from error


def _check_outputs(options: FitUsersConfig, out: Path) -> None:
    """Raise UserError if an output can't be written, or would replace an input or the other one."""
    read = [*(("log", path) for path in options.log), ("checkpoint", options.checkpoint)]
    taken = {Path(path).resolve(): name for name, path in read if path is not None}
    written = {"out": out} | ({} if options.json is None else {"json": Path(options.json)})
    for name, path in written.items():
        check_writable(path, f"--{name}")
        other = taken.setdefault(path.resolve(), name)
        if other != name:
            raise UserError(f"--{name} {path} is also the file of --{other}: give another name.")


def _go_on(fit: Fit, options: FitUsersConfig, out: Path) -> None:
    """Fit to the end and write the file; after a request to stop, write it after the present epoch."""
    fitting, file = fit.fitting, fit.file
    fitted = f"{fitting.fitted.num_sessions:,} sessions, {fitting.checked.num_sessions:,} to stop early"
    if not options.quiet:
        announce(
            f"learning users from {fitted}; {fit.held.num_sessions:,} held out for the report; "
            f"{len(fitting.members)} x {fitting.of_member} epochs"
        )
    with stop_signals() as requests, counted("epochs", fitting.total, options.quiet) as show:
        while not fitting.finished:
            fitting.epoch()
            show(fitting.epochs)
            if requests and not fitting.finished:
                save_users(out, dataclasses.replace(file, fitting=fitting.state_dict()))
                raise Interrupted(
                    f"Stopped after epoch {fitting.epochs} of {fitting.total}; {out} holds the fit: finish "
                    "it with the same options and --resume."
                )
    save_users(out, file)
