"""The losses of the algorithms. Each function is one equation, most of them a mean over the batch.

``agents/ppo.py`` writes PPO's out where it takes the gradient, and uses these for its diagnostics. The second
half is for learning from a log (docs/11_offline.md derives it).
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
    """Value loss with the value clipped to ``clip_eps`` around the old value (PPO's reference code).

    ``0.5 mean(max((V - R)^2, (clip(V, V_old - eps, V_old + eps) - R)^2))``
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


def bootstrapped(rewards: Tensor, discounts: Tensor | float, values: Tensor, ended: Tensor) -> Tensor:
    """The targets y = r + g V' of Bellman's equation, (B,) each; y = r where nothing follows.

    Nothing follows where ``ended`` is True, and where ``values`` is -inf: no item is left to show. (A product
    with a mask would be -inf x 0, which is NaN.)
    """
    return rewards + torch.where(ended | values.isinf(), 0.0, discounts * values)


def conservative(q: Tensor, index: Tensor) -> Tensor:
    """The penalty of conservative Q-learning (Kumar et al. 2020, arXiv:2006.04779, eq. 4)::

        mean(log sum_a exp Q(s, a) - Q(s, a_log))

    ``q`` (B, C), -inf where an item may not be shown; ``index`` (B,): the item that was shown.
    """
    return (q.logsumexp(1) - q.gather(1, index.unsqueeze(1)).squeeze(1)).mean()


def expectile_loss(error: Tensor, expectile: float) -> Tensor:
    """Asymmetric squares (Newey and Powell 1987; Kostrikov et al. 2021, arXiv:2110.06169, eq. 5).

    ``mean(|tau - 1(x < 0)| x^2)``, ``x = target - value``
    """
    return ((expectile - (error < 0).to(error)).abs() * error.square()).mean()


def quantile_loss(error: Tensor, quantile: float) -> Tensor:
    """The pinball loss (Koenker and Bassett 1978): mean(max(q x, (q - 1) x)), x = target - value."""
    return torch.maximum(quantile * error, (quantile - 1) * error).mean()


def advantage_weights(advantage: Tensor, beta: float, largest: float) -> Tensor:
    """The weights (B,) of advantage-weighted cloning (Peng et al. 2019, arXiv:1910.00177)::

        min(exp(beta A / std(A)), largest)

    Divided by their spread, advantages of any unit give the same weights. Without a spread all are 1.
    """
    spread = advantage.std(correction=0)
    scaled = advantage / spread if float(spread) > 0 else torch.zeros_like(advantage)
    return (beta * scaled).exp().clamp_max(largest)


def top_k_factor(logprob: Tensor, k: int) -> Tensor:
    """K (1 - pi)^(K - 1), (B,): the top-K correction (Chen et al. 2019, arXiv:1812.02353, eq. 8).

    It is the derivative at pi of 1 - (1 - pi)^K, the probability that an item is in a set of K draws.
    """
    return k * (1 - logprob.exp()).pow(k - 1)
