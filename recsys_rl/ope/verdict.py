"""The small table of a log: each policy by one estimate, and whether it is better than what the log earned.

The estimate is the one that is recommended (compare.py) if the policy's weights allow it, each policy for
itself. Otherwise it is marked `no promise`, of sessions that of a model, and there is no verdict. A verdict
is by the difference on the same sessions, in which the log's own policy earned what it earned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from torch import Tensor

from recsys_rl.errors import UserError, amount
from recsys_rl.ope.compare import difference, enough
from recsys_rl.ope.diagnostics import FEW, HEAVY
from recsys_rl.ope.judge import LOGGED
from recsys_rl.ope.result import Difference, Estimate, number

CANT_TELL: Final = "can't tell"
MODELS = ("world", "fqe", "dm")
"""Estimators without weights, in the order in which they stand in for the recommended one."""
Answer = Literal["better", "worse", "can't tell", ""]


@dataclass(frozen=True)
class Verdict:
    """A row of the small table."""

    policy: str
    estimator: str
    value: float
    low: float
    high: float
    ess: float | None = None  # effective sample size of its weights; None without weights
    promise: bool = True  # False: the interval promises no coverage
    answer: Answer = ""  # against what the log earned; "" for the log itself
    difference: tuple[float, float, float] | None = None  # from what the log earned, with its interval
    reason: str = ""  # why nobody can tell

    def values(self) -> dict[str, Any]:
        """The values of a JSON row."""
        return {**vars(self), "difference": None if self.difference is None else list(self.difference)}


def verdicts(
    rows: Sequence[Estimate],
    terms: Mapping[str, Mapping[str, Tensor]],
    earned: Tensor,
    users: Tensor,
    num_rows: int,
    trusted: str,
    same: Sequence[str] = (),
) -> list[Verdict]:
    """A verdict for each policy of the rows, in their order.

    Args:
        rows: of all policies, with one of LOGGED.
        terms: (N,) of each estimator of each policy.
        earned: (N,), what the log's own policy earned in each session.
        users: (N,).
        num_rows: of the log.
        trusted: the estimator to trust, if a policy's weights allow it.
        same: policies that give the logged propensities on every row.
    """
    unit = "session" if len(users) < num_rows else "decision"
    table = []
    for policy in dict.fromkeys(row.policy for row in rows):
        mine = {row.estimator: row for row in rows if row.policy == policy}
        if policy == LOGGED:
            row = next(iter(mine.values()))
            table.append(Verdict(policy, row.estimator, row.value, row.low, row.high))
            continue
        best = mine.get(trusted)
        known = best is not None and enough(best)
        stand_ins = (trusted,) if known or unit == "decision" else MODELS
        row = next(mine[name] for name in (*stand_ins, *MODELS, *mine) if name in mine)
        paired = difference(
            (policy, LOGGED),
            row.estimator,
            terms[policy][row.estimator],
            earned,
            users,
            num_rows,
            covered=row.covered,
            trusted=known,
        )
        answer: Answer = CANT_TELL
        if paired.settled and policy not in same:
            answer = "better" if paired.value > 0 else "worse"
        reason = "" if answer != CANT_TELL else _reason(best, paired, unit)
        table.append(
            Verdict(
                policy,
                row.estimator,
                row.value,
                row.low,
                row.high,
                None if best is None or best.weights is None else best.weights.ess,
                known,
                answer,
                (paired.value, paired.low, paired.high),
                "it is the policy that logged" if policy in same else reason,
            )
        )
    return table


def _reason(row: Estimate | None, paired: Difference, unit: str) -> str:
    """Why nobody can tell; ``row`` of the estimator to trust."""
    if row is None or row.weights is None:
        return "no estimate with a promise can be computed"
    of = row.weights
    if not row.covered:
        return "the log lacks choices that it makes"
    if of.ess < FEW:
        return f"the log is worth {amount(round(of.ess), unit)} for it, and {FEW} are needed"
    if not of.holds_one:
        return f"its mean weight is {of.mean:.3g} and not 1: wrong propensities, or the log lacks its choices"
    if not of.pareto_k < HEAVY:
        return "a few large weights decide"
    more = paired.more_rows
    if not math.isfinite(more):
        return "no difference was seen"
    return f"about {more:,.0f} more decisions would settle it"


def verdict_lines(table: Sequence[Verdict], headline: str) -> list[str]:
    """The small table; ``headline``: the policy of the row that counts."""
    width = max(len("policy"), *(len(row.policy) for row in table)) + 2
    lines = [
        f"{'policy':<{width}}{'estimate':>9}  {'95 % interval':<20}{'ess':>8}  against what the log earned"
    ]
    for row in table:
        interval = f"[{number(row.low)}, {number(row.high)}]"
        ess = "" if row.ess is None else f"{row.ess:,.0f}"
        words = str(row.answer)
        if row.answer in ("better", "worse") and row.difference is not None:
            words += " by {} [{}, {}]".format(*(number(abs(x)) for x in _ordered(row.difference)))
        words += f": {row.reason}" if row.reason else ""
        words += "" if row.promise else f" ({row.estimator}: no promise)"
        mark = "  <- this policy" if row.policy == headline else ""
        lines.append(
            f"{row.policy:<{width}}{number(row.value):>9}  {interval:<20}{ess:>8}  {words}{mark}".rstrip()
        )
    return lines


def _ordered(of: tuple[float, float, float]) -> tuple[float, float, float]:
    """A difference with its interval, as amounts: the nearer end first."""
    value, low, high = of
    return (value, low, high) if value > 0 else (value, high, low)


def read_verdicts(values: object) -> list[Verdict]:
    """The rows of a JSON file. Raises UserError for other values."""
    try:
        assert isinstance(values, list)
        table = [Verdict(**{**row, "difference": _numbers(row["difference"])}) for row in values]
        sound = bool(table) and all(map(_is_row, table))
    except (AssertionError, KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise UserError("It holds no table of estimates.")
    return table


def _numbers(values: Any) -> tuple[float, float, float] | None:
    if values is None:
        return None
    value, low, high = map(float, values)
    return value, low, high


def _is_row(row: Verdict) -> bool:
    texts = (row.policy, row.estimator, row.reason)
    numbers = (row.value, row.low, row.high, 0.0 if row.ess is None else row.ess)
    return (
        all(type(text) is str for text in texts)
        and all(type(x) in (int, float) for x in numbers)
        and type(row.promise) is bool
        and row.answer in get_args(Answer)
    )
