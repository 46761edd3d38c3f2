"""PPO's loss and its gradient in one pass: the fast path of the lines in agents/ppo.py.

The lines there take ``distribution.evaluate(places)``, then ratio, surrogate, value loss and entropy. Here
compiled/kernels.c computes them, and the gradient with them, while a row of logits lies in the cache: each
exponential is taken once, and autograd has one node in place of some thirty.

It saves 22 % of the time of training with minibatches of 64, 9 % with 512, and 6 % of the flagship's
(docs/speed.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recsys_rl.functional.categorical import Categorical
from recsys_rl.functional.compiled import kernels
from recsys_rl.models.heads import Distribution
from recsys_rl.models.policy import Targets


def serves(distribution: Distribution, places: Tensor, value: Tensor, targets: Targets) -> bool:
    """True if ``evaluate`` can take these: categorical, and contiguous float32 on a CPU in shapes that fit.

    The compiled loop reads the memory behind the tensors. What doesn't fit is left to torch.
    """
    if not isinstance(distribution, Categorical) or kernels.serving(distribution.logits) is None:
        return False
    logits, number = distribution.logits, value.shape
    fitting = kernels.plain_ids(places) and places.shape == logits.shape[:2] and number == places.shape[:1]
    return fitting and all([kernels.plain(tensor) and tensor.shape == number for tensor in (value, *targets)])  # noqa: C419 (a generator is slower)


def evaluate(
    distribution: Distribution,
    places: Tensor,
    value: Tensor,
    targets: Targets,
    clip_eps: float,
    ent_coef: float,
    vf_coef: float,
    clip_vloss: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """PPO's loss of the actions ``places`` (B, K). Call it only if ``serves`` is True.

    Gradients flow from the loss to the logits and to ``value`` (B,).

    Returns: the loss (a scalar), logprob (B,) and entropy (B,), which have no gradient. Raises IndexError for
    an action that is not among the alternatives.
    """
    logprob, entropy = torch.empty_like(value), torch.empty_like(value)
    loss: Tensor = _PPOLoss.apply(  # type: ignore[no-untyped-call]
        distribution.logits,
        value,
        (logprob, entropy, places),
        targets,
        (clip_eps, ent_coef, vf_coef, clip_vloss),
    )
    return loss, logprob, entropy


class _PPOLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        value: Tensor,
        results: tuple[Tensor, Tensor, Tensor],
        targets: Targets,
        numbers: tuple[float, ...],
    ) -> Tensor:
        """``results``: logprob and entropy, which are written, and the places (B, K)."""
        logprob, entropy, places = results
        loss, work, by_logits = value.new_empty(()), value.new_empty(2, len(value)), torch.empty_like(logits)
        library = kernels.library()
        assert library is not None
        outside = library.ppo_loss(
            logits.data_ptr(),
            places.data_ptr(),
            *logits.shape,
            kernels.threads(logits),
            *numbers,
            *[tensor.data_ptr() for tensor in (*targets, value, logprob, entropy, by_logits, work, loss)],
        )
        if outside:
            raise IndexError(f"an alternative is outside 0 .. {logits.shape[-1] - 1}")
        ctx.save_for_backward(by_logits, work[0])
        return loss

    @staticmethod
    def backward(ctx: Any, by_loss: Tensor) -> tuple[Tensor | None, ...]:
        kernels.check_first_derivative()
        by_logits, by_value = ctx.saved_tensors
        if by_loss.item() != 1:  # It is 1 in loss.backward(). A product would be one more pass over logits.
            by_logits, by_value = by_logits * by_loss, by_value * by_loss
        return by_logits, by_value, None, None, None
