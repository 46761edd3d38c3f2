"""`Evidence`: what one policy's estimators read of a log. N sessions, padded to T steps; T = 1 for decisions.

After its end a session has reward 0, Q 0, V 0, and keeps its last weight, so that the weights of each step
have the expectation 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recsys_rl.types import UserError, tree_map


@dataclass(frozen=True)
class Slates:
    """The logged slates of K items; a part is None if it is unknown.

    At one place of a slate, ``pi(a_k | x, a_1 .. a_{k-1})`` is the probability of its item given those above,
    and ``pi(a_k | x)`` that of the item whatever stands above.
    """

    given_above: Tensor | None = None  # (N, T, K) float64: pi / pi_b of each place, given the items above
    alone: Tensor | None = None  # (N, T, K) float64: pi / pi_b of each place, whatever stands above
    additive: Tensor | None = None  # (N, T) float64: the pseudo-inverse weight of the slate
    rewards: Tensor | None = None  # (N, T, K) float64: the reward of each place


@dataclass(frozen=True)
class Evidence:
    """N logged sessions and what the judged policy would have done in them."""

    weights: Tensor  # (N, T) float64: w_{0:t}, the cumulative weight; after the end the last one
    rewards: Tensor  # (N, T) float64: r_t, 0 after the end
    alive: Tensor  # (N, T) bool: True for steps that took place
    gamma: float = 1.0
    q: Tensor | None = None  # (N, T) float64: Q_t of the logged action, cross-fitted; 0 after the end
    v: Tensor | None = None  # (N, T) float64: V_t = sum_a pi(a|x_t) Q_t(x_t, a); 0 after the end
    clusters: Tensor | None = None  # (N,) float64: pi / pi_b of the cluster of the one logged item
    slates: Slates | None = None
    world: Tensor | None = None  # (N,) float64: the policy's expected return in a learned world model

    def rows(self, index: Tensor) -> Evidence:
        """The sessions at ``index`` (B,), one may be there several times."""
        slates = None if self.slates is None else tree_map(lambda x: x[index], self.slates)
        return replace(tree_map(lambda x: x[index], self), slates=slates)

    @property
    def discounts(self) -> Tensor:
        """(T,): g^t"""
        return discounts(self.gamma, self.rewards.shape[1])

    @property
    def residual(self) -> Tensor:
        """(N, T): r_t + g V_{t+1} - Q_t, with V = 0 after the end; at one step r - q(x, a)."""
        v = needed(self.v)
        after = torch.cat([v[:, 1:], v.new_zeros(len(v), 1)], 1)  # (N, T)
        return self.rewards + self.gamma * after - needed(self.q)


def of_decisions(
    weights: Tensor, rewards: Tensor, q: Tensor | None = None, v: Tensor | None = None
) -> Evidence:
    """The evidence of E decisions of one step, from their numbers (E,): w, r, q(x, a) and V(x)."""
    q, v = (None if x is None else x.unsqueeze(1) for x in (q, v))
    alive = torch.ones(len(rewards), 1, dtype=torch.bool)
    return Evidence(weights.unsqueeze(1), rewards.unsqueeze(1), alive, 1.0, q, v)


def discounts(gamma: float, steps: int) -> Tensor:
    """(T,) float64: g^t"""
    return torch.as_tensor(gamma, dtype=torch.float64) ** torch.arange(steps, dtype=torch.float64)


def needed(x: Tensor | None) -> Tensor:
    """``x``, or UserError if the evidence lacks it."""
    if x is None:
        raise UserError(
            "This estimator needs a reward model, but none was fitted: give features to fit it on, or choose "
            "ips, clipped-ips, snips or sg."
        )
    return x


def cumulative(ratios: Tensor, alive: Tensor) -> Tensor:
    """w_{0:t} (N, T) from the ratios pi / pi_b of each step (N, T)."""
    return torch.where(alive, ratios, 1.0).cumprod(1)


# w_{0:t} = prod pi / sum_j share_j prod pi_j: the balance heuristic (Veach and Guibas 1995)
def balanced(policy: Tensor, loggers: Tensor, alive: Tensor, shares: Tensor) -> Tensor:
    """w_{0:t} (N, T) of a log of several loggers, over the average of their cumulative probabilities.

    Args:
        policy: (N, T) log-probability of the logged action under the judged policy.
        loggers: (N, T, P) the same under each logger, whichever of them took the action.
        shares: (P,) share of each logger's sessions in the log.
    """
    mine = torch.where(alive, policy, 0.0).cumsum(1)  # (N, T)
    theirs = torch.where(alive.unsqueeze(2), loggers, 0.0).cumsum(1)  # (N, T, P)
    return (mine - torch.logsumexp(theirs + shares.log(), 2)).exp()
