"""Estimate from a log of decisions the return that a policy would have earned."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys_rl.data.tables.frames import with_files
from recsys_rl.data.tables.items import knows_items
from recsys_rl.errors import one_line
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.decision_table import DecisionTable
from recsys_rl.logs.intervals import late_feedback
from recsys_rl.logs.ope.compare import PLACES, compare, recommend
from recsys_rl.logs.ope.config import TARGET, OpeConfig
from recsys_rl.logs.ope.item_models import of_each_item
from recsys_rl.logs.ope.judge import Judged, Settings, judge
from recsys_rl.logs.ope.lower import SingleDecisions
from recsys_rl.logs.ope.networks import mlp, mlp_of_shares
from recsys_rl.logs.ope.parts import Totals, survey
from recsys_rl.logs.ope.playable import loggers_of, policies_of
from recsys_rl.logs.ope.policies import Playable, check_target
from recsys_rl.logs.ope.printing import print_result
from recsys_rl.logs.ope.propensities import PropensityFit, with_propensities
from recsys_rl.logs.ope.read_log import FITTED, ReadLog, read_log
from recsys_rl.logs.ope.replay import ReplayedLog, errors_of, replay
from recsys_rl.logs.ope.result import LOGGED, About, OpeResult
from recsys_rl.logs.ope.reward_model import Fit, logistic, ridge
from recsys_rl.logs.ope.rows import plain_row
from recsys_rl.logs.ope.unknown import UnknownItems
from recsys_rl.logs.ope.verdict import Estimates, about_log, verdict_on
from recsys_rl.logs.public import LOGS
from recsys_rl.logs.target import Ids, Target, read_target
from recsys_rl.settings.fields import build
from recsys_rl.types import Catalogue, Feedback, UserError
from recsys_rl.utils.files import check_writable, write_text
from recsys_rl.utils.progress import announce
from recsys_rl.utils.tasks import MapTasks, in_this_process, note_one_task


def ope(
    options: OpeConfig | None = None, map_tasks: MapTasks = in_this_process, **settings: Any
) -> OpeResult:
    """Judge the policies, print the table, and write the JSON file.

        ope(log=frame, checkpoint="mine.pt").to_frame()

    Args:
        options: all settings; None: those of ``settings``.
        map_tasks: judges the parts of a log with more rows than models are fitted on.
        settings: fields of OpeConfig. ``log`` may be a data frame in place of a path, or a list of these.

    Raises UserError for a log or a policy that can't be used.
    """
    with with_files(settings) as known:
        given = {} if options is None else vars(options)
        return _judged(build(OpeConfig, {**given, **known}), map_tasks)


def begin(options: OpeConfig) -> None:
    """Check the files of a command, set its threads, and print the log's name. Raises UserError."""
    if not options.log:
        raise UserError("The log is missing: give --log FILE.")
    if options.json is not None:
        read = (*options.log, options.checkpoint, options.target, options.items, *options.logger)
        check_writable(Path(options.json), "--json", read)
    if options.threads:
        torch.set_num_threads(options.threads)
    announce(f"reading {one_line(options.source)}")


def _judged(options: OpeConfig, map_tasks: MapTasks) -> OpeResult:
    begin(options)
    result, _ = estimates(options, read_log(options), map_tasks=map_tasks)
    print_result(result)
    if options.json is not None:
        write_result(Path(options.json), result.json())
    return result


def estimates(
    options: OpeConfig,
    read: ReadLog,
    further: Sequence[Playable] = (),
    map_tasks: MapTasks = in_this_process,
) -> tuple[OpeResult, Judged]:
    """The estimates for the policies of the options and ``further`` ones, also as terms of each session.

    Raises UserError for a policy that can't be judged.
    """
    if read.parts is None:
        note_one_task(map_tasks, f"up to {FITTED:,} decisions are one part")
    log, of, fitted = replayed(options, read)
    policies, makers = [*policies_of(options, read), *further], loggers_of(options, read, log)
    judged = judge(
        log,
        [log] if read.parts is None else read.parts(),
        policies,
        _targets(options),
        fit_of(options, log, read),
        read.rewards,
        makers,
        settings_of(options),
        read.streams,
        of,
        map_tasks,
    )
    return _result(options, read, log, fitted, judged), judged


def write_result(path: Path, values: Mapping[str, Any]) -> None:
    """Write the values of a result as JSON. Raises UserError if the file can't be written."""
    write_text(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def replayed(
    options: OpeConfig, read: ReadLog
) -> tuple[ReplayedLog, Callable[[DecisionLog], ReplayedLog], PropensityFit | None]:
    """The sessions on which models are fitted, the replay of a part, and the fit of missing propensities."""
    log, name, fitted = read.log, options.source, None
    with errors_of(name, read.table):
        if not log.has_propensities and read.parts is not None:
            raise UserError(
                f"the log has no propensities, and they are estimated for at most {FITTED:,} rows: log the "
                "probability of each decision, or judge on fewer sessions."
            )
        if not log.has_propensities:
            log, fitted = with_propensities(log, read.catalogue, read.streams["propensities"])
        logs = iter([log]) if read.parts is None else read.parts()
        totals = survey(((part, read.rewards(part.feedback)) for part in logs), read.streams["ope"])

    by_item = read.by_item and options.q == "ridge"
    of = Replay(
        name,
        read.catalogue,
        read.rewards,
        options.discount,
        totals,
        read.table,
        fitted is not None,
        by_item,
        read.known,
    )
    if options.q == "logistic":
        _check_logistic(options.source, totals)
    return of(log), of, fitted


@dataclass(frozen=True)
class Replay:
    """Replays a part of the log. The fields are the arguments of ``replay``."""

    file: str
    catalogue: Catalogue
    rewards: Callable[[Feedback], Tensor]
    discount: float
    totals: Totals
    table: DecisionTable | None
    estimated: bool
    by_item: bool
    known: Tensor | None

    def __call__(self, part: DecisionLog) -> ReplayedLog:
        with errors_of(self.file, self.table):
            return replay(
                part,
                self.catalogue,
                self.rewards(part.feedback),
                self.discount,
                self.totals,
                self.file,
                self.table,
                self.estimated,
                self.by_item,
                self.known,
            )


def _target_name(options: OpeConfig) -> str:
    return f"target {Path(options.target or '').name}"


def _targets(options: OpeConfig) -> dict[str, Callable[[ReplayedLog], Target]]:
    """The policy of --target by its name in the table: a function that reads its rows of a log."""
    path = options.target

    def read(log: ReplayedLog) -> Target:
        assert path is not None
        table = log.table
        ids = None if table is None else Ids(table.items, table.rows, table.sessions, table.session_column)
        with errors_of(path, table):
            target = read_target(path, log.log, ids)
            check_target(log, target)
        return target

    return {} if path is None else {_target_name(options): read}


def settings_of(options: OpeConfig) -> Settings:
    return Settings(options.seed, options.draws, options.clusters, options.world)


def fit_of(options: OpeConfig, log: ReplayedLog, read: ReadLog) -> Fit:
    """The regression of the reward model. Of several steps, it predicts sums of rewards."""
    generator, rewards = read.streams["ope"], log.rewards
    if options.q == "mlp":
        shares = log.totals.steps == 1 and bool(((rewards == 0) | (rewards == 1)).all())
        fit = mlp_of_shares(generator) if shares else mlp(generator, epochs=10)
    else:
        fit = logistic() if options.q == "logistic" else ridge()
    return of_each_item(fit, log.features.of_users, log.num_items) if log.features.by_item else fit


def _result(
    options: OpeConfig, read: ReadLog, log: ReplayedLog, fitted: PropensityFit | None, judged: Judged
) -> OpeResult:
    """The result, with what the log earned, the recommended rows marked, the comparison and verdicts."""
    rows, terms = judged.rows, {**judged.terms, LOGGED: {"mean": judged.earned}}
    logged = plain_row(LOGGED, "mean", judged.earned, judged.users)
    if read.behaviours is None or LOGGED in options.names:
        rows = [*rows, logged]
    trusted = trusted_of(log, judged.terms)
    rows = recommend(rows, trusted)
    wrong, single = about_log(log.totals), _single(read, log, judged)
    known = Estimates(
        [logged, *judged.rows],
        terms,
        judged.users,
        log.totals.rows,
        trusted,
        judged.loggers,
        wrong,
        single,
        log.totals.rarest if log.totals.steps == 1 and not _estimated(log) else 0.0,
    )
    names = [LOGGED, *judged.terms]
    verdict = None
    if options.verdict is not None:
        pair = (_name(options, options.verdict), _name(options, options.rival))
        verdict = verdict_on(known, *pair)
    difference = None
    if options.compare is not None:
        first, second = options.compare
        difference = compare(
            options.compare,
            (_name(options, first), _name(options, second)),
            rows,
            terms,
            judged.users,
            log.totals.rows,
            trusted,
            judged.checks,
            judged.loggers,
            single,
        )
    about = About(
        log=options.source,
        checkpoint=read.checkpoint,
        decisions=log.totals.rows,
        sessions=log.totals.sessions,
        users=len(log.totals.users),
        items=log.num_items,
        discount=log.gamma,
        log_discount=log.log.header.discount,
        loggers=log.log.header.loggers,
        q=options.q,
        clusters=f"{judged.clusters} clusters, by k-means of the items' embeddings"
        if judged.clusters
        else "",
        fitted=log.log.num_rows,
        late_feedback=0 if options.source in LOGS else late_feedback(options.log),
    )
    return OpeResult(
        about,
        tuple(rows),
        judged.not_computed,
        fitted,
        judged.checks,
        difference,
        tuple(verdict_on(known, name) for name in names),
        verdict,
        _unknown(read, log, judged),
    )


def _unknown(read: ReadLog, log: ReplayedLog, judged: Judged) -> UnknownItems | None:
    """The items of the log that the policy of the checkpoint does not know; None if it knows all."""
    if read.known is None:
        return None
    showing, listing = judged.unknown_rows
    return UnknownItems(
        items=int((~read.known).sum()),
        rows=log.totals.rows,
        showing=showing,
        listing=listing,
        left_out=read.left_out,
        policies=judged.unknown_shares,
        several=log.totals.steps > 1,
        by_features=knows_items(read.catalogue),
    )


def _single(read: ReadLog, log: ReplayedLog, judged: Judged) -> SingleDecisions | None:
    """The terms of a lower bound: single decisions with logged probabilities and rewards of known ends."""
    if read.bounds is None or log.totals.steps > 1 or _estimated(log):
        return None
    within = read.bounds[0] <= log.bounds[0] and log.bounds[1] <= read.bounds[1]  # in all parts of the log
    return SingleDecisions(judged.earned, read.bounds, judged.weights) if within else None


def _estimated(log: ReplayedLog) -> bool:
    return log.estimated or bool(log.log.header.estimated)


def _name(options: OpeConfig, name: str) -> str:
    """The name in the table of a policy of the options."""
    return _target_name(options) if name == TARGET else name


def trusted_of(log: ReplayedLog, terms: Mapping[str, Mapping[str, Tensor]] | None = None) -> str:
    """The estimator that is recommended on such a log where it has enough sessions.

    ``terms``: of each estimator of each policy; of slates, one of PLACES is recommended if all policies have
    it.
    """
    if log.totals.steps > 1:
        return "wdr"
    shared = (name for name in PLACES if terms and all(name in of for of in terms.values()))
    return next(shared, "dr")


def _check_logistic(name: str | None, log: Totals) -> None:
    """Raise UserError where a logistic regression can't predict the rewards or their sums."""
    wrong = [bound for bound in log.bounds if not 0 <= bound <= 1]
    if wrong:
        raise UserError(
            f"{one_line(name)} has the reward {wrong[0]:g}, but --q logistic predicts "
            "numbers in 0..1: give --q ridge or mlp."
        )
    if log.steps > 1:
        raise UserError(
            f"{one_line(name)} has sessions of several steps, whose rewards add up, but --q logistic "
            "predicts numbers in 0..1: give --q ridge or mlp."
        )
