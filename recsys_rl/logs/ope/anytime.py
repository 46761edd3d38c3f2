"""Bounds of a mean that hold however often one looks: confidence sequences.

With probability ``1 - alpha`` the mean lies inside its interval after every number of terms at once, so
whoever looks after each term and stops as soon as an interval excludes 0 is wrong in at most ``alpha`` of all
sequences. The terms come in the order of time, and the next one has the same mean whatever was seen before.

Each interval is a function of the terms up to it. The intervals are not intersected: an early interval that
was lucky does not bind later ones. Who looked at each may: ``low.cummax(0).values`` and
``high.cummin(0).values`` hold with the same probability.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

TILTS = tuple(side * 2.0**power for power in range(-5, 3) for side in (-1, 1))
"""Logarithms of the odds ratios between which ``Shares`` divides its bets: 1.03 to 55, both ways."""
CAP = 0.75
"""Share of the capital that a bet may lose at most, c in 2010.09686."""


def radius(count: Tensor, alpha: float = 0.05, expected: float = 1000) -> Tensor:
    """Half-widths of the interval of a mean, in standard deviations of one term, after ``count`` terms::

        r_n = sqrt((n + rho) / n^2 * log((n + rho) / (rho alpha^2)))

    Robbins' mixture of both sides (Howard et al. 2021, arXiv:1810.08240, eq. 14), as in Waudby-Smith et al.
    2021 (arXiv:2103.06476, theorem 2.2, with rho for their 1 / rho^2). It is narrowest about at ``expected``
    terms: rho = expected / (2 log(1 / alpha) + log(1 + 2 log(1 / alpha))).

    Args:
        count: of terms, of any shape; above 0.
        alpha: in (0, 1).
        expected: fixed before the first look, and the same at each: above 0.
    Returns: of the shape of ``count``, float64.
    """
    _check_alpha(alpha)
    if not 0 < expected < math.inf:
        raise ValueError(f"expected is {expected}: it must be above 0 and finite")
    number = count.double()
    rho = _precision(expected, alpha)
    return ((number + rho) * ((number + rho) / (rho * alpha**2)).log()).sqrt() / number


def asymptotic(terms: Tensor, alpha: float = 0.05, expected: float = 1000) -> tuple[Tensor, Tensor]:
    """Interval of the mean after each term, without bounds of the terms::

        mean_n -+ s_n r_n        with r_n of ``radius`` and s_n the standard deviation of n terms (1 / n)

    The asymptotic confidence sequence of Waudby-Smith et al. 2021 (arXiv:2103.06476, theorem 2.2). It holds
    for many terms, as a t-interval does. So it is infinite before ``expected`` / 10 terms, and as long as all
    terms are equal.

    Args:
        terms: (n,), finite; none is allowed.
        alpha: in (0, 1).
        expected: number of terms at which it is to be narrowest, fixed before the first look.
    Returns: low and high, (n,) float64 each.
    """
    x = _finite(terms)
    count = torch.arange(1, len(x) + 1, dtype=torch.float64)
    half = radius(count, alpha, expected)
    shift = x[:1]  # sums of squares lose digits far from 0
    mean = (x - shift).cumsum(0) / count
    variance = ((x - shift).square().cumsum(0) / count - mean.square()).clamp(min=0)
    equal = x.cummax(0).values == x.cummin(0).values
    half = torch.where(equal | (count < expected / 10), torch.inf, half * variance.sqrt())
    return mean + shift - half, mean + shift + half


class Capital:
    """Logarithms of the capital of two players for each of M means, term by term.

    One player bets that the mean is above m, the other one that it is below::

        K_n+ = prod_i (1 + min(b_i, c / (m - least_i)) (x_i - m)),   K_n- the same of -x_i, -m and -most_i
        b_i = sqrt(2 log(2 / alpha) / (v_i i log(i + 1))) / w_i,     w_i = most_i - least_i
        v_i the variance of x_j / w_j of the terms before i

    Waudby-Smith and Ramdas 2020 (arXiv:2010.09686, eq. 15 and theorem 3, c = 3 / 4). The true mean has
    2 / alpha with either player in at most alpha / 2 of all sequences, whenever one looks: the mean is surely
    above m while the first one has 2 / alpha, and below m while the second one has. What new terms cost does
    not depend on how many came before.
    """

    def __init__(self, means: Tensor, alpha: float = 0.05) -> None:
        """``means``: (M,), within the bounds of every term."""
        _check_alpha(alpha)
        self.means, self.alpha, self.count = means.double()[:, None], alpha, 0
        self.above = self.below = torch.zeros_like(self.means)  # after the terms so far, (M, 1) each
        # Of x / w: the sum, and that of squares of distances from the mean. The first guesses of mean and
        # variance are those of a coin within the bounds, and count as one term.
        self.total, self.squares = torch.zeros(1, dtype=torch.float64), torch.full((1,), 0.25).double()

    def add(self, terms: Tensor, least: float | Tensor, most: float | Tensor) -> tuple[Tensor, Tensor]:
        """Log K+ and log K- after each of the next terms, (M, n) each.

        Args:
            terms: (n,), within [least, most]; none is allowed.
            least, most: one for all terms, or (n,) with one for each, which earlier rows alone may decide.
        """
        x, low, high = _bounded(terms, least, most)
        if not len(x):
            return self.above[:, :0], self.below[:, :0]
        bets = self._bets(x / (high - low), (low + high)[:1] / 2 / (high - low)[:1]) / (high - low)
        above = _running(self.above, _gains(x, low, bets, self.means))
        below = _running(self.below, _gains(-x, -high, bets, -self.means))
        self.above, self.below = above[:, -1:], below[:, -1:]
        return above[:, 1:], below[:, 1:]

    def _bets(self, x: Tensor, middle: Tensor) -> Tensor:
        """(n,): b_i w_i of terms in units of their widths."""
        count = torch.arange(self.count + 1, self.count + len(x) + 1, dtype=torch.float64)
        totals = _running(self.total if self.count else middle, x)
        squares = _running(self.squares, (x - totals[1:] / (count + 1)).square())
        variance = squares[:-1] / count  # of the terms before i
        self.count, self.total, self.squares = self.count + len(x), totals[-1:], squares[-1:]
        return (2 * math.log(2 / self.alpha) / (variance * count * (count + 1).log())).sqrt()


def _running(first: Tensor, values: Tensor) -> Tensor:
    """Sums along the last dimension from ``first`` on, which comes first: the same ones block by block."""
    return torch.cat([first, values], -1).cumsum(-1)


def _gains(x: Tensor, least: Tensor, bets: Tensor, means: Tensor) -> Tensor:
    """(M, n): the growth of log K+ at each term, for each of the means (M, 1)."""
    return (torch.minimum(bets, CAP / (means - least).clamp(min=1e-300)) * (x - means)).log1p_()


def arm_terms(of_challenger: Tensor, probability: Tensor, outcomes: Tensor) -> Tensor:
    """One stream of terms whose mean is the challenger's mean outcome minus the champion's::

        x_i = (1[challenger] / p_i - 1[champion] / (1 - p_i)) y_i

    Inverse probability weighting (Horvitz and Thompson 1952), each row with its own probability, so that a
    share may grow. What is subtracted from y_i may depend on earlier rows (``centred``): the mean stays.

    Args:
        of_challenger: (n,) bool.
        probability: (n,) of the challenger, within (0, 1).
        outcomes: (n,), finite.
    Returns: (n,) float64.
    """
    _check_shares(of_challenger, probability)
    if outcomes.shape != of_challenger.shape:
        raise ValueError(f"outcomes {tuple(outcomes.shape)} don't fit arms {tuple(of_challenger.shape)}")
    p = probability.double()
    return torch.where(of_challenger, 1 / p, -1 / (1 - p)) * _finite(outcomes)


def centred(outcomes: Tensor, people: Tensor) -> Tensor:
    """Each outcome minus the mean of the person's earlier ones: what of it was not known before.

    Without an earlier outcome of the person, the mean of all earlier outcomes is subtracted, and from the
    first row nothing. Row i uses rows before it alone. It is for arms that are drawn for each row.

    Args:
        outcomes: (n,), finite, in the order of time.
        people: (n,) int64.
    Returns: (n,) float64.
    """
    if people.shape != outcomes.shape:
        raise ValueError(f"people {tuple(people.shape)} don't fit outcomes {tuple(outcomes.shape)}")
    y = _finite(outcomes)
    earlier, sums = _earlier(y, people)
    return y - torch.where(earlier > 0, sums / earlier.clamp(min=1), _running_mean(y))


def _running_mean(y: Tensor) -> Tensor:
    """(n,): the mean of the rows before each; 0 for the first."""
    return (y.cumsum(0) - y) / torch.arange(len(y)).clamp(min=1)


def _earlier(y: Tensor, people: Tensor) -> tuple[Tensor, Tensor]:
    """The number of the person's earlier rows (n,) int64, and their sum (n,)."""
    rows = torch.arange(len(y))
    order = people.argsort(stable=True)
    _, person, visits = people.unique(return_inverse=True, return_counts=True)
    first = (visits.cumsum(0) - visits)[person[order]]  # of each person, in the order
    earlier, sums = torch.empty_like(rows), torch.empty_like(y)
    earlier[order] = rows - first
    before = torch.cat([y.new_zeros(1), y[order].cumsum(0)])
    sums[order] = before[:-1] - before[first]
    return earlier, sums


class Shares:
    """A test of the arms' shares that holds however often one looks, row by row.

    The martingale that divides its bets among the odds ratios of TILTS, each row with its own probability (a
    mixture of likelihood ratios; Lindon and Malek 2022, arXiv:2011.03567), is ever at least 1 / alpha with
    right shares in at most ``alpha`` of all sequences.
    """

    def __init__(self) -> None:
        self.logs = torch.zeros(len(TILTS), 1, dtype=torch.float64)

    def add(self, of_challenger: Tensor, probability: Tensor) -> Tensor:
        """(n,): the logarithm of the martingale after each of the next rows.

        Args:
            of_challenger: (n,) bool.
            probability: (n,) of the challenger, within (0, 1).
        """
        _check_shares(of_challenger, probability)
        tilts, p = torch.tensor(TILTS, dtype=torch.float64)[:, None], probability.double()
        # The tilted probability is p e^t / (1 - p + p e^t): its ratio to p, and that of the champion's.
        logs = _running(self.logs, torch.where(of_challenger, tilts, 0.0) - (p * tilts.expm1()).log1p())
        self.logs = logs[:, -1:]
        return logs[:, 1:].logsumexp(0) - math.log(len(TILTS))


def _precision(expected: float, alpha: float) -> float:
    """The precision of a mixture that is narrowest about at ``expected`` (1810.08240, section 3.5)."""
    log = -2 * math.log(alpha)
    return expected / (log + math.log(1 + log))


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}: it must lie in (0, 1)")


def _finite(values: Tensor) -> Tensor:
    if values.dim() != 1 or not bool(values.double().isfinite().all()):
        raise ValueError("the terms must be one row of finite numbers")
    return values.double()


def _bounded(terms: Tensor, least: float | Tensor, most: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The terms within their bounds, and these, (n,) float64 each. Raises ValueError for a term outside."""
    x = _finite(terms)
    low, high = (torch.as_tensor(bound, dtype=torch.float64).expand(x.shape) for bound in (least, most))
    if not bool((low.isfinite() & high.isfinite() & (low < high)).all()):
        raise ValueError("the bounds must be finite, and the second one larger")
    slack = 1e-9 * (high - low)
    if not bool(((low - slack <= x) & (x <= high + slack)).all()):
        raise ValueError(f"a term lies outside its bounds, of at least {low.min()} and at most {high.max()}")
    return x.clamp(low, high), low, high


def _check_shares(of_challenger: Tensor, probability: Tensor) -> None:
    if of_challenger.dtype != torch.bool or of_challenger.dim() != 1:
        raise ValueError("of_challenger must be one row of True and False")
    if probability.shape != of_challenger.shape:
        raise ValueError(f"{len(probability)} probabilities don't fit {len(of_challenger)} rows")
    p = probability.double()
    if not bool(((p > 0) & (p < 1)).all()):
        raise ValueError("a probability of the challenger lies outside (0, 1)")
