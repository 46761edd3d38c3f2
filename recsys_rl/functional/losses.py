"""The losses of PPO and A2C. Each function is one equation, a mean over the batch.

``agents/ppo.py`` writes PPO's out where it takes the gradient, and uses these for its diagnostics.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import mse_loss


def clipped_surrogate(logprob: Tensor, old_logprob: Tensor, advantage: Tensor, clip_eps: float) -> Tensor:
    """Negative clipped surrogate (Schulman et al. 2017, arXiv:1707.06347, eq. 7)::

        ratio = exp(logprob - old_logprob)
        loss  = -mean(min(ratio A, clip(ratio, 1 - eps, 1 + eps) A))
              =  mean(max(ratio B, clip(ratio, 1 - eps, 1 + eps) B)), B = -A

    Args: (B,) each. Returns: a scalar.
    """
    ratio = (logprob - old_logprob).exp()
    clipped = ratio.clamp(1 - clip_eps, 1 + clip_eps)
    minus = -advantage
    return torch.maximum(ratio * minus, clipped * minus).mean()


def policy_gradient(logprob: Tensor, advantage: Tensor) -> Tensor:
    """Negative policy-gradient objective, -mean(logprob A) (Mnih et al. 2016, arXiv:1602.01783)."""
    return -(logprob * advantage).mean()


def value_loss(value: Tensor, returns: Tensor) -> Tensor:
    """Half the mean squared error of the value: (B,), (B,) -> scalar."""
    return 0.5 * mse_loss(value, returns)


def clipped_value_loss(value: Tensor, old_value: Tensor, returns: Tensor, clip_eps: float) -> Tensor:
    """Value loss with the value clipped to ``clip_eps`` around the old value (PPO's reference code)::

    0.5 mean(max((V - R)^2, (clip(V, V_old - eps, V_old + eps) - R)^2))
    """
    clipped = value.clamp(old_value - clip_eps, old_value + clip_eps)
    return 0.5 * torch.maximum((value - returns).square(), (clipped - returns).square()).mean()


def approx_kl(logprob: Tensor, old_logprob: Tensor) -> Tensor:
    """KL(old || new) estimated from the old policy's samples, mean(ratio - 1 - log ratio) >= 0.

    The estimator "k3" of Schulman (2020), joschu.net/blog/kl-approx.html: unbiased, low variance.
    """
    log_ratio = logprob - old_logprob
    return (log_ratio.exp() - 1 - log_ratio).mean()


def clip_fraction(logprob: Tensor, old_logprob: Tensor, clip_eps: float) -> Tensor:
    """Share of the samples whose ratio lies outside [1 - eps, 1 + eps]."""
    ratio = (logprob - old_logprob).exp()
    return ((ratio - 1).abs() > clip_eps).float().mean()
