"""Confidence intervals of the mean of terms, where the rows of one user may depend on each other."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy.special import stdtrit
from torch import Tensor

from recsys_rl.types import UserError

RESAMPLES = 1999
HUGE = 1e100
"""Terms above it are divided by the largest before they are squared."""

PROMISES = {
    "student-t": "right for many users and light tails; it covers less with few effective samples",
    "bootstrap": "right for many users; it covers less with few effective samples",
    "model": "no promise: the spread of a learned model's answers, without the model's error",
    "clip": "no promise: the spread of an estimate with a clip, without the error that the clip makes",
    "bernstein": "holds for every number of users if no reward lies outside those of the log; wide",
}
"""The promise of each kind of interval, as the report prints it."""
NO_PROMISE = ("model", "clip")
"""The kinds of intervals that promise nothing."""


def by_user(users: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of ``values`` (E,) over the rows of each user, and the numbers of rows, (U',) each."""
    _, place, count = users.unique(return_inverse=True, return_counts=True)
    total = values.new_zeros(len(count)).index_add_(0, place, values)
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


def bootstrap(
    estimate: Callable[[Tensor], float],
    num_rows: int,
    generator: torch.Generator,
    users: Tensor | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """The percentile interval of ``estimate(rows)`` over resamples of whole users.

    Args:
        estimate: the estimate from the rows ``(B,)`` int64 of the log, where one may be several times.
        num_rows: E.
        users: (E,) int64; None: each row is a user.
    """
    users = torch.arange(num_rows) if users is None else users
    order = users.argsort(stable=True)  # rows of one user together
    count = users.unique(return_counts=True)[1]  # (U',)
    if len(count) < 2:
        raise UserError("The log has one user: an interval over users needs at least two, so add users.")
    start = count.cumsum(0) - count
    values = []
    for _ in range(resamples):
        drawn = torch.randint(len(count), (len(count),), generator=generator)
        sizes = count[drawn]
        inside = torch.arange(int(sizes.sum())) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
        values.append(estimate(order[start[drawn].repeat_interleave(sizes) + inside]))
    ordered = sorted(values)
    tail = int((resamples + 1) * (1 - level) / 2)  # 1,999 resamples: the 50th smallest and the 50th largest
    return ordered[max(tail, 1) - 1], ordered[-max(tail, 1)]


# mean +- sqrt(2 s^2 ln(4/alpha) / U) + 7 R ln(4/alpha) / (3 (U - 1)): Maurer and Pontil 2009, both sides
def bernstein(
    terms: Tensor, low: float, high: float, users: Tensor | None = None, level: float = 0.95
) -> tuple[float, float]:
    """The empirical Bernstein interval of terms that lie in [low, high] for every log.

    ``low`` and ``high`` follow from the largest weight that the two policies can have, not the largest in
    this log. Raises UserError if a term lies outside, or if users have different numbers of rows.
    """
    if float(terms.min()) < low - 1e-9 or float(terms.max()) > high + 1e-9:
        raise UserError(
            f"A term of the estimate lies outside [{low:g}, {high:g}]: give the bound that the policies have."
        )
    if users is not None:
        total, count = by_user(users, terms)
        if float(count.min()) != float(count.max()):
            raise UserError(
                "The Bernstein interval needs the same number of rows for each user: choose student-t."
            )
        terms = total / count
    number = len(terms)
    if number < 2:
        raise UserError("The log has one user: an interval over users needs at least two, so add users.")
    log = math.log(4 / (1 - level))
    half = math.sqrt(2 * float(terms.var()) * log / number) + 7 * (high - low) * log / (3 * (number - 1))
    mean = float(terms.mean())
    return max(mean - half, low), min(mean + half, high)
