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
"""Logarithms of the odds ratios between which ``share_bound`` divides its bets: 1.03 to 55, both ways."""
CAP = 0.75
"""Share of the capital that a bet may lose at most, c in 2010.09686."""
BLOCK = 2_000_000  # numbers of a block of bets: 16 MB


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


def empirical_bernstein(
    terms: Tensor, least: float, most: float, alpha: float = 0.05
) -> tuple[Tensor, Tensor]:
    """Interval of the mean after each term, for terms that can't lie outside [least, most]::

        mean_n - u(V_n) / n,    V_n = sum_i (x_i - m_i)^2,   m_i the mean of the terms before i

    u is the boundary of ``gamma_exponential`` at ``alpha`` / 2; the upper end is that of the negative terms.
    The sequence of doubly robust terms of Waudby-Smith et al. 2022 (arXiv:2210.10768, section 2.3; Howard et
    al. 2021, arXiv:1810.08240, theorem 4). It holds for every number of terms. Each end depends on its own
    side alone: the lower one of (w - 1) r is narrow however large w can be.

    The scale is the distance of each end from 0 if 0 lies between them, as for differences (m_i is then at
    most 0 for the lower end and at least 0 for the upper one), else that of one end from the other.

    Args:
        terms: (n,), within [least, most]; none is allowed.
        alpha: in (0, 1).
    Returns: low and high, (n,) float64 each, within [least, most].
    """
    x = _bounded(terms, least, most)[0]
    _check_alpha(alpha)
    inside = least < 0 < most
    low = _lower_end(x, least, 0.0 if inside else most, alpha / 2)
    high = -_lower_end(-x, -most, 0.0 if inside else -least, alpha / 2)
    return low.clamp(least, most), high.clamp(least, most)


def _lower_end(x: Tensor, least: float, top: float, alpha: float) -> Tensor:
    """(n,): as in ``empirical_bernstein``, with predictions of at most ``top``."""
    count = torch.arange(1, len(x) + 1, dtype=torch.float64)
    sums = x.cumsum(0)
    scale = top - least
    before = torch.cat([x.new_tensor([(least + top) / 2]), sums[:-1] / count[:-1]])[: len(x)]
    spread = (x - before.clamp(max=top)).square().cumsum(0)  # V, (n,)
    bound = gamma_exponential(spread / scale**2, alpha) * scale
    return (sums - bound) / count


def gamma_exponential(spread: Tensor, alpha: float, expected: float = 30.0) -> Tensor:
    """The boundary u of a sum S that stays below u(V) for ever with probability 1 - ``alpha``.

    S and ``spread`` V fulfil E exp(l S - (-log(1 - l) - l) V) <= 1 for l in [0, 1); u solves
    log M(S, V) = log(1 / alpha) of the mixture of these over l with the density of a gamma variable::

        log M = k(rho) + lgamma(V + rho) + log P(V + rho, S + V + rho) - (V + rho) log(S + V + rho) + S + V

    Howard et al. 2021 (arXiv:1810.08240, proposition 9, c = 1).

    Args:
        spread: V, of any shape, 0 or above.
        alpha: in (0, 1).
        expected: V at which the boundary is lowest, about.
    Returns: u, of the shape of ``spread``, float64.
    """
    rho = torch.tensor(_precision(expected, 2 * alpha), dtype=torch.float64)
    known = rho * rho.log() - rho.lgamma() - torch.special.gammainc(rho, rho).log()
    shape = spread.double() + rho  # a = V + rho, and z = S + a
    target = -math.log(alpha) - known - shape.lgamma() + rho
    # Newton's method for a convex function, from above: s - a log(1 + s / a) >= c at s = sqrt(2 c a) + 2 c.
    level = (target + shape * shape.log() - shape + math.log(2)).clamp(min=1e-9)
    z: Tensor = shape + (2 * level * shape).sqrt() + 2 * level
    for _ in range(60):
        below = torch.special.gammainc(shape, z)
        gap = below.log() + z - shape * z.log() - target
        density = ((shape - 1) * z.log() - z - shape.lgamma()).exp() / below
        step = gap / (density + 1 - shape / z)
        z = z - step
        if bool((step.abs() <= 1e-12 * z).all()):
            break
    return z - shape


def betting(
    terms: Tensor, least: float | Tensor, most: float | Tensor, alpha: float = 0.05
) -> tuple[Tensor, Tensor]:
    """Interval of the mean after each term, for terms that can't lie outside [least, most]: hedged capital.

    The means m at which neither player of ``log_capital`` has 2 / alpha times the capital of the start
    (Waudby-Smith and Ramdas 2020, arXiv:2010.09686, theorem 3, with theta = 1 / 2). It holds for every
    number of terms, and is the narrowest of the three for few terms if the bounds are near the terms.

    The ends are found between candidates that lie close to the mean of all terms and wider apart further
    away: the error is a thousandth of the distance from that mean, or a fiftieth of its standard error.

    Args:
        terms: (n,), within [least, most]; none is allowed.
        least, most: one for all terms, or (n,) with one for each, which earlier rows alone may decide.
        alpha: in (0, 1).
    Returns: low and high, (n,) float64 each, within the bounds that all terms share.
    """
    _check_alpha(alpha)
    x, low, high = _bounded(terms, least, most)
    if not len(x):
        return x, x.clone()
    bets, threshold = _bets(x, low, high, alpha), math.log(2 / alpha)
    candidates = _candidates(x, float(low.max()), float(high.min()))
    ends = _rejected_below(x, low, bets, candidates, threshold)
    return ends, -_rejected_below(-x, -high, bets, -candidates.flip(0), threshold)


def log_capital(
    terms: Tensor, least: float | Tensor, most: float | Tensor, mean: float = 0.0, alpha: float = 0.05
) -> tuple[Tensor, Tensor]:
    """Logarithms of the capital of two players after each term, if the mean of the terms is ``mean``.

    One player bets that the mean is above m, the other one that it is below::

        K_n+ = prod_i (1 + min(b_i, c / (m - least_i)) (x_i - m)),   K_n- the same of -x_i, -m and -most_i
        b_i = sqrt(2 log(2 / alpha) / (v_i i log(i + 1))),   v_i the variance of the terms before i

    Waudby-Smith and Ramdas 2020 (arXiv:2010.09686, eq. 15 and theorem 3, c = 3 / 4). If the mean is ``mean``,
    either reaches 2 / alpha in at most alpha / 2 of all sequences, whenever one looks. The lower end of
    ``betting`` is above ``mean`` while the first one has 2 / alpha: this is the test of one mean, at a
    hundredth of the price.

    Args: as of ``betting``; ``mean`` between the bounds of every term.
    Returns: of the player for a higher mean and of the one for a lower mean, (n,) float64 each.
    """
    _check_alpha(alpha)
    x, low, high = _bounded(terms, least, most)
    if not bool(((low < mean) & (mean < high)).all()):
        raise ValueError(f"the mean {mean} lies outside the bounds of a term")
    m, bets = x.new_tensor([mean]), _bets(x, low, high, alpha)
    return _gains(x, low, bets, m)[0].cumsum(0), _gains(-x, -high, bets, -m)[0].cumsum(0)


def _bets(x: Tensor, low: Tensor, high: Tensor, alpha: float) -> Tensor:
    """(n,): b_i of ``log_capital``, from the terms before each and its bounds (n,).

    The first guesses of mean and variance are those of a coin within the bounds, and count as one term.
    """
    if not len(x):
        return x
    count = torch.arange(1, len(x) + 1, dtype=torch.float64)
    middle, width = (low + high) / 2, high - low
    mean = (middle[0] + x.cumsum(0)) / (count + 1)
    squares = (x - mean).square().cumsum(0)
    earlier = torch.cat([squares.new_zeros(1), squares[:-1]])
    variance = (width.square() / 4 + earlier) / count  # of the terms before i
    return (2 * math.log(2 / alpha) / (variance * count * (count + 1).log())).sqrt()


def _gains(x: Tensor, least: Tensor, bets: Tensor, candidates: Tensor) -> Tensor:
    """(M, n): the growth of log K+ at each term, for each of the means (M,)."""
    m = candidates[:, None]
    return (torch.minimum(bets, CAP / (m - least).clamp(min=1e-300)) * (x - m)).log1p_()


def _rejected_below(x: Tensor, least: Tensor, bets: Tensor, candidates: Tensor, threshold: float) -> Tensor:
    """(n,): the m under which log K+ is at least ``threshold`` after each term; candidates (M,) rise."""
    capital = torch.zeros_like(candidates)[:, None]
    ends = []
    rows = max(1, BLOCK // len(candidates))
    for part in zip(x.split(rows), least.split(rows), bets.split(rows), strict=True):
        logs = capital + _gains(*part, candidates).cumsum(1)  # (M, B); they fall from the first m on
        capital = logs[:, -1:]
        last = (logs >= threshold).sum(0) - 1  # the largest candidate that is excluded, -1 without one
        at = last.clamp(0, len(candidates) - 2)
        upper, under = logs.gather(0, at[None])[0], logs.gather(0, at[None] + 1)[0]
        share = ((upper - threshold) / (upper - under).clamp(min=1e-300)).clamp(0, 1)
        ends.append(torch.where(last < 0, candidates[0], candidates[at].lerp(candidates[at + 1], share)))
    return torch.cat(ends)


def _candidates(x: Tensor, low: float, high: float) -> Tensor:
    """(M,) rising from ``low`` to ``high``: dense at the mean of ``x`` (n,), 5 % further off at each next."""
    mean, width = float(x.mean()), high - low
    nearest = max(0.02 * float(x.std(correction=0)) / math.sqrt(len(x)), 1e-9 * width)
    steps = torch.arange(math.ceil(math.log(width / nearest) / math.log(1.05)) + 1, dtype=torch.float64)
    away: Tensor = nearest * 1.05**steps
    every = torch.cat([mean - away, away.new_tensor([mean]), mean + away])
    inside = every[(every > low) & (every < high)]
    both: Tensor = torch.cat([inside, every.new_tensor([low, high])]).unique()
    return both


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


def arm_bounds(probability: Tensor, subtracted: Tensor, least: float, most: float) -> tuple[Tensor, Tensor]:
    """The bounds of each of ``arm_terms``, of outcomes in [least, most] minus what was ``subtracted``.

    Narrower ones than those of all rows let ``betting`` bet more: the smallest and the largest term of either
    arm, which earlier rows decide.

    Args: ``probability`` (n,) as of ``arm_terms``; ``subtracted`` (n,), outcomes minus centred ones.
    Returns: two tensors (n,) float64.
    """
    p, lowest, highest = probability.double(), least - subtracted.double(), most - subtracted.double()
    return torch.minimum(lowest / p, -highest / (1 - p)), torch.maximum(highest / p, -lowest / (1 - p))


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


def centred_by_record(outcomes: Tensor, means: Tensor, counts: Tensor, least: int = 3) -> Tensor:
    """Each outcome minus the person's mean in the record, from before the first row: for arms of people.

    A person keeps the arm, so that only the first row of each (``first_rows``) is a term of its own, and what
    is subtracted may not hold what the arm did to the person's earlier rows. People with fewer than ``least``
    sessions in the record have the mean of all earlier outcomes subtracted, and the first row nothing.

    Args:
        outcomes: (n,), finite, in the order of time: of people, each once.
        means: (n,) of the person's sessions in the record; any number without one.
        counts: (n,) int64: how many these are.
    Returns: (n,) float64.
    """
    if not outcomes.shape == means.shape == counts.shape:
        raise ValueError(f"means and counts don't fit {len(outcomes)} outcomes")
    y = _finite(outcomes)
    return y - torch.where(counts >= least, means.double(), _running_mean(y))


def first_rows(people: Tensor) -> Tensor:
    """(n,) bool: the first row of each of the people (n,) int64."""
    return _earlier(torch.zeros(len(people), dtype=torch.float64), people)[0] == 0


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


def share_bound(of_challenger: Tensor, probability: Tensor, alpha: float) -> int | None:
    """The first row at which the arms' shares are not those that were asked for; None without one.

    A test that holds however often one looks: the martingale that divides its bets among the odds ratios of
    TILTS, each row with its own probability (a mixture of likelihood ratios; Lindon and Malek 2022,
    arXiv:2011.03567), is at least 1 / alpha with right shares in at most ``alpha`` of all sequences.

    Args:
        of_challenger: (n,) bool.
        probability: (n,) of the challenger, within (0, 1).
        alpha: in (0, 1).
    """
    _check_shares(of_challenger, probability)
    _check_alpha(alpha)
    tilts = torch.tensor(TILTS, dtype=torch.float64)
    p = probability.double()[:, None]
    # The tilted probability is p e^t / (1 - p + p e^t): its ratio to p, and that of the champion's.
    logs = torch.where(of_challenger[:, None], tilts, 0.0) - (p * tilts.expm1()).log1p()  # (n, tilts)
    wealth = logs.cumsum(0).logsumexp(1) - math.log(len(TILTS))
    wrong = (wealth >= -math.log(alpha)).nonzero()
    return int(wrong[0, 0]) if len(wrong) else None


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
