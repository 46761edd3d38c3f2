"""Estimators of whole sessions. Each returns terms (N,), one a session; their mean is the estimate.

Sessions are padded to T steps. After its end a session has reward 0, Q 0, V 0, and keeps its last weight, so
that the weights of each step have the expectation 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recsys_rl.ope.bandit import needed, normalised
from recsys_rl.ope.fits import Fit
from recsys_rl.ope.reward_model import cross_fit, predict


@dataclass(frozen=True)
class Sessions:
    """N logged sessions, as the estimators read them."""

    weights: Tensor  # (N, T) float64: w_{0:t}, the cumulative weight; after the end the last one
    rewards: Tensor  # (N, T) float64: r_t, 0 after the end
    alive: Tensor  # (N, T) bool: True for steps that took place
    gamma: float
    q: Tensor | None = None  # (N, T) float64: Q_t of the logged action, cross-fitted; 0 after the end
    v: Tensor | None = None  # (N, T) float64: V_t = sum_a pi(a|x_t) Q_t(x_t, a); 0 after the end

    def rows(self, index: Tensor) -> Sessions:
        """The sessions at ``index`` (B,), one may be there several times."""
        q, v = (None if x is None else x[index] for x in (self.q, self.v))
        return Sessions(self.weights[index], self.rewards[index], self.alive[index], self.gamma, q, v)

    @property
    def discounts(self) -> Tensor:
        """(T,): g^t"""
        steps = torch.arange(self.rewards.shape[1], dtype=torch.float64)
        return torch.as_tensor(self.gamma, dtype=torch.float64) ** steps

    @property
    def residual(self) -> Tensor:
        """(N, T): r_t + g V_{t+1} - Q_t, with V = 0 after the end."""
        v = needed(self.v)
        after = torch.cat([v[:, 1:], v.new_zeros(len(v), 1)], 1)  # (N, T)
        return self.rewards + self.gamma * after - needed(self.q)


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


# sum_t g^t w_{0:t} r_t: Precup, Sutton and Singh 2000
def pdis(log: Sessions) -> Tensor:
    return (log.weights * log.rewards) @ log.discounts


# sum_t g^t sum_i w r / sum_i w: each step normalised over the sessions
def wpdis(log: Sessions) -> Tensor:
    return each_step_normalised(log.weights, log.rewards) @ log.discounts


# V_0 + sum_t g^t w_{0:t} (r_t + g V_{t+1} - Q_t): Jiang and Li 2016, unrolled
def sdr(log: Sessions) -> Tensor:
    return needed(log.v)[:, 0] + (log.weights * log.residual) @ log.discounts


# the same, with the weights of each step normalised over the sessions: Thomas and Brunskill 2016
def wdr(log: Sessions) -> Tensor:
    return needed(log.v)[:, 0] + each_step_normalised(log.weights, log.residual) @ log.discounts


# V_0: fitted Q evaluation (Le, Voloshin and Yue 2019)
def fqe(log: Sessions) -> Tensor:
    return needed(log.v)[:, 0]


def each_step_normalised(weights: Tensor, x: Tensor) -> Tensor:
    """(N, T): the terms of ``normalised`` at each step."""
    return torch.stack([normalised(w, y) for w, y in zip(weights.T, x.T, strict=True)], 1)


SEQUENTIAL: dict[str, Callable[[Sessions], Tensor]] = {
    "pdis": pdis, "wpdis": wpdis, "sdr": sdr, "wdr": wdr, "fqe": fqe,
}  # fmt: skip

Alternatives = Callable[[int, Tensor], tuple[Tensor, Tensor]]
"""Step t and rows (B,) -> features (B, A, F) of A actions, and the policy's probability of each, (B, A)."""
BLOCK = 200_000  # predictions at once


def with_fitted_q(
    log: Sessions,
    features: Tensor,
    alternatives: Alternatives,
    fit: Fit,
    folds: Tensor,
    bounds: tuple[float, float] | None = None,
) -> Sessions:
    """``log`` with Q and V: from the last step to the first, ``Q_t`` is fitted to ``r_t + g V_{t+1}``.

    Args:
        features: (N, T, F) of the logged actions.
        alternatives: features and probabilities of the actions that V averages over.
        folds: (N,) int64; the model that values a session was fitted on the other folds.
        bounds: smallest and largest possible reward of a step; Q is clipped to what the steps left can earn.
    """
    number, steps = log.rewards.shape
    q, v = torch.zeros(2, number, steps, dtype=torch.float64)
    after = torch.zeros(number, dtype=torch.float64)
    least = most = 0.0
    for t in reversed(range(steps)):
        if bounds is not None:  # r_t and g times what the later steps can earn, none of which may take place
            least = bounds[0] + log.gamma * min(least, 0.0)
            most = bounds[1] + log.gamma * max(most, 0.0)
        here = log.alive[:, t].nonzero().squeeze(1)
        if not len(here):
            continue
        target = (log.rewards[:, t] + log.gamma * after)[here]
        models = cross_fit(fit, features[here, t], target, folds[here], alone=_nothing)
        q_here = predict(models, features[here, t], folds[here])
        v_here = _policy_average(models, here, folds[here], t, alternatives, bounds and (least, most))
        after = torch.zeros(number, dtype=torch.float64)
        after[here] = v_here
        q[here, t] = q_here.clamp(least, most) if bounds else q_here
        v[here, t] = v_here
    return replace(log, q=q, v=v)


def _nothing(features: Tensor) -> Tensor:
    """Q = 0, for a step that no other fold reached: any Q that its own rows did not train is allowed."""
    return torch.zeros(len(features), dtype=torch.float64)


def _policy_average(
    models: list[Callable[[Tensor], Tensor]],
    rows: Tensor,
    folds: Tensor,
    t: int,
    alternatives: Alternatives,
    bounds: tuple[float, float] | None,
) -> Tensor:
    """(B,): sum_a pi(a|x) Q(x, a) for the sessions ``rows`` (B,) at step ``t``."""
    one = alternatives(t, rows[:1])[1].shape[1]
    parts = []
    size = max(1, BLOCK // one)
    for mine, fold in zip(rows.split(size), folds.split(size), strict=True):
        features, probability = alternatives(t, mine)
        q = predict(models, features, fold)  # (b, A)
        parts.append((probability * (q.clamp(*bounds) if bounds else q)).sum(1))
    return torch.cat(parts)
