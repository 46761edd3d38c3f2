"""The gated distribution: first the kind of an item, then an item of that kind.

With g the logits of the kinds, l those of the items, A_k the allowed items of kind k, and the sum over k' of
the kinds with an allowed item::

    p(k)     = exp(g_k) / sum_k' exp(g_k')        p(i | k) = exp(l_i) / sum_{j in A_k} exp(l_j)
    p(i)     = p(k_i) p(i | k_i)
    log p(i) = g_{k_i} + l_i - log sum_{j in A_{k_i}} exp(l_j) - log sum_k' exp(g_k')

So how often a kind is shown does not depend on how many items it has, nor on their logits. A kind without an
allowed item has probability 0. The first three terms of log p(i) are logits of one categorical distribution
over all items: ``Gated`` is that distribution, and its draw, its log-probability and its entropy are exact.
(By the chain rule the entropy is H(kind) + sum_k p(k) H(item | k).)
"""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_rl.functional.categorical import Categorical


class Gated(Categorical):
    """One place with A items, each of one of G kinds."""

    logits: Tensor  # (N, 1, A): those of the whole distribution, -inf at forbidden items

    def __init__(self, gates: Tensor, logits: Tensor, kinds: Tensor) -> None:
        """Make the distribution.

        Args:
            gates: (N, G), the logits of the kinds.
            logits: (N, 1, A), the logits of the items, -inf at forbidden ones.
            kinds: (A,) or (N, A) int64, the kind of each item, 0 .. G - 1.
        """
        self.gates, self.kinds = gates, kinds
        super().__init__(joint_logits(gates, logits.squeeze(1), kinds).unsqueeze(1))


def joint_logits(gates: Tensor, logits: Tensor, kinds: Tensor) -> Tensor:
    """The logits (N, A) of the gated distribution: g_k + l_i - log sum_{j in A_k} exp(l_j), k the kind of i.

    Args: as ``Gated`` takes them, but ``logits`` (N, A).
    """
    kinds = kinds.expand_as(logits)  # (N, A)
    # The largest logit of each kind, so that no exponential overflows and no sum vanishes: one of all kinds
    # would do so for a kind whose logits are far below.
    highest = torch.full_like(gates, -torch.inf).scatter_reduce_(1, kinds, logits.detach(), "amax")  # (N, G)
    highest = highest.masked_fill(highest == -torch.inf, 0.0)  # of a kind without an allowed item
    exps = (logits - highest.gather(1, kinds)).exp()  # (N, A)
    sums = torch.zeros_like(gates).scatter_add(1, kinds, exps)  # (N, G)
    # log 0 would have an infinite derivative. Items of such a kind have -inf already.
    shift = gates - highest - sums.masked_fill(sums == 0, 1.0).log()  # (N, G)
    return logits + shift.gather(1, kinds)
