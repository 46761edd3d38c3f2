"""Further measurements of a run in learned users: `ope` on a log, and the true world.

A policy that learns inside users who were learned from a log finds the errors of these users, too. So its
value inside rises, while what it would earn from real people may fall. The held-out users of the log tell,
as far as the log reaches; a simulator that made the log tells exactly.

All evaluations of a run are judged by `world`, a model of the held-out users that is fitted once. A weighted
estimator needs 200 effective sessions for each policy of the run, and a policy that learns leaves the log: of
N sessions of T steps with random ones of I items, those of a policy that does not draw are worth N / I^T.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from recsys_rl.checkpoint import save
from recsys_rl.checkpoint.home import with_seed
from recsys_rl.errors import amount
from recsys_rl.evaluation.mixture import Fixed
from recsys_rl.logs.checks import check_catalogue
from recsys_rl.logs.decision_log import DecisionLog, concatenate
from recsys_rl.logs.ope.config import OpeConfig
from recsys_rl.logs.ope.diagnostics import student_t
from recsys_rl.logs.ope.estimators import WORLD
from recsys_rl.logs.ope.ope import replayed
from recsys_rl.logs.ope.read_log import STREAMS, ReadLog
from recsys_rl.logs.ope.world import fit_world, why_no_world, world
from recsys_rl.logs.source import Place, open_log
from recsys_rl.logs.users.from_log import of_learned
from recsys_rl.logs.users.platform import learned_file
from recsys_rl.training.learning_curve import Evaluator, Measured, training_sessions
from recsys_rl.training.observers import Observer
from recsys_rl.training.ranks import ALONE
from recsys_rl.training.resume import snapshot
from recsys_rl.training.run import Run, Update
from recsys_rl.training.worlds import place_of
from recsys_rl.types import UserError
from recsys_rl.utils.logger import Logger
from recsys_rl.utils.metrics import interval
from recsys_rl.utils.seeding import generators

MOST_SESSIONS = 2_000
"""Sessions of the log on which a policy is judged; a larger log is sampled."""
Point = tuple[float, float, float]
"""An estimate with the ends of its 95 % interval."""


class LogJudge:
    """`ope` of the greedy policy on the decisions of a log that were made for held-out users."""

    def __init__(self, path: str, run: Run) -> None:
        """Raise UserError for a log of other sessions or items, or without held-out users to model."""
        config, facts = run.config, learned_file(run.config.env_config).facts
        noise = generators(config.train_config.seed, "judged sessions")["judged sessions"]
        log = _sample(_heldout(path, run), noise)
        if log.header.interface != facts.interface:
            raise UserError(
                f"{path} is of other sessions than those from which these users were learned: give the log "
                "of fit-users, or one of the same platform and settings."
            )
        if lacking := why_no_world(log):
            raise UserError(
                f"{path} can't judge the run, as {lacking}: give another log, or leave --judge-log out."
            )
        if not log.has_propensities:  # the model has no weights, so none are estimated
            log = replace(log, logprobs=torch.zeros_like(log.logprobs))
        streams = generators(config.train_config.seed, *STREAMS)
        read = ReadLog(log, run.world.catalogue, of_learned(facts, log.header), streams)
        self.log = replayed(OpeConfig(log=(path,), world=False), read)[0]
        self.worlds = fit_world(self.log, streams["world"])
        totals = self.log.totals
        whom = f"{amount(totals.sessions, 'session')} of {amount(len(totals.users), 'held-out user')}"
        self.note = f"judging each evaluation on {whom} of {path} by {WORLD}"

    def judge(self, run: Run) -> Point:
        """The estimate with the ends of its 95 % interval."""
        terms = world(self.worlds, Fixed(run.agent, greedy=True))  # (N,)
        return float(terms.mean()), *student_t(terms, self.log.users)


class WorldJudge:
    """Greedy sessions of training users in another world, as the learning curve plays them inside."""

    def __init__(self, name: str, run: Run) -> None:
        """Raise UserError for a world that does not fit."""
        home = run.info.get("home", {})
        self.config, self.world = place_of(run.config, run.world, run.interface, name, "the run", home)

    def judge(self, run: Run) -> Point:
        device = run.streams["users"].device
        sessions = training_sessions(self.config, self.world, run.agent, device)
        estimate = interval(sessions.returns)
        return estimate.mean, estimate.low, estimate.high


def _heldout(path: str, run: Run) -> DecisionLog:
    """The decisions of held-out users. Raises UserError if there are none."""
    config = run.config
    # People whom the population lacks are held out as they were when the users were learned.
    seed = int(learned_file(config.env_config).info.get("heldout_seed", config.train_config.seed))
    source = open_log((path,), Place.of_run(with_seed(config, seed), run.world))
    check_catalogue(path, source.header, run.world.catalogue, f"--data {config.data_config.data}")
    logs = [*source.heldout_parts()]
    if not logs:
        raise UserError(
            f"{path} holds no decisions of held-out users, and the others were learned from: record some "
            "(recsys-rl record --users heldout, or all), or leave --judge-log out."
        )
    return concatenate(logs)


def _sample(log: DecisionLog, generator: torch.Generator) -> DecisionLog:
    """At most MOST_SESSIONS whole sessions of ``log``."""
    ids, index = log.sessions.unique(return_inverse=True)
    if len(ids) <= MOST_SESSIONS:
        return log
    return log.rows((torch.randperm(len(ids), generator=generator) < MOST_SESSIONS)[index])


BEST = "best.pt"
"""The checkpoint of a run with the highest estimate on judge_log."""
JUDGE_PATIENCE = 5
"""Evaluations in a row without a higher estimate on judge_log, after which the run stops."""


class Judges:
    """The judges of the settings ``judge_log`` and ``world`` of a run."""

    def __init__(self, run: Run) -> None:
        """Raise UserError if one can't judge this run."""
        settings = run.config.train_config
        log, there = settings.judge_log, settings.world
        self.on_log = None if log is None else LogJudge(log, run)
        self.there = None if there is None else WorldJudge(there, run)
        self.note = "" if self.on_log is None else self.on_log.note

    def observers(self, run: Run, path: Path, logger: Logger) -> list[Observer]:
        """The observers of the run with the checkpoint ``path``."""
        observers: list[Observer] = []
        if self.on_log is not None:
            observers.append(Evaluator(logger, "log", partial(_measured, self.on_log)))
        if self.there is not None:
            observers.append(Evaluator(logger, "world", partial(_measured, self.there)))
        if self.on_log is not None:
            observers.append(Best(run, path.with_name(BEST)))
        return observers


def _measured(judge: LogJudge | WorldJudge, run: Run) -> Measured:
    return Measured(*judge.judge(run))


class Best(Observer):
    """Keeps the policy with the highest estimate on the log, and ends a run whose estimate rises no more."""

    def __init__(self, run: Run, path: Path) -> None:
        """``path``: of the best checkpoint. ``run`` may have ended so before it was resumed."""
        self.path = path
        run.info["judged_by"] = WORLD
        self._stop(run)

    def begun(self, run: Run) -> None:
        self._keep(run)

    def updated(self, update: Update) -> None:
        if "log_return_mean" in update.metrics:
            self._keep(update.run)

    def _keep(self, run: Run) -> None:
        if self._since_best(run) == 0:
            save(self.path, snapshot(run, ALONE))
        self._stop(run)

    def _stop(self, run: Run) -> None:
        since = self._since_best(run)
        run.stopped = run.stopped or (since is not None and since >= JUDGE_PATIENCE)

    def _since_best(self, run: Run) -> int | None:
        """Evaluations since the highest estimate, 0 at the latest; None before the first one."""
        values = [mean for _, mean, _, _ in _estimates(run)]
        return len(values) - 1 - values.index(max(values)) if values else None

    def ended(self, run: Run) -> str:
        curve = _estimates(run)
        if not curve:
            return ""
        step, mean, low, high = max(curve, key=lambda row: row[1])
        why = f"stopped, as the estimate on the log has not risen since step {step:,.0f}; "
        why = why if run.stopped else ""
        return (
            f"{why}{self.path} has the policy of step {step:,.0f}, with the highest estimate by "
            f"{WORLD}, {mean:.2f} ({low:.2f} to {high:.2f}): the highest of {len(curve)} estimates, "
            "so too high on average; the held-out users that chose it are also users of evaluate's table"
        )


def _estimates(run: Run) -> list[list[float]]:
    """The curve of the estimates on the log: rows of step, mean, low, high."""
    points: list[list[float]] = run.info.get("curves", {}).get("log", [])
    return points
