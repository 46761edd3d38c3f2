"""Estimators of one step. Each function returns the terms (E,); the mean of the terms is the estimate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.types import UserError


@dataclass(frozen=True)
class Decisions:
    """E logged decisions of one step, as the estimators read them."""

    weights: Tensor  # (E,) float64: w = pi(a|x) / pi_b(a|x) of the logged action
    rewards: Tensor  # (E,) float64: r
    q: Tensor | None = None  # (E,) float64: q(x, a) of the logged action, cross-fitted
    v: Tensor | None = None  # (E,) float64: sum_a pi(a|x) q(x, a), over the items that could be shown

    def rows(self, index: Tensor) -> Decisions:
        """The decisions at ``index`` (B,), one may be there several times."""
        q, v = (None if x is None else x[index] for x in (self.q, self.v))
        return Decisions(self.weights[index], self.rewards[index], q, v)

    @property
    def residual(self) -> Tensor:
        """(E,): r - q(x, a)."""
        return self.rewards - needed(self.q)


def needed(x: Tensor | None) -> Tensor:
    """``x``, or UserError if there is no reward model."""
    if x is None:
        raise UserError(
            "This estimator needs a reward model, but none was fitted: give features to fit it on, or choose "
            "ips, clipped-ips, snips or sg."
        )
    return x


def normalised(weights: Tensor, x: Tensor) -> Tensor:
    """Linearised terms of the ratio ``sum w x / sum w``; 0 without any weight."""
    mean = weights.mean()
    if mean == 0:
        return torch.zeros_like(x)
    ratio = (weights * x).mean() / mean
    return ratio + weights * (x - ratio) / mean


# Direct method: v(x) = sum_a pi(a|x) q(x, a)
def dm(log: Decisions) -> Tensor:
    return needed(log.v)


# w r: Horvitz and Thompson 1952
def ips(log: Decisions) -> Tensor:
    return log.weights * log.rewards


# min(w, c) r: Ionides 2008
def clipped_ips(log: Decisions, clip: float) -> Tensor:
    return log.weights.clamp_max(clip) * log.rewards


# sum w r / sum w: Swaminathan and Joachims 2015
def snips(log: Decisions) -> Tensor:
    return normalised(log.weights, log.rewards)


# v + w (r - q): Dudik, Langford and Li 2011
def dr(log: Decisions) -> Tensor:
    return needed(log.v) + log.weights * log.residual


# mean v + sum w (r - q) / sum w: weights divided by their mean
def sndr(log: Decisions) -> Tensor:
    return needed(log.v) + normalised(log.weights, log.residual)


# v + w 1{w <= c} (r - q): Wang, Agarwal and Dudik 2017
def switch_dr(log: Decisions, clip: float) -> Tensor:
    return needed(log.v) + switched(log.weights, clip) * log.residual


# v + c w / (w^2 + c) (r - q): Su et al. 2020, "Doubly robust off-policy evaluation with shrinkage"
def dros(log: Decisions, clip: float) -> Tensor:
    return needed(log.v) + shrunk(log.weights, clip) * log.residual


# w / (1 - c + c w) r: Metelli, Russo and Restelli 2021; c = 0 is ips, c = 1 gives each weight as 1
def sg(log: Decisions, clip: float) -> Tensor:
    return subgaussian(log.weights, clip) * log.rewards


def switched(weights: Tensor, clip: float) -> Tensor:
    """w 1{w <= c}"""
    return torch.where(weights <= clip, weights, 0.0)


def shrunk(weights: Tensor, clip: float) -> Tensor:
    """c w / (w^2 + c); w if c is infinite."""
    if clip == float("inf"):
        return weights
    return clip * weights / (weights**2 + clip) if clip else torch.zeros_like(weights)


def subgaussian(weights: Tensor, clip: float) -> Tensor:
    """w / (1 - c + c w), with c in [0, 1]; 0 where w = 0."""
    return torch.where(weights > 0, weights / (1 - clip + clip * weights), 0.0)


def clipped(weights: Tensor, clip: float) -> Tensor:
    """min(w, c)"""
    return weights.clamp_max(clip)


BANDIT: dict[str, Callable[[Decisions], Tensor]] = {
    "dm": dm, "ips": ips, "snips": snips, "dr": dr, "sndr": sndr,
}  # fmt: skip
"""Estimators without a clip."""

CLIPPED: dict[str, tuple[Callable[[Decisions, float], Tensor], Callable[[Tensor, float], Tensor]]] = {
    "clipped-ips": (clipped_ips, clipped),
    "switch-dr": (switch_dr, switched),
    "dros": (dros, shrunk),
    "sg": (sg, subgaussian),
}
"""Estimators with a clip c, and their weight as a function of w and c."""
