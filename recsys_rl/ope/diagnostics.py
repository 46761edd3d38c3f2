"""Numbers that show when an estimate can be trusted, and warnings in plain words."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.ope.intervals import student_t

FEW = 200
"""Effective samples under which an estimate is not to be trusted."""
HEAVY = 0.5
"""Pareto k of the weights above which intervals cover less than they should."""
LOST = 0.01
"""Share of a policy's choices that the logging policy can't make, up to which the log covers the policy."""
NEAR = 1e-3
"""Share by which weights of the tail may differ and still count as equal."""
SURE = 1 - 1e-4
"""Level of the mean weight's interval, which misses 1 in one of 10,000 logs with right propensities."""
ROUNDING = 1e-3
"""Distance of the mean weight's interval from 1 that counts as rounding: logs hold 0.3333 for a third."""


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


def warnings_for(
    report: WeightReport,
    unsupported: float = 0.0,
    value: float = 0.0,
    most: float = math.inf,
    unit: str = "rows",
) -> list[str]:
    """Plain sentences about an estimate that rests on these weights.

    Args:
        unsupported: share of the policy's mass where the log has none.
        most: the largest possible return.
        unit: the things that have one weight each, rows or sessions.
    """
    found = []
    if report.ess < FEW:
        found.append(
            f"Do not trust this: the log is worth {report.ess:.0f} {unit} for this policy, and "
            f"{FEW} are needed."
        )
    if report.pareto_k > HEAVY:
        found.append(
            f"A few large weights decide (Pareto k {report.pareto_k:.2f} > {HEAVY}): the interval covers the "
            "truth less often than it should."
        )
    if not report.holds_one:
        # The mean of heavy weights lies under 1 in most logs, and its interval with it.
        heavy = report.ess < FEW or report.pareto_k > HEAVY
        third = f", or the {unit} are too few for weights as heavy as these" if heavy else ""
        found.append(
            f"The mean weight is {report.mean:.4g} and its {SURE:.2%} interval [{report.mean_low:.4g}, "
            f"{report.mean_high:.4g}] does not hold 1: the propensities are wrong, or the log lacks actions "
            f"that the policy takes{third}."
        )
    return found + uncovered(unsupported) + touches(value, most)


def uncovered(unsupported: float) -> list[str]:
    """The warning that the log lacks the share ``unsupported`` of the policy's mass, if it is above LOST."""
    if unsupported <= LOST:
        return []
    return [
        f"{unsupported:.0%} of the policy's choices were impossible for the logging policy, so that no "
        "row of the log shows their rewards."
    ]


def touches(value: float, most: float) -> list[str]:
    """The warning that ``value`` reaches the largest possible return ``most``, if it does."""
    if value < most and not math.isclose(value, most, rel_tol=1e-9):
        return []
    return [f"The estimate reaches the largest possible return, {most:g}: it can't be right."]
