"""The policy's part of PPO's loss with its gradient at the logits in closed form.

Autograd through log_softmax, gather and entropy makes a dozen passes over (B, A) tensors; the
gradient is known, and takes four. With p = softmax(l), a the action taken, r the ratio and H the
entropy, the loss of a batch of B rows is::

    L = 1/B sum [ -min(r A, clip(r, 1 - eps, 1 + eps) A) - c H ]

From d log p_a / d l_j = [j = a] - p_j, and dH / d l_j = -p_j (log p_j + H)::

    dL / dl_j = w ([j = a] - p_j) + c/B p_j (log p_j + H)
    w = -r A / B where the first branch of the min is the smaller (the ratio is not clipped), else 0

tests/test_policy_loss.py compares it with autograd. With K positions a row, log p is their sum and each
position has this gradient.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class PolicyLoss(NamedTuple):
    loss: Tensor  # scalar: clipped surrogate minus ent_coef times entropy; this one has a gradient
    surrogate: Tensor  # scalar
    entropy: Tensor  # scalar: mean entropy of the rows, nats
    logprob: Tensor  # (B,)


def clipped_policy_loss(
    logits: Tensor, items: Tensor, old_logprob: Tensor, advantage: Tensor, clip_eps: float, ent_coef: float
) -> PolicyLoss:
    """Clipped surrogate (arXiv:1707.06347, eq. 7) and entropy bonus, as a mean over the batch.

    Args: ``logits`` (B, K, A), -inf where forbidden; ``items`` (B, K) int64; ``old_logprob``,
    ``advantage`` (B,). Only ``loss`` carries a gradient, and only to ``logits``.
    """
    parts = _ClippedPolicyLoss.apply(logits, items, old_logprob, advantage, clip_eps, ent_coef)  # type: ignore[no-untyped-call]
    return PolicyLoss(*parts)


class _ClippedPolicyLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        items: Tensor,
        old_logprob: Tensor,
        advantage: Tensor,
        clip_eps: float,
        ent_coef: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        batch = logits.shape[0]
        log_p = logits.log_softmax(-1)  # (B, K, A)
        logprob = log_p.gather(-1, items.unsqueeze(-1)).squeeze(-1).sum(-1)  # (B,)
        p = log_p.exp()
        # A forbidden item has p log p = 0, not 0 * -inf. exp(-1e4) is 0 in every dtype, and 1e4 leaves room
        # for a large entropy bonus on a small batch.
        log_p.clamp_(min=-1e4)
        entropy = -torch.einsum("bka,bka->bk", p, log_p)  # (B, K)

        ratio = (logprob - old_logprob).exp()
        gain, clipped = ratio * advantage, ratio.clamp(1 - clip_eps, 1 + clip_eps) * advantage
        surrogate = -torch.minimum(gain, clipped).mean()
        weight = (torch.where(gain <= clipped, -gain, 0.0) / batch).view(-1, 1, 1)  # (B, 1, 1)
        if ent_coef:
            gradient = log_p.add_(entropy.unsqueeze(-1)).mul_(ent_coef / batch).sub_(weight).mul_(p)
        else:
            gradient = p.mul_(-weight)
        gradient.scatter_add_(-1, items.unsqueeze(-1), weight.expand(-1, items.shape[1], 1))
        ctx.save_for_backward(gradient)
        mean_entropy = entropy.sum(-1).mean()
        outputs = (surrogate - ent_coef * mean_entropy, surrogate, mean_entropy, logprob)
        ctx.mark_non_differentiable(*outputs[1:])
        return outputs

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, *others: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_loss, None, None, None, None, None
