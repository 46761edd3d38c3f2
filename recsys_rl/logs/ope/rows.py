"""One row for each estimator, from the evidence of a policy: its terms, interval, and warnings."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from recsys_rl.errors import amount
from recsys_rl.logs.ope import clipping, world
from recsys_rl.logs.ope.diagnostics import (
    FEW,
    HEAVY,
    LOST,
    MOST_MOVE,
    SURE,
    Calibration,
    WeightReport,
    calibration,
    largest_move,
    student_t,
    weigh,
)
from recsys_rl.logs.ope.estimators import (
    CLUSTERS,
    ESTIMATORS,
    MODEL,
    PLACE_MODEL,
    Estimator,
    Evidence,
    met,
    place_residual,
)
from recsys_rl.logs.ope.result import Estimate, NotComputed
from recsys_rl.types import UserError


@dataclass(frozen=True)
class Knowledge:
    """Facts for the warnings of a policy's rows, beside its evidence."""

    # Share of the policy's mass that the log lacks; of an estimator with one of these needs, another share.
    unsupported: float = 0.0
    unsupported_by: Mapping[str, float] = field(default_factory=dict)
    most: float = float("inf")  # the largest possible return
    doubts: Mapping[str, str] = field(default_factory=dict)  # a warning about what a need is met with


@dataclass(frozen=True)
class Scored:
    """The rows of one policy, and the terms (N,) of each estimator."""

    rows: list[Estimate]
    terms: dict[str, Tensor]


def score(
    policy: str,
    log: Evidence,
    users: Tensor,
    knowledge: Knowledge | None = None,
    names: Collection[str] = ESTIMATORS,
) -> Scored:
    """Run the estimators ``names`` whose needs the evidence meets. ``users`` (N,)."""
    model, known, scored = _calibration(log), met(log), Scored([], {})
    for estimator in ESTIMATORS.values():
        if estimator.name in names and known.issuperset(estimator.needs):
            row, terms = _row(policy, estimator, log, users, knowledge or Knowledge(), model)
            scored.rows.append(row)
            scored.terms[estimator.name] = terms
    return scored


def _row(
    policy: str,
    estimator: Estimator,
    log: Evidence,
    users: Tensor,
    knowledge: Knowledge,
    model: Calibration | None,
) -> tuple[Estimate, Tensor]:
    clip = None if estimator.clip is None else clipping.by_error(estimator, log, users)
    terms = estimator.score(log) if clip is None else estimator.clipped(log, clip)
    needs = estimator.needs
    residuals = _weighed(log, estimator) @ log.discounts  # (N,)
    lost = next(
        (share for need, share in knowledge.unsupported_by.items() if need in needs), knowledge.unsupported
    )
    row = plain_row(
        policy,
        estimator.name,
        terms,
        users,
        weights=None if estimator.weights is None else estimator.weights(log),
        residuals=residuals,
        unsupported=lost,
        most=knowledge.most,
        unit="sessions" if log.rewards.shape[1] > 1 else "rows",
    )
    doubts = tuple(text for need, text in knowledge.doubts.items() if need in needs)
    row = replace(row, clip=clip, warnings=(*doubts, *row.warnings))
    if MODEL in needs and model is not None:
        row = replace(row, calibration=model, warnings=(*row.warnings, *model.warnings))
    if estimator.weights is None:  # a learned model alone
        row = replace(row, interval="model", warnings=(world.WARNING, *row.warnings))
    if CLUSTERS in needs:
        row = replace(row, interval="cluster")
    if clip is not None:
        row = replace(row, interval="clip", warnings=(clipping.WARNING, *row.warnings))
    return row, terms


def _weighed(log: Evidence, estimator: Estimator) -> Tensor:
    """(N, T): what the weights multiply."""
    if PLACE_MODEL in estimator.needs:
        assert log.slates is not None
        return place_residual(log.slates)
    return log.residual if MODEL in estimator.needs else log.rewards


def plain_row(
    policy: str,
    estimator: str,
    terms: Tensor,
    users: Tensor | None = None,
    *,
    weights: Tensor | None = None,
    residuals: Tensor | None = None,
    unsupported: float = 0.0,
    most: float = float("inf"),
    unit: str = "rows",
) -> Estimate:
    """The row of ``terms`` (N,), with a t-interval over users and the warnings of its weights.

    Args:
        weights: (N,); None for an estimator without weights.
        residuals: (N,): what is weighted, the reward or its distance from a model; None: the terms are.
        unsupported: share of the policy's mass where the log has none.
        most: the largest possible return.
        unit: of the N terms in the warnings: rows, or sessions of several steps.

    Raises UserError if a term is not finite, or with fewer than two users.
    """
    if not bool(torch.isfinite(terms).all()):
        row = int((~torch.isfinite(terms)).nonzero()[0])
        raise UserError(f"{estimator} is not finite in row {row + 1}: its propensity or its reward is wrong.")
    low, high = student_t(terms, users)
    value = float(terms.mean())
    report, move = None, 0.0
    if weights is None:
        warnings = uncovered(unsupported) + touches(value, most)
    else:
        report = weigh(weights, users)
        move = largest_move(weights, terms if residuals is None else residuals, terms, users)
        if unit == "sessions" and report.pareto_k < HEAVY and math.isfinite(move):
            move = min(move, MOST_MOVE)  # light weights of whole sessions: benchmarks/ope_coverage.py
        warnings = warnings_for(report, unsupported, value, most, unit, move)
    return Estimate(
        policy,
        estimator,
        value,
        low,
        high,
        "student-t",
        report,
        unsupported,
        warnings=tuple(warnings),
        move=move,
    )


def _calibration(log: Evidence) -> Calibration | None:
    """Calibration of the reward model on the first step's target, r_0 + g V_1; None without a model."""
    if log.q is None or log.v is None:
        return None
    target = log.residual[:, 0] + log.q[:, 0]
    return calibration(log.q[:, 0], target)


def warnings_for(
    report: WeightReport,
    unsupported: float = 0.0,
    value: float = 0.0,
    most: float = math.inf,
    unit: str = "rows",
    move: float = 0.0,
) -> list[str]:
    """Plain sentences about an estimate that rests on these weights.

    Args:
        unsupported: share of the policy's mass where the log has none.
        most: the largest possible return.
        unit: the things that have one weight each, rows or sessions.
        move: as of ``largest_move``.
    """
    warnings = []
    if report.ess < FEW:
        warnings.append(
            f"Do not trust this: the log is worth {amount(round(report.ess), unit.removesuffix('s'))} for "
            f"this policy, and {FEW} are needed."
        )
    if math.isinf(move):
        warnings.append(
            f"The {unit} show no spread: each has the same estimate, so that the interval says nothing about "
            "other rewards."
        )
    elif move > MOST_MOVE:
        warnings.append(
            f"A few {unit} decide: one more could move the estimate by {move:.2g} standard errors, and above "
            f"{MOST_MOVE:g} the interval covers the truth less often than it should."
        )
    if not report.holds_one:
        # The mean of heavy weights lies under 1 in most logs, and its interval with it.
        heavy = report.ess < FEW or report.pareto_k > HEAVY
        third = f", or the {unit} are too few for weights as heavy as these" if heavy else ""
        warnings.append(
            f"The mean weight is {report.mean:.4g} and its {SURE:.2%} interval [{report.mean_low:.4g}, "
            f"{report.mean_high:.4g}] does not hold 1: the propensities are wrong, or the log lacks actions "
            f"that the policy takes{third}."
        )
    return warnings + uncovered(unsupported) + touches(value, most)


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


def not_computed(
    kind: Mapping[str, str], lacking: Mapping[str, Mapping[str, str]]
) -> tuple[NotComputed, ...]:
    """Each reason for which estimators are missing.

    Args:
        kind: the reasons of the kind of the log, by need.
        lacking: of each policy, the reasons by need.
    """
    by_reason: dict[str, NotComputed] = {}

    def add(estimator: Estimator, lacking: Mapping[str, str], *policy: str) -> bool:
        reason = next((lacking[need] for need in estimator.needs if need in lacking), None)
        if reason is None:
            return False
        of = by_reason.get(reason, NotComputed(reason, (), ()))
        names = dict.fromkeys((*of.estimators, estimator.name))
        by_reason[reason] = NotComputed(reason, tuple(names), tuple(dict.fromkeys((*of.policies, *policy))))
        return True

    rest = [estimator for estimator in ESTIMATORS.values() if not add(estimator, kind)]
    for policy, reasons in lacking.items():
        for estimator in rest:
            add(estimator, reasons, policy)
    return tuple(by_reason.values())
