"""The policy's part of PPO's and A2C's loss: its gradient at the logits in closed form.

Autograd through log_softmax, gather and entropy makes a dozen passes over (B, A) tensors. The gradient is
known. With p = softmax(l), a the action taken, r the ratio, A the advantage and H the entropy, the loss of a
batch of B rows is::

    L = -1/B sum [ min(r A, clip(r, 1 - eps, 1 + eps) A) + c H ]

From d log p_a / d l_j = [j = a] - p_j, and dH / d l_j = -p_j (log p_j + H)::

    dL / dl_j = w ([j = a] - p_j) + c/B p_j (log p_j + H)
    w = -r A / B where the first branch of the min is the smaller (the ratio is not clipped), else 0

With K positions a row, log p is their sum and each position has this gradient. kernels.c computes it in
one pass over each row; where it doesn't serve, torch does in a few. tests/test_policy_loss.py compares both
with autograd.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from recsys_rl.functional.compiled import kernels


class PolicyGradient(NamedTuple):
    gradient: Tensor  # (B, K, A): dL / dl, in the place of the logits; 0 where forbidden
    objective: Tensor  # (B,): min(r A, clip(r) A), whose mean is the negative surrogate loss
    entropy: Tensor  # (B,): nats
    logprob: Tensor  # (B,)


def clipped_policy_gradient_(
    logits: Tensor, items: Tensor, old_logprob: Tensor, advantage: Tensor, clip_eps: float, ent_coef: float
) -> PolicyGradient:
    """Clipped surrogate (arXiv:1707.06347, eq. 7) and entropy bonus, as a mean over the batch.

    Args: ``logits`` (B, K, A), -inf where forbidden, which the gradient overwrites; ``items`` (B, K) int64;
    ``old_logprob``, ``advantage`` (B,). Nothing that is returned carries a gradient.
    """
    return _gradient_(logits, items, old_logprob, advantage, clip_eps, ent_coef)


def policy_gradient_(logits: Tensor, items: Tensor, advantage: Tensor, ent_coef: float) -> PolicyGradient:
    """-mean(logprob A) (arXiv:1602.01783) and entropy bonus; ``objective`` is logprob A, and w is -A / B."""
    return _gradient_(logits, items, None, advantage, 0.0, ent_coef)


def _gradient_(
    logits: Tensor,
    items: Tensor,
    old_logprob: Tensor | None,
    advantage: Tensor,
    clip_eps: float,
    ent_coef: float,
) -> PolicyGradient:
    logits = logits.detach()  # the same memory
    rows, positions, width = logits.shape
    if items.shape != (rows, positions) or advantage.shape != (rows,):
        raise ValueError(
            f"items {tuple(items.shape)} and advantage {tuple(advantage.shape)} don't fit "
            f"logits {tuple(logits.shape)}"
        )
    # The names keep the memory alive whose address is passed.
    items, advantage = items.long().contiguous(), advantage.to(logits.dtype).contiguous()
    old = None if old_logprob is None else old_logprob.to(logits.dtype).contiguous()
    library = kernels.serving(logits)
    if library is None:
        found = by_torch(logits, items, old, advantage, clip_eps, ent_coef)
        return found._replace(gradient=logits.copy_(found.gradient))
    objective, entropy, logprob = logits.new_empty(3, rows).unbind()
    outside = library.policy_gradient(
        logits.data_ptr(),
        items.data_ptr(),
        None if old is None else old.data_ptr(),
        advantage.data_ptr(),
        rows,
        positions,
        width,
        clip_eps,
        ent_coef,
        kernels.threads(logits),
        logprob.data_ptr(),
        entropy.data_ptr(),
        objective.data_ptr(),
    )
    if outside:
        raise IndexError(f"an item is outside 0 .. {width - 1}")
    return PolicyGradient(logits, objective, entropy, logprob)


@torch.no_grad()
def by_torch(
    logits: Tensor,
    items: Tensor,
    old_logprob: Tensor | None,
    advantage: Tensor,
    clip_eps: float,
    ent_coef: float,
) -> PolicyGradient:
    """The same in torch's operators, for every device and type; leaves the logits as they are."""
    batch = logits.shape[0]
    log_p = logits.log_softmax(-1)  # (B, K, A)
    logprob = log_p.gather(-1, items.unsqueeze(-1)).squeeze(-1).sum(-1)  # (B,)
    p = log_p.exp()
    # A forbidden item has p log p = 0, not 0 * -inf. exp(-1e4) is 0 in every dtype, and 1e4 leaves room
    # for a large entropy bonus on a small batch.
    log_p.clamp_(min=-1e4)
    entropy = -(p * log_p).sum(-1)  # (B, K)

    if old_logprob is None:
        objective, weight = logprob * advantage, -advantage / batch
    else:
        ratio = (logprob - old_logprob).exp()
        gain, clipped = ratio * advantage, ratio.clamp(1 - clip_eps, 1 + clip_eps) * advantage
        objective, weight = torch.minimum(gain, clipped), torch.where(gain <= clipped, -gain, 0.0) / batch
    weight = weight.view(-1, 1, 1)  # (B, 1, 1)
    if ent_coef:
        gradient = log_p.add_(entropy.unsqueeze(-1)).mul_(ent_coef / batch).sub_(weight).mul_(p)
    else:
        gradient = p.mul_(-weight)
    gradient.scatter_add_(-1, items.unsqueeze(-1), weight.expand(-1, items.shape[1], 1))
    return PolicyGradient(gradient, objective, entropy.sum(-1), logprob)
