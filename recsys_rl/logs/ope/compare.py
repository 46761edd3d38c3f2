"""The recommended estimator, and the difference of two policies by it, however often one looks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from recsys_rl.logs.ope.anytime import radius
from recsys_rl.logs.ope.diagnostics import FEW, MOST_MOVE, standard_error, user_terms
from recsys_rl.logs.ope.lower import LOWER, SingleDecisions
from recsys_rl.logs.ope.result import LOGGED, Difference, Estimate, WorldCheck

MODELS = ("world", "fqe", "dm")
"""Estimators without weights, in the order in which they stand in for the recommended one."""
PLACES = ("cascade-dr", "rips")
"""Of slates whose places have rewards and probabilities, in sessions of one step: the first that all policies
have is the recommended one."""
MOST = 1e15  # users


def stand_ins(trusted: str) -> tuple[str, ...]:
    """The estimators that stand for a policy whose weights don't allow ``trusted``, best first; no promise.

    Of sessions of several steps those of a model: the weights multiply and say nothing. Of one step the
    trusted one itself (``dr``, or of PLACES): a model of single decisions is pulled to the mean of the log.
    """
    return MODELS if trusted == "wdr" else (trusted,)


def recommend(rows: Sequence[Estimate], trusted: str) -> list[Estimate]:
    """Mark one estimator, the same for each of the compared policies.

    It is ``trusted`` (``wdr``; at one step ``dr``, or one of PLACES) if it is good ``enough`` for every
    policy. Otherwise it is the first of ``stand_ins`` for sessions of several steps, which promises no
    coverage; at one step, and if there is no row of it, none is marked.
    """
    rest = [row for row in rows if row.estimator == trusted]
    good = bool(rest) and all(enough(row) for row in rest)
    name = trusted if good else next(name for name in (*stand_ins(trusted), "") if name != trusted)
    return [replace(row, recommended=row.estimator == name) for row in rows]


def enough(row: Estimate) -> bool:
    """True if the interval of its mean covers the truth as often as it says.

    It does with at least FEW effective samples, no row that could move it by more than MOST_MOVE standard
    errors, a mean weight whose interval holds 1, and at most LOST of the policy's mass that the log lacks.
    """
    of = row.weights
    if of is None or not row.covered:
        return False
    return of.ess >= FEW and row.move <= MOST_MOVE and of.holds_one


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

    Its interval is that of ``anytime.asymptotic`` with one term for each user: mean -+ s r_U. Whoever looks
    at a growing log as often as they like is wrong in at most ``1 - level`` of all logs, of many users.

    ``doubt``, ``covered``, ``trusted``, ``model``, ``missing``: as in Difference.
    """
    terms = first - second
    number = len(user_terms(terms, users))
    spread = float(standard_error(terms, users)) * math.sqrt(number)  # of a user's term
    value, half = float(terms.mean()), spread * _radius(number, level)
    more = 0.0 if trusted else math.inf
    if half >= abs(value):
        settles = value and covered and trusted
        more = rows * (_settled_at(abs(value) / spread, number, level) / number - 1) if settles else math.inf
    low, high = value - half, value + half
    return Difference(
        *names, estimator, value, low, high, rows, more, doubt, covered, trusted, model, missing
    )


def by_lower_bound(
    names: tuple[str, str],
    policies: tuple[str, str],
    single: SingleDecisions | None,
    users: Tensor,
    rows: int,
) -> Difference | None:
    """The difference by the lower bound of one policy minus the other, if one of the two is above 0.

    The end of the interval that is far from 0 is infinite. The arguments are those of ``compare``.
    """
    mine, theirs = policies
    for sign, pair in ((1, (mine, theirs)), (-1, (theirs, mine))):
        terms = None if single is None else single.terms_of(*pair, users)
        found = None if terms is None else difference(names, LOWER, *terms, users, rows)
        if found is not None and found.low > 0:
            low, high = sorted((sign * found.low, sign * math.inf))
            return replace(found, value=sign * found.value, low=low, high=high)
    return None


def _radius(number: float, level: float) -> float:
    return float(radius(torch.tensor(number), 1 - level))


def _settled_at(ratio: float, number: float, level: float) -> float:
    """The number of users at which the radius falls to ``ratio``, from ``number`` on; infinite above MOST."""
    low, high = math.log(number), math.log(MOST)
    if _radius(MOST, level) > ratio:
        return math.inf
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _radius(math.exp(middle), level) > ratio else (low, middle)
    return math.exp(high)


CHECKED = "a model that was checked on another policy, and promises nothing"


def about_model(checks: Sequence[WorldCheck]) -> str:
    """The learned model in words, if it was not checked or failed a check; else ""."""
    if not checks:
        return "a model that was NOT checked on another policy"
    wrong = sum(check.wrong for check in checks)
    return f"a model that FAILED {wrong} of {len(checks)} checks on other policies" if wrong else ""


def compare(
    names: tuple[str, str],
    policies: tuple[str, str],
    rows: Sequence[Estimate],
    terms: Mapping[str, Mapping[str, Tensor]],
    users: Tensor,
    num_rows: int,
    trusted: str,
    checks: Sequence[WorldCheck],
    loggers: Sequence[str] = (),
    single: SingleDecisions | None = None,
) -> Difference:
    """The difference of two policies, by the recommended estimator or the next best that both have.

    Args:
        names: of the policies in the answer.
        policies: the same, as ``rows`` and ``terms`` name them.
        rows: of the table, with the recommended ones marked.
        terms: (N,) of each estimator of each policy; ``mean`` is what the log's own policy earned.
        users: (N,).
        num_rows: of the log.
        trusted: the estimator to trust, if its weights allow it.
        checks: of the learned model of `world`.
        loggers: policies that give the logged propensities on every row: they are the one that logged.
        single: for the lower bound, which answers where the estimator can't be trusted; None: there is none.
    """
    if all(policy in (*loggers, LOGGED) for policy in policies):
        same = tuple(name for name, policy in zip(names, policies, strict=True) if policy != LOGGED)
        return Difference(*names, "mean", 0.0, 0.0, 0.0, num_rows, 0.0, same=same)
    mine = [row for policy in policies for row in rows if row.policy == policy]
    marked = next((row.estimator for row in mine if row.recommended), None)
    by = next(
        str(name)
        for name in (marked, trusted, "snips", "wpdis")
        if all(name in terms[policy] or "mean" in terms[policy] for policy in policies)
    )
    # snips and wpdis stand in for an estimator that can't be computed, and must meet its conditions.
    good = by == marked or (by != trusted and all(enough(row) for row in mine if row.estimator == by))
    bound = None if good else by_lower_bound(names, policies, single, users, num_rows)
    if bound is not None:
        return bound
    warned: dict[str, list[str]] = {}  # the policies of each warning
    for row in mine:
        if row.estimator in (by, "mean") and row.warnings:
            warned.setdefault(row.warning, []).append(row.policy)
    doubts = [f"Warning for {' and '.join(those)}: {text}" for text, those in warned.items()]
    first, second = (terms[policy].get(by, terms[policy].get("mean")) for policy in policies)
    assert first is not None and second is not None
    return difference(
        names,
        by,
        first,
        second,
        users,
        num_rows,
        doubt=" ".join(doubts),
        covered=all(row.covered for row in mine),
        trusted=good,
        model=about_model(checks) or CHECKED if by == "world" else "",
        missing="" if by in (marked, trusted) else trusted,
    )
