"""The masked categorical distribution: sample, logprob, entropy.

Logits have shape (..., A): A alternatives on the last axis. A mask broadcasts against them and is
True where an alternative is allowed; at least one must be.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recsys_rl.functional.compiled import kernels


def mask_logits(logits: Tensor, mask: Tensor | None) -> Tensor:
    """``logits`` with -inf where ``mask`` forbids; unchanged where there is no mask."""
    return logits if mask is None else logits.masked_fill(~mask, -torch.inf)


def forbid_(logits: Tensor, mask: Tensor | None, exclude: Tensor | None) -> Tensor:
    """Write -inf into ``logits`` (N, K, A) where ``mask`` (N, A) is False and at the ids ``exclude`` (N, X).

    Padding of ``exclude`` is -1; few ids cost little, where a mask is a pass over all logits. Autograd isn't
    told: what is forbidden has p = 0, so every gradient of p and log p is 0 there by itself.
    """
    if mask is None and exclude is None:
        return logits
    values = logits.detach()  # the same memory
    if mask is not None:
        values.masked_fill_(~mask.unsqueeze(1), -torch.inf)
    if exclude is not None:
        index = exclude.clamp_min(0).unsqueeze(1).expand(-1, logits.shape[1], -1)  # (N, K, X)
        # Adding, so that padding changes nothing: an id may stand twice, and 0 beside padding.
        minus = torch.where(exclude < 0, 0.0, -torch.inf).to(logits).unsqueeze(1).expand_as(index)
        values.scatter_add_(-1, index, minus)
    return logits


def sample(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """``draw`` without the log-probability: indices (...,) int64."""
    return draw(logits, generator)[0]


def draw(logits: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Draw one alternative per row by inverting the cumulative distribution.

    One uniform number a row, where ``torch.multinomial`` and exponential noise need one random number per
    alternative. A forbidden alternative (-inf) has an empty interval and is never drawn.

    Returns: indices (...,) int64 and their log-probabilities (...,), without a gradient.
    """
    rows = (*logits.shape[:-1], 1)
    u = torch.rand(rows, generator=generator, dtype=logits.dtype, device=logits.device)  # (..., 1)
    library = kernels.serving(logits)
    if library is None:
        index = invert(logits.detach(), u)
        return index, logprob(logits.detach(), index)
    index = torch.empty(rows[:-1], dtype=torch.int64)
    log_p = torch.empty(rows[:-1])
    library.sample(
        logits.data_ptr(),
        u.data_ptr(),
        index.numel(),
        logits.shape[-1],
        kernels.threads(logits),
        index.data_ptr(),
        log_p.data_ptr(),
    )
    return index, log_p


def invert(logits: Tensor, u: Tensor) -> Tensor:
    """The first alternative (...,) whose cumulative probability exceeds ``u`` (..., 1), by torch."""
    cdf = logits.softmax(-1).cumsum(-1)  # (..., A)
    total = cdf[..., -1:]  # (..., 1): 1 up to rounding
    # Rounding may lift u to the total itself, which would point past the last allowed alternative.
    u = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
    # NaN compares with nothing and would point past the end: it must come out as a NaN loss, not crash here.
    return torch.searchsorted(cdf, u, right=True).squeeze(-1).clamp_max(logits.shape[-1] - 1)


def uniform(
    num_rows: int, num_items: int, exclude: Tensor | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One of ``num_items`` for each row, all alike but for the ids ``exclude`` (N, X), -1 padding.

    Draws a rank among what is left and steps over the excluded ids below it: nothing is as wide as
    the catalogue. An id may be excluded twice. Returns: items (N,) int64, logprob (N,).
    """
    device = generator.device
    if exclude is None:
        item = torch.randint(num_items, (num_rows,), generator=generator, device=device)
        return item, torch.full((num_rows,), -math.log(num_items), device=device)
    ids = exclude.sort(1).values  # (N, X), padding first
    counts = ids >= 0
    counts[:, 1:] &= ids[:, 1:] != ids[:, :-1]
    left = num_items - counts.sum(1)  # (N,)
    u = torch.rand(num_rows, generator=generator, dtype=torch.float64, device=device)
    item = (u * left).long()
    for known, id_ in zip(counts.T, ids.T, strict=True):  # ascending
        item = item + (known & (item >= id_))
    return item, -left.float().log()


def logprob(logits: Tensor, index: Tensor) -> Tensor:
    """Log-probability of ``index`` (...,) under ``logits`` (..., A); -inf where it is forbidden."""
    chosen = logits.gather(-1, index.unsqueeze(-1)).squeeze(-1)
    return chosen - logits.logsumexp(-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats, (...,): between 0 and log(number of allowed alternatives)."""
    log_p = logits.log_softmax(-1)
    # A forbidden alternative has p = 0 and log p = -inf; its term is 0, not NaN.
    return -(log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0.0)).sum(-1)
