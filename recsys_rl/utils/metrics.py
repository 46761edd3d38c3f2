"""Means with intervals."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.special import stdtrit  # the same as t.ppf of scipy.stats, which loads 50 MB more
from torch import Tensor


@dataclass(frozen=True)
class Interval:
    """A mean and its two-sided interval (Student's t over independent samples)."""

    mean: float
    low: float
    high: float


def interval(samples: Tensor, level: float = 0.95) -> Interval:
    """Mean of ``samples`` (n,) with its interval at the ``level``; with one sample the bounds are NaN."""
    samples = samples.double()
    n, mean = samples.numel(), samples.mean().item()
    if n < 2:
        return Interval(mean, float("nan"), float("nan"))
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * samples.std().item() / n**0.5
    return Interval(mean, mean - half, mean + half)
