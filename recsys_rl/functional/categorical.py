"""The masked categorical distribution: draw, log-probability, entropy and their gradient.

Logits have shape (..., A): A alternatives on the last axis. A mask broadcasts against them and is
True for allowed alternatives; at least one must be allowed. ``Categorical`` is the policy's distribution:
K independent positions in each row.

With p = softmax(l), a the alternative taken and H the entropy, the derivatives at the logits are::

    d log p_a / d l_j = [j = a] - p_j        d H / d l_j = -p_j (log p_j + H)

(docs/ppo_details.md derives them). Autograd through log_softmax, gather and entropy makes a dozen passes
over (N, K, A) numbers; compiled/kernels.c needs one pass forwards and one backwards. Autograd is used where
the compiled loops can't be.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from recsys_rl.functional.compiled import kernels


class Categorical:
    """K independent positions, each with its own distribution over A alternatives."""

    logits: Tensor  # (N, K, A), -inf at forbidden alternatives

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def draw(self, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw alternatives (N, K) int64, with the log-probability (N,) of each row, without a gradient."""
        index, log_p = draw(self.logits, generator)
        return index, log_p.sum(-1)

    def best(self) -> Tensor:
        """The most probable alternative of each position, (N, K) int64."""
        return self.logits.argmax(-1)

    def logprob(self, index: Tensor) -> Tensor:
        """Log-probability (N,) of ``index`` (N, K); -inf if an alternative is forbidden."""
        return self.evaluate(index)[0]

    def place_logprobs(self, index: Tensor) -> Tensor:
        """The terms (N, K) of ``logprob(index)`` in float64, without a gradient."""
        return logprob(self.logits.detach().double(), index)

    def entropy(self) -> Tensor:
        """Entropy in nats, (N,): the sum over positions."""
        return entropy(self.logits).sum(-1)

    def evaluate(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """``logprob(index)`` and ``entropy()`` in one pass, (N,) each.

        Raises IndexError for an index outside 0 .. A - 1 (RuntimeError without the compiled loops).
        """
        if index.shape != self.logits.shape[:2]:
            raise ValueError(f"index {tuple(index.shape)} doesn't fit logits {tuple(self.logits.shape)}")
        index = index.contiguous()
        if kernels.serving(self.logits) is None or not kernels.plain_ids(index):
            log_p = self.logits.log_softmax(-1)  # (N, K, A)
            return _chosen(log_p, index).sum(-1), _entropy(log_p).sum(-1)
        logprob, nats = _Evaluate.apply(self.logits, index)  # type: ignore[no-untyped-call]
        return logprob, nats


class _Evaluate(torch.autograd.Function):
    """``Categorical.evaluate`` with its gradient in closed form."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        rows, positions, width = logits.shape
        log_p, nats = logits.new_empty(rows), logits.new_empty(rows)
        # Numbers that the gradient needs: sums of each position, and the exponentials.
        read, exps = logits.new_empty(rows, positions, 3), torch.empty_like(logits)
        library, threads = kernels.library(), kernels.threads(logits)
        assert library is not None
        outside = library.evaluate(
            logits.data_ptr(),
            index.data_ptr(),
            rows,
            positions,
            width,
            threads,
            log_p.data_ptr(),
            nats.data_ptr(),
            read.data_ptr(),
            exps.data_ptr(),
        )
        if outside:
            raise IndexError(f"an alternative is outside 0 .. {width - 1}")
        ctx.save_for_backward(logits, exps, index, read)
        return log_p, nats

    @staticmethod
    def backward(ctx: Any, by_logprob: Tensor, by_entropy: Tensor) -> tuple[Tensor, None]:
        kernels.check_first_derivative()
        logits, exps, index, read = ctx.saved_tensors
        by_logprob, by_entropy = by_logprob.contiguous(), by_entropy.contiguous()
        gradient = torch.empty_like(logits)
        library = kernels.library()
        assert library is not None
        library.evaluate_gradient(
            logits.data_ptr(),
            exps.data_ptr(),
            index.data_ptr(),
            read.data_ptr(),
            by_logprob.data_ptr(),
            by_entropy.data_ptr(),
            *logits.shape,
            kernels.threads(logits),
            gradient.data_ptr(),
        )
        return gradient, None


def mask_logits(logits: Tensor, mask: Tensor | None) -> Tensor:
    """``logits`` with -inf where ``mask`` is False; unchanged without a mask."""
    return logits if mask is None else logits.masked_fill(~mask, -torch.inf)


def forbid_(logits: Tensor, mask: Tensor | None, exclude: Tensor | None) -> Tensor:
    """Write -inf into ``logits`` (N, K, A) where ``mask`` (N, A) is False and at the ids ``exclude`` (N, X).

    Padding of ``exclude`` is -1. A few ids cost little; a mask costs a pass over all logits. The write is no
    part of the autograd graph: at a forbidden alternative p is 0, and so are the gradients of p and log p.
    Raises IndexError for an id outside -1 .. A - 1 (RuntimeError without the compiled loops).
    """
    if mask is None and exclude is None:
        return logits
    # The same memory. ``detach`` would also share the version: autograd would then write the gradient of a
    # view, which logits are, into zeros first, and that takes as long as the gradient itself.
    values = logits.data
    if mask is not None:
        values.masked_fill_(~mask.unsqueeze(1), -torch.inf)
    if exclude is not None and not _forbid_compiled(values, exclude):
        index = exclude.clamp_min(0).unsqueeze(1).expand(-1, logits.shape[1], -1)  # (N, K, X)
        # An addition, so that padding changes nothing: an id may occur twice, and id 0 beside padding.
        minus = torch.where(exclude < 0, 0.0, -torch.inf).to(logits).unsqueeze(1).expand_as(index)
        values.scatter_add_(-1, index, minus)
    return logits


def _forbid_compiled(logits: Tensor, exclude: Tensor) -> bool:
    """Write -inf at the ids ``exclude`` (N, X) in one pass; False if the compiled loops can't."""
    library = kernels.serving(logits)
    if library is None or not kernels.plain_ids(exclude) or len(exclude) != len(logits):
        return False
    outside = library.forbid(
        logits.data_ptr(),
        exclude.data_ptr(),
        *exclude.shape,
        *logits.shape[1:],
    )
    if outside:
        raise IndexError(f"an id of exclude is outside -1 .. {logits.shape[-1] - 1}")
    return True


# p' = (1 - e) softmax(l) + e softmax(r),  r = (l - min l) / (max l - min l) over the possible alternatives
def exploring(logits: Tensor, share: float) -> Tensor:
    """Logits (..., A) of a mixture: with probability ``share`` all possible alternatives are nearly alike.

    In that part none has more than e = 2.72 times the probability of another, so the least probability is at
    least ``share`` / (2.72 A). The order of the alternatives stays, also of those that the other part never
    draws; equal chances would lose it.
    """
    impossible = logits == -torch.inf
    low = logits.masked_fill(impossible, torch.inf).amin(-1, keepdim=True)
    above = logits - low
    alike = (above / above.amax(-1, keepdim=True).clamp_min(1e-6)).log_softmax(-1)
    mixed = torch.logaddexp(logits.log_softmax(-1) + math.log1p(-share), alike + math.log(share))
    return mixed.masked_fill(impossible, -torch.inf)


def sample(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """``draw`` without the log-probability: indices (...,) int64."""
    return draw(logits, generator)[0]


def draw(logits: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Draw one alternative per row by inverting the cumulative distribution.

    It needs one uniform number per row; ``torch.multinomial`` and exponential noise need one random number
    per alternative. A forbidden alternative (-inf) has an empty interval and is never drawn.

    Returns: indices (...,) int64 and their log-probabilities (...,), without a gradient.
    """
    rows = (*logits.shape[:-1], 1)
    return draw_at(logits, torch.rand(rows, generator=generator, dtype=logits.dtype, device=logits.device))


def draw_at(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """``draw`` with the given numbers ``uniform`` (..., 1) in [0, 1]: the same numbers give the same draw."""
    library = kernels.serving(logits)
    if library is None:
        index = invert(logits.detach(), uniform)
        return index, logprob(logits.detach(), index)
    uniform = uniform.to(logits).contiguous()  # the name keeps the memory of the passed address alive
    index = torch.empty(logits.shape[:-1], dtype=torch.int64)
    log_p = torch.empty(logits.shape[:-1])
    library.sample(
        logits.data_ptr(),
        uniform.data_ptr(),
        index.numel(),
        logits.shape[-1],
        kernels.threads(logits),
        index.data_ptr(),
        log_p.data_ptr(),
    )
    return index, log_p


def invert(logits: Tensor, u: Tensor) -> Tensor:
    """The first alternative (...,) whose cumulative probability exceeds ``u`` (..., 1), with torch."""
    cdf = logits.softmax(-1).cumsum(-1)  # (..., A)
    total = cdf[..., -1:]  # (..., 1): 1 up to rounding
    # Rounding may lift u to the total itself, which would point past the last allowed alternative.
    u = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
    # Comparisons with NaN are False, so the index would be past the end. NaN must give a NaN loss, no crash.
    return torch.searchsorted(cdf, u, right=True).squeeze(-1).clamp_max(logits.shape[-1] - 1)


def uniform(
    num_rows: int, num_items: int, exclude: Tensor | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw one of ``num_items`` items for each row, uniformly among those not in ``exclude`` (N, X).

    Padding of ``exclude`` is -1, and an id may be excluded twice. A rank among the remaining items is drawn,
    and the excluded ids below it are skipped: no tensor is as wide as the catalogue.

    Returns: items (N,) int64, logprob (N,).
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
    """Log-probability of ``index`` (...,) under ``logits`` (..., A); -inf if it is forbidden."""
    return _chosen(logits.log_softmax(-1), index)


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats, (...,): between 0 and log(number of allowed alternatives)."""
    return _entropy(logits.log_softmax(-1))


def effective(logits: Tensor) -> Tensor:
    """Effective number of alternatives, (...,): exp of the entropy; that of n equally likely ones is n."""
    return entropy(logits).exp()


def _chosen(log_p: Tensor, index: Tensor) -> Tensor:
    return log_p.gather(-1, index.unsqueeze(-1)).squeeze(-1)


def _entropy(log_p: Tensor) -> Tensor:
    # A forbidden alternative has p = 0 and log p = -inf; its term is 0, not NaN.
    return -(log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0.0)).sum(-1)
