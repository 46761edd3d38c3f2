"""The Plackett-Luce distribution: an ordered slate of K of A items, none twice.

Luce (1959), "Individual Choice Behavior"; Plackett (1975), "The analysis of permutations". The first place
is drawn from the softmax of the logits l, and each later place from the softmax over the remaining items.
With a_1 ... a_K the slate and Z_k the sum of exp(l_j) over all items except a_1 ... a_{k-1}::

    log p(a_1 ... a_K) = sum_k (l_{a_k} - log Z_k)

For a slate of one item it is the categorical distribution.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from recsys_rl.errors import UserError
from recsys_rl.functional import categorical
from recsys_rl.functional.categorical import Categorical
from recsys_rl.functional.compiled import kernels

STEPS = 2**12  # of logits, by which items are ordered


class PlackettLuce:
    """Slates (N, K), with one vector of logits per row."""

    def __init__(self, logits: Tensor, slate_size: int) -> None:
        """``logits`` (N, A), -inf at forbidden items; ``slate_size`` is K."""
        self.logits = logits
        self.slate_size = slate_size

    def draw(self, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw slates (N, K) int64, with their log-probabilities (N,), without a gradient.

        Raises UserError if a row allows fewer than K items.
        """
        size = (len(self.logits), self.slate_size)
        return self.draw_at(
            torch.rand(size, generator=generator, dtype=self.logits.dtype, device=self.logits.device)
        )

    def draw_at(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """``draw`` with the given numbers ``uniform`` (N, K) in [0, 1].

        Place k inverts the cumulative distribution over the remaining items at number k.
        """
        left = self.logits.detach().clone()  # (N, A)
        index, total = [], torch.zeros_like(uniform[:, 0])
        for u in uniform.split(1, 1):  # (N, 1)
            chosen, log_p = categorical.draw_at(left, u)  # (N,) each
            left.scatter_(1, chosen.unsqueeze(1), -torch.inf)
            index.append(chosen)
            total += log_p
        self._check(total)
        return torch.stack(index, 1), total

    def best(self) -> Tensor:
        """The most probable slate (N, K) int64, the K highest logits in order. Raises as ``draw`` does."""
        if self.slate_size > self.logits.shape[1]:
            raise _too_large(self.slate_size, self.logits.shape[1])
        top = self.logits.topk(self.slate_size, 1)  # sorted
        self._check(top.values[:, -1])
        return top.indices

    def logprob(self, index: Tensor) -> Tensor:
        """Log-probability (N,) of the slates ``index`` (N, K).

        It is -inf if a slate has a forbidden item, or an item twice.
        """
        ordered = index.sort(1).values
        twice = (ordered[:, 1:] == ordered[:, :-1]).any(1)  # (N,)
        return self.terms(index).sum(1).masked_fill(twice, -torch.inf)

    def terms(self, index: Tensor) -> Tensor:
        """The terms (N, K) of ``logprob(index)``, each place given those above it, with a gradient.

        A forbidden item has -inf. For slates without an item twice.
        """
        if index.shape != (len(self.logits), self.slate_size):
            raise ValueError(f"slates {tuple(index.shape)} don't fit {len(self.logits)} x {self.slate_size}")
        terms: Tensor = _Terms.apply(self.logits, index)  # type: ignore[no-untyped-call]
        return terms

    def place_logprobs(self, index: Tensor) -> Tensor:
        """The terms (N, K) of ``logprob(index)``: each place given the places above it, without a gradient.

        They are float64. A forbidden or repeated item has -inf; the terms below it have no meaning.
        """
        left = self.logits.detach().double()  # (N, A)
        logprobs = []
        for chosen in index.unbind(1):  # (N,)
            logprobs.append(categorical.logprob(left, chosen))
            left.scatter_(1, chosen.unsqueeze(1), -torch.inf)
        return torch.stack(logprobs, 1)

    def entropy(self) -> Tensor:
        """A lower bound of the entropy in nats, (N,): sum_k max(0, H - log k), with H the entropy of place 1.

        By the chain rule the entropy is the sum over places of the entropy given the earlier places. Let S be
        the k - 1 items of the earlier places, and m their probability in place 1. Let Y be the item of place
        1 if it is in S, and "another" if not. Then H = H(Y) + (1 - m) H(place k | S), since place 1 given
        "another" has the distribution of place k. Y has k outcomes, so H(Y) <= log k, and::

            H(place k | S) = (H - H(Y)) / (1 - m) >= H - log k

        No entropy is negative. For K = 1 the bound is the entropy itself; for equal logits it is at most
        log K! below the entropy.
        """
        return self._bound(categorical.entropy(self.logits))

    def evaluate(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """``logprob(index)`` and ``entropy()``, (N,) each, with gradients in closed form."""
        first = Categorical(self.logits.unsqueeze(1))  # the distribution of place 1
        return self.logprob(index), self._bound(first.evaluate(index[:, :1])[1])

    def _bound(self, entropy: Tensor) -> Tensor:
        places = torch.arange(1, self.slate_size + 1, device=entropy.device)
        return (entropy.unsqueeze(1) - places.to(entropy.dtype).log()).relu().sum(1)

    def _check(self, finite: Tensor) -> None:
        """Raise UserError if ``finite`` (N,) is False for a row that ran out of items."""
        if not bool(finite.isfinite().all()):
            allowed = int((self.logits != -torch.inf).sum(1).min())  # NaN counts, as it must give a NaN loss
            if allowed < self.slate_size:
                raise _too_large(self.slate_size, allowed)


class _Terms(torch.autograd.Function):
    """l_{a_k} - log Z_k, from the last place to the first: log Z_k = log(Z_{k+1} + exp(l_{a_k})).

    In this order terms are added. Subtracting a term that is nearly the whole sum would lose digits. With g_k
    the derivative at the term of place k, that at l_j is [j = a_k] g_k - sum_m g_m exp(l_j) / Z_m, over the
    places m where j was not yet taken.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, index: Tensor) -> Tensor:
        chosen = logits.gather(1, index)  # (N, K)
        rest = logits.scatter(1, index, -torch.inf).logsumexp(1, keepdim=True)  # (N, 1): of what is not shown
        sums = torch.cat([rest, chosen.flip(1)], 1).logcumsumexp(1)[:, 1:].flip(1)  # (N, K): log Z_k
        ctx.save_for_backward(logits, index, chosen, sums)
        return chosen - sums

    @staticmethod
    def backward(ctx: Any, by_terms: Tensor) -> tuple[Tensor, None]:
        kernels.check_first_derivative()
        logits, index, chosen, sums = ctx.saved_tensors
        last = sums[:, -1:]  # (N, 1): log of the smallest sum; no item but those above has a larger logit
        total = (by_terms * (last - sums).exp()).sum(1, keepdim=True)  # (N, 1): Z_K sum_m g_m / Z_m
        gradient = (logits - last).exp_().mul_(-total)  # (N, A)
        shares = (chosen.unsqueeze(2) - sums.unsqueeze(1)).exp().tril()  # (N, K, K): of a_k at place m <= k
        of_slate = by_terms - (shares @ by_terms.unsqueeze(2)).squeeze(2)  # (N, K)
        return gradient.scatter_(1, index, of_slate), None


def by_rank(logits: Tensor, ratio: float) -> Tensor:
    """Logits (N, A) by the order of ``logits``: 1 / ``ratio`` of the weight of the next better item.

    Equal items have equal weights, each as if it were the first of them. Logits are compared in steps of
    1 / STEPS: copies of an item, whose logits may differ by rounding, are equal. A row with NaN or infinity
    becomes NaN.
    """
    steps = (logits * STEPS).round()
    better = logits.shape[1] - torch.searchsorted(steps.sort(1).values, steps, right=True)
    ranked = (better * -math.log(ratio)).to(logits).masked_fill(logits == -torch.inf, -torch.inf)
    return ranked.masked_fill(~(logits < torch.inf).all(1, keepdim=True), torch.nan)


def _too_large(slate_size: int, allowed: int) -> UserError:
    return UserError(
        f"A slate shows {slate_size} items, but only {allowed} may be shown to one of the users: use a "
        "smaller slate, a shorter session, fewer excluded items or a larger catalogue."
    )
