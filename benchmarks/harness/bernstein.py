"""The empirical Bernstein sequence: an interval of a mean of bounded terms that holds at every look."""

from __future__ import annotations

import math

import torch
from torch import Tensor


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
    x = terms.double().clamp(least, most)
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
    log = -2 * math.log(2 * alpha)
    rho = torch.tensor(expected / (log + math.log(1 + log)), dtype=torch.float64)  # 1810.08240, section 3.5
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
