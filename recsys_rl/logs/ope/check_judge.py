"""`recsys-rl ope --check`: is the judge right on this log? It is tried where the truth is known.

The users are split in two at random, several times. A log of several policies, with the probability under
each, has the truth about each of them: the mean of its own rows of one half, which the rows of the others in
the other half are to estimate. In a log of one policy the rows of one half are thinned to another policy by
rejection (von Neumann 1951): a row stays with the probability w / M, where w is the made-up policy's
probability of its item over the logged one, and M the largest w. So the mean reward of those that stay is
what that policy earns, and the other half is to estimate it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recsys_rl.data.tables.frames import with_files
from recsys_rl.errors import UserError, one_line
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.ope.answer import BROKEN, EXIT_CODES
from recsys_rl.logs.ope.compare import enough
from recsys_rl.logs.ope.config import OpeConfig
from recsys_rl.logs.ope.diagnostics import standard_error
from recsys_rl.logs.ope.ope import begin, fit_of, write_result
from recsys_rl.logs.ope.policies import read_target, weighted, with_models
from recsys_rl.logs.ope.read_log import ReadLog, read_log
from recsys_rl.logs.ope.replay import ReplayedLog, replay
from recsys_rl.logs.ope.result import Estimate, finite
from recsys_rl.logs.ope.reward_model import FOLDS
from recsys_rl.logs.ope.rows import score
from recsys_rl.logs.ope.verdict import wrong_weights
from recsys_rl.logs.parts import sampled
from recsys_rl.logs.target import Target
from recsys_rl.settings.fields import build, check_used
from recsys_rl.types import Obs
from recsys_rl.utils.progress import announce
from recsys_rl.utils.seeding import generators
from recsys_rl.utils.terminal import say

SPLITS = 20
POLICIES = 3
"""Made-up policies of each split, where one policy logged."""
SPREAD = 0.5
"""Standard deviation of the logarithms by which a made-up policy leaves the shares of the items."""
MOST_ROWS, PAIRS = 20_000, 10_000_000
"""Rows, and rows times items, of the sample of a larger log."""
FEWEST = 100
"""Rows from which their mean counts as the truth of a trial."""
TRIALS = 20
"""Trials with a promise that an answer needs."""
MOST_ERROR = 2.0
"""Root mean square of the errors, in standard errors, above which the judge is wrong on this log. The trials
share their rows, so that it is far from 1 on many right logs."""
NORMAL = 1.96
"""Standard errors of an interval of 95 % over many users."""
UNUSED = ("policy", "target", "compare", "verdict", "logger", "clusters")


@dataclass(frozen=True)
class Trial:
    """An estimate beside the truth."""

    policy: str
    estimate: float
    truth: float
    error: float  # estimate minus truth, over the standard error of their difference
    promised: bool  # the weights allow the estimate
    wrong_weights: bool  # their mean is not 1 though they are many and light

    @property
    def held(self) -> bool:
        """True if the interval of the estimate, with the error of the truth added, holds the truth."""
        return abs(self.error) <= NORMAL


@dataclass(frozen=True)
class Check:
    """The judge's answers in all trials on one log."""

    log: str
    estimator: str
    trials: tuple[Trial, ...]
    skipped: int  # trials without enough rows or users

    @property
    def promised(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.promised]

    @property
    def held(self) -> int:
        return sum(trial.held for trial in self.promised)

    @property
    def error(self) -> float:
        """The root mean square of the errors in standard errors: 1 is right. NaN without a promise."""
        squares = [trial.error**2 for trial in self.promised]
        return math.sqrt(sum(squares) / len(squares)) if squares else math.nan

    @property
    def wrong_weights(self) -> int:
        return sum(trial.wrong_weights for trial in self.trials)

    @property
    def propensities_are_wrong(self) -> bool:
        return self.wrong_weights > len(self.trials) / 2

    @property
    def broken(self) -> bool:
        return self.propensities_are_wrong or self.error > MOST_ERROR

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[BROKEN] if self.broken else 0

    @property
    def sentence(self) -> str:
        if self.propensities_are_wrong:
            return (
                f"on this log the mean weight is not 1 in {self.wrong_weights} of {len(self.trials)} trials: "
                "the propensities are wrong, or rows could show other items than the log says"
            )
        end = ": the judge is wrong on this log" if self.broken else ""
        return (
            f"on this log the intervals of `{self.estimator}` held the truth in {self.held} of "
            f"{len(self.promised)} trials, error {self.error:.1f} standard errors{end}"
        )

    def json(self) -> dict[str, Any]:
        trials = [dataclasses.asdict(trial) | {"held": trial.held} for trial in self.trials]
        more = {"held": self.held, "promised": len(self.promised), "error": finite(self.error)}
        more |= {"wrong_weights": self.wrong_weights, "broken": self.broken, "text": self.sentence}
        return {
            "log": self.log,
            "estimator": self.estimator,
            "skipped": self.skipped,
            **more,
            "trials": trials,
        }


class _Tried(NamedTuple):
    """A policy, the rows to estimate from, and those whose mean reward is the truth about it."""

    policy: str
    rows: Tensor  # (E,) bool, of one half
    truth: Tensor  # (E,) bool, of the other
    target: Callable[[Tensor], Target]  # the policy's probabilities on rows (B,)


def check_judge(options: OpeConfig | None = None, **settings: Any) -> Check:
    """Try the judge on a log, print the answer in one line, and write the JSON file.

    Raises UserError for a log that can't be tried, as one with too few rows.
    """
    with with_files(settings) as known:
        given = {} if options is None else vars(options)
        return _checked(build(OpeConfig, {**given, **known}))


def _checked(options: OpeConfig) -> Check:
    own = "--check tries the judge by policies of its own"
    given = {name: getattr(options, name) != getattr(OpeConfig, name) for name in UNUSED}
    check_used(
        *((name, is_given, own) for name, is_given in given.items()), ("no_world", not options.world, own)
    )
    begin(options)
    read = read_log(dataclasses.replace(options, policy=("random",)))
    log = _sample(options, read)
    estimator = "dr" if log.logger_logprobs is None else "ips"
    found = [*_trials(options, read, log, estimator)]
    trials = tuple(trial for trial in found if trial is not None)
    check = Check(options.source, estimator, trials, len(found) - len(trials))
    if len(check.promised) < TRIALS and not check.propensities_are_wrong:
        raise UserError(
            f"{one_line(options.source)} has too few rows to try the judge on: {len(check.promised)} of "
            f"{len(found)} trials had enough for an interval with a promise, and {TRIALS} are needed: give a "
            "longer log."
        )
    say(check.sentence)
    if options.json is not None:
        write_result(Path(options.json), check.json())
    return check


def _sample(options: OpeConfig, read: ReadLog) -> DecisionLog:
    """The decisions to try the judge on. Raises UserError for a log of another kind."""
    log, name = read.log, one_line(options.source)
    if not log.has_propensities:
        raise UserError(
            f"{name} has no propensities, which --check needs: log the probability of each decision."
        )
    if int(log.steps.max()) > 0 or log.items.shape[1] > 1:
        raise UserError(
            f"{name} has sessions of several steps, or slates, and --check is for single decisions."
        )
    most = min(MOST_ROWS, max(1, PAIRS // read.catalogue.num_items))
    return sampled([log], most, generators(options.seed, "check sample")["check sample"])[0]


def _trials(options: OpeConfig, read: ReadLog, log: DecisionLog, estimator: str) -> Iterator[Trial | None]:
    """The trials of all splits; None where the rows or their users are too few."""
    streams = generators(options.seed, "check", "folds")
    rewards = read.rewards(log.feedback).double()

    def replayed(rows: Tensor) -> ReplayedLog:
        of = rewards[rows]
        folds = streams["folds"]
        return replay(log.rows(rows), read.catalogue, of, options.discount, folds, options.source)

    part = whole = replayed(torch.arange(log.num_rows))
    user, before = log.users.unique(return_inverse=True)[1], None
    announce(f"trying the judge on {SPLITS} splits of the users")
    for _ in range(SPLITS):
        half = (torch.rand(int(user.max()) + 1, generator=streams["check"]) < 0.5)[user]  # (E,)
        several = log.logger_logprobs is not None
        for tried in _loggers(log, half) if several else _thinned(whole, half, streams["check"]):
            if _too_few(log, tried):
                yield None
                continue
            rows = tried.rows.nonzero().squeeze(1)
            if tried.rows is not before:  # made-up policies share a half
                part, before = replayed(rows), tried.rows
            row = _estimate(options, read, part, tried.policy, tried.target(rows), estimator)
            yield _beside_truth(row, rewards[tried.truth], log.users[tried.truth])


def _too_few(log: DecisionLog, tried: _Tried) -> bool:
    """True without enough rows or users for the truth or for an estimate, or if one item is in every row."""
    few = any(
        int(of.sum()) < FEWEST or len(log.users[of].unique()) < FOLDS for of in (tried.truth, tried.rows)
    )
    return few or len(log.items[tried.rows].unique()) < 2


def _loggers(log: DecisionLog, half: Tensor) -> Iterator[_Tried]:
    """Each logger, from the rows of the others in one half; ``half`` (E,) bool: the other one."""
    assert log.logger_logprobs is not None
    for logger, name in enumerate(log.header.loggers):
        logprobs, own = log.logger_logprobs[:, logger], log.loggers == logger
        yield _Tried(name, ~half & ~own, half & own, partial(_target, logprobs, None))


def _thinned(log: ReplayedLog, half: Tensor, generator: torch.Generator) -> Iterator[_Tried]:
    """Made-up policies, and what stays of the rows ``half`` (E,) bool in a log of each.

    The first shows items by their shares in the log, the second by shares that are tilted at random, and the
    third by other shares on each side of a random plane through the context.
    """
    size, propensities = log.num_items, log.log.logprobs.exp()
    rest = ~half
    shares = (log.log.items.flatten().bincount(minlength=size) + 1).double().log()  # (I,)
    for number in range(POLICIES):
        tilts = SPREAD * torch.randn(2, size, dtype=torch.float64, generator=generator)
        tilts = tilts * torch.tensor([[number > 0], [number > 1]])
        normal = torch.randn(log.log.header.interface.context_size, generator=generator)
        every = log.of_rows(partial(_tilted, shares, tilts, normal))  # (E, I)
        own = every.gather(1, log.log.items).squeeze(1)  # (E,)
        weights = own / propensities
        draws = torch.rand(len(own), dtype=torch.float64, generator=generator)
        stays = half & (draws < weights / weights.where(half, 0.0).max())
        yield _Tried(f"made-up policy {number + 1}", rest, stays, partial(_target, own.log(), every))


def _tilted(shares: Tensor, tilts: Tensor, normal: Tensor, _: Tensor, obs: Obs) -> Tensor:
    """(B, I): the probability of each item, by the logarithms of ``shares`` (I,) and two ``tilts`` (2, I)."""
    side = (obs.context @ normal).sign().double().unsqueeze(1)  # (B, 1)
    logits = (shares + tilts[0] + side * tilts[1]).masked_fill(~obs.showable(len(shares)), -torch.inf)
    return logits.softmax(1)


def _target(logprobs: Tensor, every: Tensor | None, rows: Tensor) -> Target:
    return Target(logprobs[rows], None if every is None else every[rows])


def _estimate(
    options: OpeConfig, read: ReadLog, log: ReplayedLog, name: str, target: Target, estimator: str
) -> Estimate:
    """The row of the ``target`` by the estimator."""
    policy = read_target(log, name, target, options.draws, read.streams["policy"])
    evidence = with_models(log, weighted(log, policy), policy, fit_of(options, log, read))[0]
    return score(name, evidence, log.users, names=(estimator,)).rows[0]


def _beside_truth(row: Estimate, rewards: Tensor, users: Tensor) -> Trial:
    """The trial of an estimate, where the mean of the ``rewards`` (A,) of ``users`` (A,) is the truth."""
    truth = float(rewards.mean())
    error = math.hypot((row.high - row.low) / 2 / NORMAL, float(standard_error(rewards, users)))
    apart = (row.value - truth) / error if error > 0 else 0.0 if row.value == truth else math.inf
    return Trial(row.policy, row.value, truth, apart, enough(row), wrong_weights(row))
