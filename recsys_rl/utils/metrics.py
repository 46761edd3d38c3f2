"""Means with intervals."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.special import stdtrit  # the same as t.ppf of scipy.stats, which loads 50 MB more
from torch import Tensor


@dataclass(frozen=True)
class Interval:
    """A mean and its two-sided 95 % interval (Student's t over independent samples)."""

    mean: float
    low: float
    high: float


def interval(samples: Tensor) -> Interval:
    """Mean of ``samples`` (n,) with its 95 % interval; with one sample the bounds are NaN."""
    samples = samples.double()
    n, mean = samples.numel(), samples.mean().item()
    if n < 2:
        return Interval(mean, float("nan"), float("nan"))
    half = float(stdtrit(n - 1, 0.975)) * samples.std().item() / n**0.5
    return Interval(mean, mean - half, mean + half)
