"""A lower bound of a difference for single decisions whose weights are too heavy for `dr`.

It needs no light weights, but the ends between which every reward lies, and weights that are not too large on
average.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from recsys_rl.logs.ope.diagnostics import ROUNDING, weigh

LOWER = "lower-bound"
"""Its name where it answers: it has a lower end alone."""
EARLIER = "clipped-ips"
"""Its name in files of earlier versions, which an estimator has, too."""
Bounds = tuple[float, float]


@dataclass(frozen=True)
class SingleDecisions:
    """A log of single decisions with logged probabilities, as the lower bound reads it."""

    rewards: Tensor  # (N,) float64
    bounds: Bounds  # between which each reward lies, those that the log lacks too
    weights: Mapping[str, Tensor] = field(default_factory=dict)  # (N,) float64, by policy

    def terms_of(self, policy: str, other: str, users: Tensor) -> tuple[Tensor, Tensor] | None:
        """``lower_terms`` of a policy against another one; None with a mean weight above 1.

        A policy without weights is the one that logged. ``users``: (N,).
        """
        ones = torch.ones_like(self.rewards)
        new, old = (self.weights.get(name, ones) for name in (policy, other))
        if any(too_large(weights, users) is not None for weights in (new, old)):
            return None
        return lower_terms(new, old, self.rewards, *self.bounds)


def lower_terms(
    new: Tensor, old: Tensor, rewards: Tensor, least: float, most: float
) -> tuple[Tensor, Tensor]:
    """Terms that are too low on average for the challenger, and too high for the champion::

        least + min(w, c) (r - least)    and    most - min(w', c) (most - r),    c = sqrt(N)

    What is cut of a weight, or what the log lacks of a policy's choices, counts as the worst reward for the
    one and as the best for the other, so the difference of the means is a lower bound however heavy weights
    are: the outer interval of Bottou et al. 2013 (arXiv:1209.2355, section 4.4). c is that of Ionides 2008.
    The terms of the policy that logged, whose weights are 1, are the rewards.

    Args:
        new, old: (N,) float64: the weights of both, with means of 1 at most.
        rewards: (N,) float64, within [least, most], as is every reward that the log lacks.
    Returns: (N,) float64 each.
    """
    clip = len(rewards) ** 0.5
    challenger = least + new.clamp(max=clip) * (rewards - least)
    return challenger, most - old.clamp(max=clip) * (most - rewards)


def too_large(weights: Tensor, users: Tensor) -> float | None:
    """The mean of the weights (N,), cut as in ``lower_terms``, if it is certainly above 1; None if not.

    Cut weights have a mean of 1 at most if the probabilities in the log are right, and a light tail, so that
    their interval can be relied on. With too small probabilities the terms are no bounds.
    """
    found = weigh(weights.clamp(max=len(weights) ** 0.5), users)
    return found.mean if found.mean_low - ROUNDING > 1 else None
