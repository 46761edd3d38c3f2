"""Estimators of slates of K items. Each function returns the terms (E,); their mean is the estimate.

Each is unbiased under its own assumption about the user: ``sips`` under none; ``rips`` if the reward of a
place depends on the items at it and above; ``iips`` if it depends on its own item; ``pi`` if the slate's
reward is a sum over places of numbers that depend on the place's own item (it reads only the sum).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Slates:
    """E logged slates, as the estimators read them."""

    ratios: Tensor  # (E, K) float64: pi / pi_b of each place's item, given the items above
    rewards: Tensor  # (E, K) float64: the reward of each place
    # (E, K) float64: the same without the items above, pi(a_k|x) / pi_b(a_k|x); None: places are independent
    marginal: Tensor | None = None
    additive: Tensor | None = None  # (E,) float64: pseudo-inverse weight; None: the places are independent


# prod_k w_k sum_k r_k
def sips(log: Slates) -> Tensor:
    return log.ratios.prod(1) * log.rewards.sum(1)


# sum_k w_k r_k, w_k of the place alone: Li et al. 2018
def iips(log: Slates) -> Tensor:
    return (place_weights(log) * log.rewards).sum(1)


# sum_k w_{1:k} r_k: McInerney et al. 2020, without their normalisation
def rips(log: Slates) -> Tensor:
    return (log.ratios.cumprod(1) * log.rewards).sum(1)


# 1_pi' G^+ 1_s r: Swaminathan et al. 2017; (sum_k w_k - K + 1) r where the logger's places are independent
def pi(log: Slates) -> Tensor:
    if log.additive is not None:
        return log.additive * log.rewards.sum(1)
    return (place_weights(log).sum(1) - log.rewards.shape[1] + 1) * log.rewards.sum(1)


def place_weights(log: Slates) -> Tensor:
    """(E, K): w_k of the place alone."""
    return log.ratios if log.marginal is None else log.marginal


SLATE: dict[str, Callable[[Slates], Tensor]] = {"sips": sips, "iips": iips, "rips": rips, "pi": pi}


def pseudo_inverse_weights(
    policy: Tensor, logging: Tensor, slates: Tensor, items: Tensor, size: int
) -> Tensor | None:
    """(E,): the weight of ``pi`` for loggers whose places depend on each other.

    None if the policy's slates lie outside the span of the logger's, where no weight is unbiased.

    Args:
        policy, logging: (E, M) probabilities of the M possible slates under both policies.
        slates: (M, K) int64, the possible slates.
        items: (E, K) int64, the logged slates.
        size: A, the number of items.
    """
    number, places = slates.shape
    at, width = torch.arange(places) * size, places * size
    shown = torch.zeros(number, width, dtype=torch.float64)  # (M, K A): 1_s of each slate
    shown.scatter_(1, slates + at, 1.0)
    mean = policy.double() @ shown  # (E, K A): 1_pi
    pairs = (shown.unsqueeze(2) * shown.unsqueeze(1)).flatten(1)  # (M, K A K A): 1_s 1_s'
    second = (logging.double() @ pairs).view(-1, width, width)  # (E, K A, K A): G
    solved = torch.linalg.pinv(second, hermitian=True) @ mean.unsqueeze(2)  # (E, K A, 1)
    if bool(((second @ solved - mean.unsqueeze(2)).abs() > 1e-8).any()):
        return None
    chosen: Tensor = solved.squeeze(2).gather(1, items + at)  # (E, K)
    return chosen.sum(1)
