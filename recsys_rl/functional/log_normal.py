"""Means of a log-normal variable X = exp(N(location, deviation^2)) that is cut off, in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LARGEST = 80.0  # exponent; float32 holds exp(88)


def capped_mean(location: Tensor, deviation: Tensor, high: Tensor | float, low: float = 0.0) -> Tensor:
    """E[min(X, high); X >= low], with X below ``low`` counted as 0; ``low`` < ``high``.

    With s the deviation and Phi the normal distribution function, it is (Johnson, Kotz and Balakrishnan 1994,
    "Continuous univariate distributions", chapter 14)::

        exp(location + s^2 / 2) (Phi(z - s) - Phi(y - s)) + high (1 - Phi(z)),
        z = (ln high - location) / s,   y = (ln low - location) / s

    ``deviation`` must be above 0. The arguments broadcast. The exponent is cut at LARGEST, since an infinite
    factor times a probability of 0 would be NaN: the result is inexact for a ``deviation`` above 12.
    """
    top = (torch.as_tensor(high, device=location.device).log() - location) / deviation
    inside = torch.special.ndtr(top - deviation)
    if low > 0:
        inside = inside - torch.special.ndtr((math.log(low) - location) / deviation - deviation)
    factor = (location + deviation.square() / 2).clamp_max(LARGEST).exp()
    mean: Tensor = factor * inside + high * torch.special.ndtr(-top)
    return mean
