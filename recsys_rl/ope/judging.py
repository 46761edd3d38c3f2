"""All estimates of one policy on one log, with the interval and the warnings of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from recsys_rl.ope import clipping, world
from recsys_rl.ope.bandit import BANDIT, CLIPPED, Decisions
from recsys_rl.ope.clipping import by_error, by_slope, grid_of
from recsys_rl.ope.diagnostics import Calibration, calibration, weigh
from recsys_rl.ope.estimate import Estimate, estimated
from recsys_rl.ope.intervals import bernstein, bootstrap, student_t
from recsys_rl.ope.sequential import SEQUENTIAL, Sessions
from recsys_rl.types import UserError

NEEDS_MODEL = ("dm", "dr", "sndr", "switch-dr", "dros", "sdr", "wdr", "fqe", "offcem")
NO_WEIGHTS = ("dm", "fqe", "world")
BOUNDED = ("ips", "dr")
"""Averages of independent terms with a known bound, for the Bernstein interval."""


@dataclass(frozen=True)
class Terms:
    """An estimate that is the mean of terms which were computed elsewhere."""

    values: Tensor  # (N,) float64, one for each session
    weights: Tensor | None = None  # (N,) float64, of expectation 1; None: it rests on none
    unsupported: float = 0.0  # share of the policy's mass where the log has none
    warnings: tuple[str, ...] = ()  # further sentences of the row


@dataclass(frozen=True)
class Judgement:
    """The terms (N,) of each estimator for one policy; their means are the estimates."""

    terms: dict[str, Tensor]
    estimates: list[Estimate]


@dataclass(frozen=True)
class Way:
    """The kind and the settings of intervals."""

    interval: str = "student-t"
    level: float = 0.95
    largest_weight: float | None = None  # what the two policies can have at most, for bernstein
    seed: int = 0
    clip: Literal["error", "slope"] = "error"  # how c is chosen: by estimated squared error, or by SLOPE


def at_one_step(log: Sessions) -> Decisions:
    """Sessions of one step as decisions."""
    q, v = (None if x is None else x[:, 0] for x in (log.q, log.v))
    return Decisions(log.weights[:, 0], log.rewards[:, 0], q, v)


def estimators(
    log: Sessions, users: Tensor | None = None, clip_by: str = "error"
) -> dict[str, tuple[Callable[[Sessions], Tensor], float | None]]:
    """The estimators that fit the log, by name, with the clip that was chosen for each.

    ``users`` (N,): the error of a clip is estimated over users. ``clip_by``: as ``Way.clip``.
    """
    choose = by_slope if clip_by == "slope" else by_error
    if log.rewards.shape[1] > 1:
        return {
            name: (f, None) for name, f in SEQUENTIAL.items() if log.q is not None or name not in NEEDS_MODEL
        }
    decisions = at_one_step(log)
    found: dict[str, tuple[Callable[[Sessions], Tensor], float | None]] = {}
    for name, estimate in BANDIT.items():
        if log.q is not None or name not in NEEDS_MODEL:
            found[name] = (_of_decisions(estimate), None)
    for name, (clipped, _) in CLIPPED.items():
        if log.q is not None or name not in NEEDS_MODEL:
            clip = choose(name, decisions, grid_of(name), users)
            found[name] = (_of_decisions(_with_clip(clipped, clip)), clip)
    return found


def _of_decisions(estimate: Callable[[Decisions], Tensor]) -> Callable[[Sessions], Tensor]:
    return lambda log: estimate(at_one_step(log))


def _with_clip(estimate: Callable[[Decisions, float], Tensor], clip: float) -> Callable[[Decisions], Tensor]:
    return lambda log: estimate(log, clip)


def judgement(
    log: Sessions,
    users: Tensor,
    way: Way,
    unsupported: float,
    most: float,
    more: Mapping[str, Terms] | None = None,
) -> Judgement:
    """All estimates from a log of N sessions.

    Args:
        users: (N,).
        unsupported: share of the policy's mass that the log lacks.
        most: the largest possible return.
        more: further estimates by name: ``world``, and those of slates and of clusters.

    Raises UserError for an interval that no estimator has on this log.
    """
    if way.interval == "bernstein":
        _check_bernstein(log, way)
    report, model = weigh(log.weights[:, -1], users), _calibration(log)
    chosen, more = estimators(log, users, way.clip), more or {}
    terms = {name: f(log) for name, (f, _) in chosen.items()}
    terms |= {name: x.values for name, x in more.items()}
    estimates = []
    for name, mine in terms.items():
        known, (_, clip) = more.get(name), chosen.get(name, (None, None))
        weights, lost = report, unsupported
        if known is not None and known.weights is not None:
            weights, lost = weigh(known.weights, users), known.unsupported
        row = estimated(
            name,
            mine,
            None if name in NO_WEIGHTS else weights,
            users,
            unsupported=lost,
            calibration=model if name in NEEDS_MODEL else None,
            clip=clip,
            most=most,
            level=way.level,
            unit="sessions" if log.rewards.shape[1] > 1 else "rows",
        )
        row = _with_interval(row, _again(name, chosen, mine, log), log, mine, users, way)
        if known is not None:
            row = replace(row, warnings=(*known.warnings, *row.warnings))
        if row.calibration is not None:
            row = replace(row, warnings=(*row.warnings, *row.calibration.warnings))
        if name in NO_WEIGHTS:  # a learned model alone
            row = replace(row, interval="model", warnings=(world.WARNING, *row.warnings))
        if clip is not None:
            row = replace(row, interval="clip", warnings=(clipping.WARNING, *row.warnings))
        estimates.append(row)
    return Judgement(terms, estimates)


def _again(
    name: str,
    chosen: Mapping[str, tuple[Callable[[Sessions], Tensor], float | None]],
    terms: Tensor,
    log: Sessions,
) -> Callable[[Tensor], float]:
    """The estimate from the sessions ``rows`` (B,) alone, where one may be several times."""
    if name not in chosen:
        return lambda rows: float(terms[rows].mean())
    return lambda rows: float(chosen[name][0](log.rows(rows)).mean())


def _with_interval(
    row: Estimate,
    estimate: Callable[[Tensor], float],
    log: Sessions,
    terms: Tensor,
    users: Tensor,
    way: Way,
) -> Estimate:
    if way.interval == "bootstrap":
        generator = torch.Generator().manual_seed(way.seed)
        low, high = bootstrap(estimate, len(terms), generator, users, way.level)
        return replace(row, low=low, high=high, interval="bootstrap")
    if way.interval == "bernstein" and row.estimator in BOUNDED and way.largest_weight is not None:
        least, best = float(log.rewards.min()), float(log.rewards.max())
        bound = way.largest_weight
        low, high = bound * min(least, 0.0), bound * max(best, 0.0)
        if row.estimator == "dr":  # v + w (r - q), with q and v within the rewards
            low, high = least - bound * (best - least), best + bound * (best - least)
        low, high = bernstein(terms, low, high, users, way.level)
        return replace(row, low=low, high=high, interval="bernstein")
    return row


def _check_bernstein(log: Sessions, way: Way) -> None:
    if log.rewards.shape[1] > 1:
        raise UserError(
            "The Bernstein interval of sessions with several steps is as wide as everything that can be "
            "earned: choose --interval student-t or bootstrap."
        )
    if way.largest_weight is None:
        raise UserError(
            "The Bernstein interval needs the largest weight that the two policies can have, not the largest "
            "in the log: give --largest-weight."
        )
    if float(log.weights.max()) > way.largest_weight:
        raise UserError(
            f"The log has the weight {float(log.weights.max()):g}, above --largest-weight "
            f"{way.largest_weight:g}: give the largest that is possible."
        )


def _calibration(log: Sessions) -> Calibration | None:
    """Of the reward model on the first step's target: r_0 + g V_1."""
    if log.q is None or log.v is None:
        return None
    target = log.residual[:, 0] + log.q[:, 0]
    return calibration(log.q[:, 0], target)


@dataclass(frozen=True)
class Difference:
    """The difference of two policies on the same log, by one estimator."""

    first: str
    second: str
    estimator: str
    value: float  # first minus second
    low: float
    high: float
    rows: int  # of the log
    # That would settle it, if the difference is as estimated; 0 if it is settled, infinite if none would or
    # if the estimate is too poor to tell.
    more_rows: float
    doubt: str = ""  # the warnings of the rows behind it
    covered: bool = True  # False if the log lacks actions that one of the two takes
    trusted: bool = True  # False if the estimator is not recommended: the interval may miss the truth
    model: str = ""  # in words: the learned model behind it, if it was not checked, or failed a check
    missing: str = ""  # the estimator that can't be computed, and in whose place ``estimator`` stands

    @property
    def settled(self) -> bool:
        return self.trusted and (self.low > 0 or self.high < 0)

    @property
    def sentence(self) -> str:
        """The answer in one sentence, and ``doubt`` if there is any."""
        why = "Do not trust this: no estimator is recommended on this log."
        return " ".join(x for x in (self._answer, "" if self.trusted else why, self.doubt) if x)

    @property
    def brief(self) -> str:
        """The answer in one sentence, and that ``doubt`` is to be read elsewhere, if there is any."""
        text = self._answer if self.trusted else f"{self._answer} Do not trust this."
        return f"{text} See the warnings above." if self.doubt else text

    @property
    def _answer(self) -> str:
        by = self.estimator
        if self.missing:
            fit = ", and the weights are good enough for it" if self.trusted else ""
            by += f" (as {self.missing} can't be computed{fit})"
        names = f"{self.first} minus {self.second} by {by}: {self.value:.4g} "
        names += f"[{self.low:.4g}, {self.high:.4g}]"
        if self.settled:
            better = self.first if self.value > 0 else self.second
            model = f", by {self.model}: don't rely on it" if self.model else ""
            return f"{names}: {better} is better{model}."
        if not self.covered:
            return (
                f"{names}: no answer, and more rows like these would not settle it, as the log lacks actions "
                "that one of the two takes."
            )
        if not self.trusted:
            return f"{names}: no answer."
        if not math.isfinite(self.more_rows):
            return f"{names}: no difference was seen, and no number of rows would settle it."
        return f"{names}: not enough data; about {self.more_rows:,.0f} more rows like these would settle it."


# the half-width falls as 1 / sqrt(rows): rows (half / |difference|)^2 in all
def difference(
    names: tuple[str, str],
    estimator: str,
    first: Tensor,
    second: Tensor,
    users: Tensor,
    rows: int,
    level: float = 0.95,
    doubt: str = "",
    covered: bool = True,
    trusted: bool = True,
    model: str = "",
    missing: str = "",
) -> Difference:
    """The paired difference of the terms (N,) of two policies on the same sessions.

    ``doubt``, ``covered``, ``trusted``, ``model``, ``missing``: as in Difference.
    """
    terms = first - second
    low, high = student_t(terms, users, level)
    value = float(terms.mean())
    half = (high - low) / 2
    more = 0.0 if trusted else math.inf
    if half >= abs(value):
        more = rows * ((half / abs(value)) ** 2 - 1) if value and covered and trusted else math.inf
    return Difference(
        *names, estimator, value, low, high, rows, more, doubt, covered, trusted, model, missing
    )
