"""The masked categorical distribution: sample, logprob, entropy.

Logits have shape (..., A): A alternatives on the last axis. A mask broadcasts against them and is
True where an alternative is allowed; at least one must be.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mask_logits(logits: Tensor, mask: Tensor | None) -> Tensor:
    """``logits`` with -inf where ``mask`` forbids; unchanged where there is no mask."""
    return logits if mask is None else logits.masked_fill(~mask, -torch.inf)


def sample(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw one alternative per row by inverting the cumulative distribution.

    One uniform number a row: two passes over the logits, where ``torch.multinomial`` and
    exponential noise need one random number per alternative. A forbidden alternative (-inf) has an
    empty interval and is never drawn.

    Returns: indices (...,) int64.
    """
    cdf = logits.softmax(-1).cumsum(-1)  # (..., A)
    total = cdf[..., -1:]  # (..., 1): 1 up to rounding
    u = torch.rand(total.shape, generator=generator, dtype=cdf.dtype, device=cdf.device) * total
    # Rounding may lift u to the total itself, which would point past the last allowed alternative.
    u = torch.minimum(u, torch.nextafter(total, torch.zeros_like(total)))
    # NaN compares with nothing and would point past the end: it must come out as a NaN loss, not crash here.
    return torch.searchsorted(cdf, u, right=True).squeeze(-1).clamp_max(logits.shape[-1] - 1)


def logprob(logits: Tensor, index: Tensor) -> Tensor:
    """Log-probability of ``index`` (...,) under ``logits`` (..., A); -inf where it is forbidden."""
    chosen = logits.gather(-1, index.unsqueeze(-1)).squeeze(-1)
    return chosen - logits.logsumexp(-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats, (...,): between 0 and log(number of allowed alternatives)."""
    log_p = logits.log_softmax(-1)
    # A forbidden alternative has p = 0 and log p = -inf; its term is 0, not NaN.
    return -(log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0.0)).sum(-1)
