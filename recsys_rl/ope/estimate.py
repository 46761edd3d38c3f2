"""The result of an estimator: `Estimate`, one row of the report."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recsys_rl.errors import UserError
from recsys_rl.ope.diagnostics import (
    FEW,
    HEAVY,
    LOST,
    Calibration,
    WeightReport,
    touches,
    uncovered,
    warnings_for,
)
from recsys_rl.ope.intervals import PROMISES, student_t


@dataclass(frozen=True)
class Estimate:
    """An estimated return, and what it rests on."""

    estimator: str
    value: float
    low: float
    high: float
    interval: str  # a key of intervals.PROMISES
    weights: WeightReport | None  # of the weights that it rests on; None: it uses none
    unsupported: float = 0.0  # share of the policy's mass where the log has none
    calibration: Calibration | None = None  # of its reward model
    clip: float | None = None
    warnings: tuple[str, ...] = ()
    recommended: bool = False
    estimated_propensities: bool = False  # True if the log has none, and a model filled them in

    @property
    def promise(self) -> str:
        return PROMISES[self.interval]

    @property
    def warning(self) -> str:
        return " ".join(self.warnings)

    @property
    def covered(self) -> bool:
        """False if the logging policy can't make more than LOST of the policy's choices."""
        return self.unsupported <= LOST

    def row(self) -> dict[str, float | str | bool | list[str] | None]:
        """The values of a JSON row; None where there is none."""
        of, q = self.weights, self.calibration
        return {
            "estimator": self.estimator,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "interval": self.interval,
            "ess": None if of is None else of.ess,
            "mean_weight": None if of is None else of.mean,
            "mean_weight_low": None if of is None else of.mean_low,
            "mean_weight_high": None if of is None else of.mean_high,
            "largest_weight": None if of is None else of.largest,
            "largest_share": None if of is None else of.largest_share,
            "pareto_k": None if of is None else of.pareto_k,
            "unsupported": self.unsupported,
            "mean_q": None if q is None else q.mean_q,
            "mean_reward": None if q is None else q.mean_reward,
            "q_slope": None if q is None else q.slope,
            "clip": self.clip,
            "propensities": "estimated" if self.estimated_propensities else "logged",
            "warning": self.warning,
            "warnings": list(self.warnings),
            "recommended": self.recommended,
        }


def estimated(
    estimator: str,
    terms: Tensor,
    report: WeightReport | None,
    users: Tensor | None = None,
    *,
    unsupported: float = 0.0,
    calibration: Calibration | None = None,
    clip: float | None = None,
    most: float = float("inf"),
    level: float = 0.95,
    unit: str = "rows",
) -> Estimate:
    """The estimate from ``terms`` (E,), with a t-interval over users and its warnings.

    Args:
        report: of the weights; None for an estimator without weights.
        unsupported: share of the policy's mass where the log has none.
        most: the largest possible return.
        unit: of the E terms in the warnings: rows, or sessions of several steps.

    Raises UserError if a term is not finite, or with fewer than two users.
    """
    if not bool(torch.isfinite(terms).all()):
        row = int((~torch.isfinite(terms)).nonzero()[0])
        raise UserError(f"{estimator} is not finite in row {row + 1}: its propensity or its reward is wrong.")
    low, high = student_t(terms, users, level)
    value = float(terms.mean())
    if report is None:
        found = uncovered(unsupported) + touches(value, most)
    else:
        found = warnings_for(report, unsupported, value, most, unit)
    return Estimate(
        estimator=estimator,
        value=value,
        low=low,
        high=high,
        interval="student-t",
        weights=report,
        unsupported=unsupported,
        calibration=calibration,
        clip=clip,
        warnings=tuple(found),
    )


def with_doubt(rows: list[Estimate], warning: str) -> list[Estimate]:
    """The rows of a log whose propensities are estimated; ``warning`` is added to those with weights."""
    return [
        replace(
            row,
            estimated_propensities=True,
            warnings=row.warnings if row.weights is None else (warning, *row.warnings),
        )
        for row in rows
    ]


def recommend(
    policies: dict[str, list[Estimate]], trusted: str, model: str = "world"
) -> dict[str, list[Estimate]]:
    """Mark one estimator, the same for each of the compared policies.

    It is ``trusted`` (``wdr``; at one step ``dr``) if for every policy its weights have an effective sample
    size of at least FEW, a Pareto k under HEAVY and a mean whose interval holds 1, and if the log lacks at
    most LOST of the policy's mass. Otherwise it is ``model``, which promises no coverage. If there is no row
    of ``model``, none is marked.
    """
    rest = [row for rows in policies.values() for row in rows if row.estimator == trusted]
    good = bool(rest) and all(enough(row) for row in rest)
    name = trusted if good else model
    return {
        policy: [replace(row, recommended=row.estimator == name) for row in rows]
        for policy, rows in policies.items()
    }


def enough(row: Estimate) -> bool:
    """True if its weights fulfil the conditions of ``recommend`` for the trusted estimator."""
    of = row.weights
    if of is None or not row.covered:
        return False
    return of.ess >= FEW and of.pareto_k < HEAVY and of.holds_one
