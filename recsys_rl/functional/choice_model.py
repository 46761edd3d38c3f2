"""The choice of users over a slate of K places: probabilities of picking each place, and draws from them.

``position_based`` takes the utilities (N, K) of the shown items in logits, and the utility (N,) of picking
none of them. An empty place has utility -inf and is never picked. The result is (N, K); the rest to 1 is the
probability of picking none.
"""

from __future__ import annotations

import torch
from torch import Tensor


def position_based(utility: Tensor, none: Tensor, eta: float | Tensor) -> Tensor:
    """The user reads from the top, sees place k with probability k^-eta, and picks by multinomial logit.

    The chance k^-eta is that of Joachims, Swaminathan and Schnabel (2017, "Unbiased learning-to-rank with
    biased feedback"). The user sees the first d places, with P(d) = d^-eta - (d + 1)^-eta for d < K and
    P(K) = K^-eta, so that place k is among them with probability k^-eta::

        P(k) = sum_{d >= k} P(d) exp(u_k) / (exp(u_none) + sum_{j <= d} exp(u_j))

    ``eta`` is at least 0; at 0 the user sees all places. A tensor () gets a gradient, for fits.
    """
    places = torch.arange(1, utility.shape[-1] + 2, dtype=utility.dtype, device=utility.device)
    seen = torch.nn.functional.pad((places**-eta)[:-1], (0, 1))  # (K + 1,): no place beyond the slate
    depth = seen[:-1] - seen[1:]  # (K,): P(d)
    highest = torch.maximum(utility.amax(-1), none).unsqueeze(-1)  # (N, 1): exp can't overflow
    weight = (utility - highest).exp()  # (N, K)
    total = weight.cumsum(-1) + (none.unsqueeze(-1) - highest).exp()  # (N, K): of the first d places
    # A total can be 0 only if all its utilities lie far below the highest, which is then further down.
    share = depth / total.clamp_min(torch.finfo(total.dtype).tiny)  # (N, K)
    return weight * share.flip(-1).cumsum(-1).flip(-1)


def draw(probability: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw a place (N,) int64 for each row of ``probability`` (N, K); -1 for none."""
    size = probability.shape[:-1]
    return draw_at(
        probability,
        torch.rand(size, generator=generator, dtype=probability.dtype, device=probability.device),
    )


def draw_at(probability: Tensor, uniform: Tensor) -> Tensor:
    """``draw`` with the given numbers ``uniform`` (N,) in [0, 1): inverts the cumulative distribution."""
    index = (probability.cumsum(-1) <= uniform.unsqueeze(-1)).sum(-1)  # (N,)
    return index.masked_fill(index == probability.shape[-1], -1)
