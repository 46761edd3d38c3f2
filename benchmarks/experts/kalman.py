"""One measurement of an extended Kalman filter, for answers that are not normally distributed."""

from __future__ import annotations

import torch
from torch import Tensor


def measured(
    mean: Tensor, covariance: Tensor, along: Tensor, push: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """The mean (N, Z) and covariance (N, Z, Z) of hidden numbers x after an answer.

    The answer speaks of one number, ``along`` (N, Z) times x. ``push`` (N,) is the derivative of its
    log-likelihood by this number at the mean, and ``weight`` (N,) its Fisher information. Of a number that
    was measured with normal noise they are residual / variance and 1 / variance (Fahrmeir 1992, "Posterior
    mode estimation by extended Kalman filtering for multivariate dynamic generalized linear models").
    """
    spread = (covariance @ along.unsqueeze(2)).squeeze(2)  # (N, Z)
    scale = 1 + weight * (along * spread).sum(1)  # (N,)
    after = mean + spread * (push / scale).unsqueeze(1)
    less = (weight / scale).view(-1, 1, 1) * spread.unsqueeze(2) * spread.unsqueeze(1)
    return after, torch.sub(covariance, less)
