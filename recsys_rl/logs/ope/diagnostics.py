"""Diagnostics of an estimate: intervals of the mean of terms, weights, and the reward model.

Intervals are over users: the rows of one user may depend on each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.special import stdtrit
from torch import Tensor

from recsys_rl.types import UserError

HUGE = 1e100
"""Terms above it are divided by the largest before they are squared."""

PROMISES = {
    "student-t": "right for many users and light tails; it covers less with few effective samples",
    "model": "no promise: the spread of a learned model's answers, without the model's error",
    "clip": "no promise: the spread of an estimate with a clip, without the error that the clip makes",
    "cluster": "no promise: the spread of an estimate by clusters, without the error of items that differ",
}
"""The promise of each kind of interval, as the report prints it."""
NO_PROMISE = ("model", "clip", "cluster")
"""The kinds of intervals that promise nothing."""
FEW = 200
"""Effective samples under which an estimate is not to be trusted."""
MOST_MOVE = 1.0
"""Standard errors by which one row could move an estimate, above which its interval covers too seldom: chosen
by simulation of single decisions (benchmarks/verdict_coverage.py). Of whole sessions whose weights have a
Pareto k below HEAVY it counts as no more than this: benchmarks/ope_coverage.py measured their intervals."""
HEAVY = 0.5
"""Pareto k of the weights from which on their variance looks infinite: of single decisions a note."""
LOST = 0.01
"""Share of a policy's choices that the logging policy can't make, up to which the log covers the policy."""
NEAR = 1e-3
"""Share by which weights of the tail may differ and still count as equal."""
SAME = 2e-4
"""Distance of a row's weight from 1 up to which the policy is the logger: logs hold 0.3333 for a third."""
ALIKE = 1e-12
"""Standard error, as a share of the largest term, up to which all terms are equal: the rest is rounding."""
SURE = 1 - 1e-4
"""Level of the mean weight's interval, which misses 1 in one of 10,000 logs with right propensities."""
ROUNDING = 1e-3
"""Distance of the mean weight's interval from 1 that counts as rounding: logs hold 0.3333 for a third."""


def by_user(users: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of ``values`` (E,) over the rows of each user, and the numbers of rows, (U',) each."""
    _, user, count = users.unique(return_inverse=True, return_counts=True)
    total = values.new_zeros(len(count)).index_add_(0, user, values)
    return total, count.to(values.dtype)


def user_terms(terms: Tensor, users: Tensor | None) -> Tensor:
    """(U',): one linearised term for each user; their mean is the mean of all rows."""
    if users is None:
        return terms
    total, count = by_user(users, terms)
    mean = terms.mean()
    return mean + (total - mean * count) / count.mean()


def standard_error(terms: Tensor, users: Tensor | None = None) -> Tensor:
    """() standard error of the mean of ``terms`` (E,), over users if given."""
    mine = user_terms(terms, users)
    largest = mine.abs().max()
    size = torch.where(largest > HUGE, largest, 1.0)  # squares of huge terms are not finite
    return (mine / size).std() * size / math.sqrt(len(mine))


# mean +- t_{1 - alpha/2, U - 1} s / sqrt U
def student_t(terms: Tensor, users: Tensor | None = None, level: float = 0.95) -> tuple[float, float]:
    """The t-interval of the mean of ``terms`` (E,). Raises UserError with fewer than two users."""
    mine = user_terms(terms, users)
    if len(mine) < 2:
        raise UserError("The log has one user: an interval over users needs at least two, so add users.")
    half = float(stdtrit(len(mine) - 1, 0.5 + level / 2)) * float(standard_error(mine))
    mean = float(terms.mean())
    return mean - half, mean + half


# max w * max |r - q| / (N se)
def largest_move(weights: Tensor, residuals: Tensor, terms: Tensor, users: Tensor | None = None) -> float:
    """The standard errors by which one more row like those of the log could move the estimate.

    It is a row with the largest weight (N,) and the largest distance (N,) of reward and model, which may not
    have come together yet: of rare rewards, the rows that the policy would show most often have hardly any.
    Infinite where all terms are equal and weights differ: then the log shows no reward that a row could add.
    """
    error = float(standard_error(terms, users))
    if error <= ALIKE * float(terms.abs().max()):
        return math.inf if float(weights.max()) > (1 + SAME) * float(weights.min()) else 0.0
    largest = float(weights.max() * residuals.abs().max())
    return largest / (len(terms) * error)


@dataclass(frozen=True)
class WeightReport:
    """The weights of one policy on one log."""

    ess: float
    mean: float
    mean_low: float  # of the interval at the level SURE
    mean_high: float
    largest: float
    largest_share: float  # of the sum of all weights
    pareto_k: float

    @property
    def holds_one(self) -> bool:
        """True if the interval of the mean holds 1, up to ROUNDING."""
        return self.mean_low - ROUNDING <= 1 <= self.mean_high + ROUNDING


# (sum w)^2 / sum w^2: Kish 1965
def effective_sample_size(weights: Tensor) -> float:
    largest = float(weights.max())
    if largest <= 0:
        return 0.0
    shares = weights / largest  # squares of huge weights are not finite
    return float(shares.sum() ** 2 / (shares**2).sum())


def is_logger(weights: Tensor) -> bool:
    """True if the weight of each row is 1, up to SAME; ``weights`` (N, T): their products w_{0:t}."""
    before = torch.cat([weights.new_ones(len(weights), 1), weights[:, :-1]], 1)  # (N, T)
    return bool(((weights - before).abs() <= SAME * before).all())


# sum_a pi(a|x) 1{pi_b(a|x) = 0}, mean over rows
def unsupported_mass(policy: Tensor, logging: Tensor) -> float:
    """Share of the policy's mass where the log has none; both (E, A) probabilities of the same items."""
    return float(torch.where(logging > 0, 0.0, policy).sum(1).mean())


def pareto_k(weights: Tensor) -> float:
    """The shape k of a generalised Pareto distribution fitted to the largest weights.

    Zhang and Stephens 2009, with the tail and the prior of Vehtari et al. 2024 (Pareto smoothed importance
    sampling): the largest min(E / 5, 3 sqrt E) weights, without those within a thousandth of the next smaller
    (estimated propensities of a few items differ by so little). -inf if the tail is constant, NaN with fewer
    than 5.
    """
    tail = int(min(len(weights) / 5, 3 * math.sqrt(len(weights))))
    if tail < 5:
        return math.nan
    ordered = weights.double().sort().values
    threshold = ordered[-tail - 1]
    over = ordered[-tail:] - threshold  # (M,)
    near = max(NEAR * float(threshold), 1e-12 * float(over[-1]))
    if float(over[-1]) <= max(near, 1e-12):
        return -math.inf
    above = over[over > near]
    # Weights of few distinct values tie at the threshold, where they say nothing about the tail above it.
    over = above if len(above) >= 5 else over.clamp_min(near)
    tail = len(over)
    number = 30 + int(math.sqrt(tail))
    quarter = over[int(tail / 4 + 0.5) - 1]
    steps = torch.arange(1, number + 1, dtype=torch.float64)
    theta = 1 / over[-1] + (1 - (number / (steps - 0.5)).sqrt()) / (3 * quarter)  # (m,)
    shape = torch.log1p(-theta.unsqueeze(1) * over).mean(1)  # (m,) k at each theta
    likelihood = tail * ((-theta / shape).log() - shape - 1)
    mean = (torch.softmax(likelihood, 0) * theta).sum()
    k = float(torch.log1p(-mean * over).mean())
    return (tail * k + 5) / (tail + 10)  # towards 0.5, by the prior


def weigh(weights: Tensor, users: Tensor | None = None) -> WeightReport:
    """Everything that the weights (E,) alone show. Raises UserError with fewer than two users."""
    low, high = student_t(weights, users, SURE)
    total, largest = float(weights.sum()), float(weights.max())
    return WeightReport(
        ess=effective_sample_size(weights),
        mean=float(weights.mean()),
        mean_low=low,
        mean_high=high,
        largest=largest,
        largest_share=largest / total if total > 0 else 0.0,
        pareto_k=pareto_k(weights),
    )


@dataclass(frozen=True)
class Calibration:
    """A cross-fitted reward model against the logged rewards."""

    mean_reward: float
    mean_q: float
    slope: float  # of the reward on q; 1 is right, under 1 the model's differences are too large

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warning that the model is worse than none, if it is."""
        if not self.slope <= 0:  # NaN: the model predicts one number for all
            return ()
        return (
            "The reward model orders actions worse than a constant would: where it predicts more, no more "
            f"was earned (q_slope {self.slope:.3g}). What rests on the model alone can't be trusted, and the "
            "model makes no estimate more precise: try another --q.",
        )


def calibration(q: Tensor, rewards: Tensor) -> Calibration:
    """Means and slope of the rewards (E,) against the predictions q (E,) of the logged actions."""
    centred = q - q.mean()
    spread = float((centred**2).sum())
    slope = float((centred * rewards).sum()) / spread if spread > 1e-24 else math.nan
    return Calibration(float(rewards.mean()), float(q.mean()), slope)
