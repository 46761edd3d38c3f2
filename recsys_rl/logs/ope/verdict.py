"""The small table of a log: each policy by one estimate, and whether it is better than what the log earned.

The estimate is the one that is recommended (compare.py) if the policy's weights allow it, each policy for
itself. Otherwise it is marked `no promise`, of sessions that of a model, and of single decisions a lower
bound may still know the answer (lower.py). A verdict is by the difference on the same sessions, in which the
log's own policy earned what it earned, and holds however often one looks. It has four values: better, worse,
can't tell, and that the log is broken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from torch import Tensor

from recsys_rl.errors import UserError, amount
from recsys_rl.logs.ope.answer import BROKEN, CANT_TELL, Answer
from recsys_rl.logs.ope.compare import MODELS, PLACES, by_lower_bound, difference, enough, stand_ins
from recsys_rl.logs.ope.diagnostics import FEW, HEAVY, MOST_MOVE
from recsys_rl.logs.ope.lower import EARLIER, LOWER, SingleDecisions
from recsys_rl.logs.ope.parts import Totals
from recsys_rl.logs.ope.result import LOGGED, Difference, Estimate, Verdict, number

LIKELY = (
    "the likely cause, unless the log has one, is a missing column candidates, where a decision could show "
    "only some of the items"
)
"""The end of a sentence about weights that are too small on average."""
COPIES = 0.01
"""Share of sessions that repeat another one, above which a log is broken."""


@dataclass(frozen=True)
class Estimates:
    """The estimates from which verdicts are made."""

    rows: Sequence[Estimate]  # of all policies, with one of LOGGED
    terms: Mapping[str, Mapping[str, Tensor]]  # (N,) of each estimator of each policy; LOGGED has its mean
    users: Tensor  # (N,)
    num_rows: int  # of the log
    trusted: str  # the estimator to trust, if a policy's weights allow it
    same: Sequence[str] = ()  # policies that give the logged propensities on every row
    broken: str = ""  # what is wrong with the log, whatever the policy
    single: SingleDecisions | None = None  # for the lower bound; None: there is none
    rarest: float = 0.0  # the smallest probability of a decision, of single ones; 0 if it is unknown

    @property
    def unit(self) -> str:
        """The word for a session."""
        return "session" if len(self.users) < self.num_rows else "decision"

    def of(self, policy: str) -> dict[str, Estimate]:
        """The rows of a policy by estimator."""
        return {row.estimator: row for row in self.rows if row.policy == policy}


def verdict_on(known: Estimates, policy: str, other: str = LOGGED) -> Verdict:
    """The verdict on a policy against another one, by one estimator that both have."""
    mine, theirs = known.of(policy), known.of(other)
    if policy == LOGGED:
        row = next(iter(mine.values()))
        return Verdict(policy, row.estimator, row.value, row.low, row.high)
    judged = [rows.get(known.trusted) for rows in (mine, theirs)[: 1 if other == LOGGED else 2]]
    good = all(row is not None and enough(row) for row in judged)
    shared = [name for name in mine if other == LOGGED or name in theirs]
    first = (known.trusted,) if good else stand_ins(known.trusted)
    name = next(name for name in (*first, *MODELS, *shared) if name in shared)
    row, best = mine[name], judged[0]
    against = known.terms[other]
    paired = difference(
        (policy, other),
        name,
        known.terms[policy][name],
        against["mean"] if other == LOGGED else against[name],
        known.users,
        known.num_rows,
        covered=row.covered and (other == LOGGED or theirs[name].covered),
    )
    wrong = known.broken or next((text for text in map(_wrong_weights, judged) if text), "")
    same = policy in known.same and other in (*known.same, LOGGED)
    bound = None
    if not (good or wrong or same):
        bound = by_lower_bound((policy, other), (policy, other), known.single, known.users, known.num_rows)
    paired = bound or paired
    answer: Answer = CANT_TELL
    if wrong:
        answer, reason = BROKEN, wrong
    elif same:
        reason = "it is the policy that logged"
    elif (good or bound) and paired.settled:
        answer, reason = ("better" if paired.value > 0 else "worse"), ""
    else:
        lacking = next((row for row in judged if row is None or not enough(row)), best)
        reason = _reason(known, lacking, paired)
    ess = None if best is None or best.weights is None else best.weights.ess
    interval = (paired.value, paired.low, paired.high)
    by = "" if bound is None else bound.estimator
    return Verdict(policy, name, row.value, row.low, row.high, ess, good, answer, interval, reason, other, by)


def about_log(totals: Totals) -> str:
    """The fault of a log, whatever the policy; "" for a sound one."""
    if totals.copies > COPIES * totals.sessions:
        return (
            f"{totals.copies:,} of its {amount(totals.sessions, 'session')} repeat another one in user, "
            "time, items and signals: remove the copies"
        )
    return ""


def _wrong_weights(row: Estimate | None) -> str:
    """The fault of the propensities, where weights are good but for their mean; else ""."""
    if row is None or row.weights is None or not row.covered:
        return ""
    of = row.weights
    if not wrong_weights(row):
        return ""
    if row.estimator in PLACES and of.mean < 1:  # weights of places multiply: few rows have the large ones
        return ""
    too_large = "" if of.mean > 1 else f", or it lacks choices of this policy; {LIKELY}"
    return (
        f"the mean weight of {row.policy} is {of.mean:.3g} and not 1, though they are many and light: its "
        f"propensities are wrong{too_large}"
    )


def wrong_weights(row: Estimate) -> bool:
    """True if the mean of the row's weights is surely not 1, though they are many and light."""
    of = row.weights
    return of is not None and of.ess >= FEW and of.pareto_k < HEAVY and not of.holds_one


def _reason(known: Estimates, row: Estimate | None, paired: Difference) -> str:
    """Why nobody can tell, and what would settle it; ``row`` of the estimator to trust."""
    if row is None or row.weights is None:
        return "no estimate with a promise can be computed"
    of, unit = row.weights, known.unit
    if not row.covered:
        return (
            "the log lacks choices that it makes, and no log of the policy that logged ever will have them, "
            "so give it a part of the users"
        )
    if enough(row):
        if not math.isfinite(paired.more_rows):
            return "no difference was seen, and no number of rows would settle it"
        return f"about {paired.more_rows:,.0f} more decisions would settle it"
    if math.isinf(row.move):
        return (
            f"each {unit} has the same estimate, so that its error is unknown: give more {unit}s of the log"
        )
    if of.ess < FEW:
        why = f"the log is worth {amount(round(of.ess), unit)} for it, and {FEW} are needed"
    elif row.move > MOST_MOVE:
        why = f"one more {unit} could move the estimate by {row.move:.2g} standard errors"
    else:
        heavy = ", or too few rows for weights as heavy as these" if not of.pareto_k < HEAVY else ""
        wrong = f"wrong propensities, or the log lacks its choices{heavy}"
        return f"its mean weight is {of.mean:.3g} and not 1: {wrong}"
    more = _more(known, row, paired)
    if not math.isfinite(more):
        return f"{why}; more of the same log hardly helps, so give it a part of the users"
    return f"{why}: about {more:,.0f} more {unit}s would settle it"


def _more(known: Estimates, row: Estimate, paired: Difference) -> float:
    """The sessions beside the log's N after which there is an answer; infinite if that is unknown.

    Effective samples rise with N, and what one row could move falls with its root. An effective size below 2
    is that of one weight, which says nothing of others; but with weights up to b, as of probabilities of at
    least 1 / b, it is at least N / b: E w^2 <= b E w.
    """
    assert row.weights is not None
    number, ess = len(known.users), row.weights.ess
    at = number * max(FEW / max(ess, 1e-9), (row.move / MOST_MOVE) ** 2)
    if ess < 2:
        at = min(at, max(FEW / known.rarest, number + 1)) if known.rarest else math.inf
    if paired.estimator == known.trusted and math.isfinite(paired.more_rows):
        at = max(at, number * (1 + paired.more_rows / known.num_rows))
    return at - number


def verdict_lines(table: Sequence[Verdict], headline: str) -> list[str]:
    """The small table; ``headline``: the policy of the row that counts."""
    width = max(len("policy"), *(len(row.policy) for row in table)) + 2
    lines = [
        f"{'policy':<{width}}{'estimate':>9}  {'95 % interval':<20}{'ess':>8}  against what the log earned"
    ]
    for row in table:
        interval = f"[{number(row.low)}, {number(row.high)}]"
        ess = "" if row.ess is None else f"{row.ess:,.0f}"
        mark = "  <- this policy" if row.policy == headline else ""
        lines.append(
            f"{row.policy:<{width}}{number(row.value):>9}  {interval:<20}{ess:>8}  {row.words}{mark}".rstrip()
        )
    return lines


def read_verdicts(values: object) -> list[Verdict]:
    """The rows of a JSON file. Raises UserError for other values."""
    try:
        assert isinstance(values, list)
        table = [Verdict(**{**row, "difference": _numbers(row["difference"])}) for row in values]
        table = [replace(row, by=LOWER) if row.by == EARLIER else row for row in table]
        sound = bool(table) and all(map(_is_row, table))
    except (AssertionError, KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise UserError("It holds no table of estimates.")
    return table


def _numbers(values: Any) -> tuple[float, float, float] | None:
    if values is None:
        return None
    value, low, high = values  # an end that is null is infinite
    ends = -math.inf if low is None else float(low), math.inf if high is None else float(high)
    return float(value), *ends


def _is_row(row: Verdict) -> bool:
    texts = (row.policy, row.estimator, row.reason, row.against, row.by)
    numbers = (row.value, row.low, row.high, 0.0 if row.ess is None else row.ess)
    return (
        all(type(text) is str for text in texts)
        and all(type(x) in (int, float) for x in numbers)
        and type(row.promise) is bool
        and row.answer in ("", *get_args(Answer))
    )
