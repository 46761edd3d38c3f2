"""The losses of PPO and A2C, used by the agents. Each function is one equation, a mean over the batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from recsys_rl.functional.compiled import kernels


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


def ppo_loss(
    logprob: Tensor,
    entropy: Tensor,
    value: Tensor,
    old_logprob: Tensor,
    old_value: Tensor,
    returns: Tensor,
    advantage: Tensor,
    *,
    clip_eps: float,
    ent_coef: float,
    vf_coef: float,
    clip_vloss: bool = False,
) -> Tensor:
    """The loss of PPO (arXiv:1707.06347, eq. 9, to be minimised)::

        loss = clipped_surrogate - ent_coef mean(entropy) + vf_coef value_loss

    compiled/kernels.c computes the loss and its gradient in one pass. Autograd takes some thirty small
    operators, which need half the time of the matrix products of a minibatch of 64.

    Args: (B,) each. Gradients flow to ``logprob``, ``entropy`` and ``value``. Returns: a scalar.
    """
    tensors = logprob, entropy, value, old_logprob, old_value, returns, advantage
    fits = all([kernels.plain(x) and x.shape == logprob.shape for x in tensors])  # noqa: C419 (a generator is slower)
    if fits and kernels.library() is not None:
        loss: Tensor = _PPOLoss.apply(*tensors, clip_eps, ent_coef, vf_coef, clip_vloss)  # type: ignore[no-untyped-call]
        return loss
    policy_loss = clipped_surrogate(logprob, old_logprob, advantage, clip_eps)
    if clip_vloss:
        error = clipped_value_loss(value, old_value, returns, clip_eps)
    else:
        error = value_loss(value, returns)
    return policy_loss - ent_coef * entropy.mean() + vf_coef * error


class _PPOLoss(torch.autograd.Function):
    """``ppo_loss`` with its gradient in closed form."""

    @staticmethod
    def forward(ctx: Any, logprob: Tensor, *others: Any) -> Tensor:
        *tensors, clip_eps, ent_coef, vf_coef, clip_vloss = others
        gradient = logprob.new_empty(3, len(logprob))  # by logprob, entropy and value
        library = kernels.library()
        assert library is not None
        loss = library.ppo_loss(
            logprob.data_ptr(),
            *[x.data_ptr() for x in tensors],
            len(logprob),
            clip_eps,
            ent_coef,
            vf_coef,
            clip_vloss,
            gradient.data_ptr(),
        )
        ctx.save_for_backward(gradient)
        return logprob.new_full((), loss)

    @staticmethod
    def backward(ctx: Any, by_loss: Tensor) -> tuple[Tensor | None, ...]:
        kernels.check_first_derivative()
        (gradient,) = ctx.saved_tensors
        return *(gradient * by_loss).unbind(), *[None] * 8


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
