"""Advantages and returns over time-major tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    done: Tensor,
    gamma: float,
    gae_lambda: float,
    discounts: Tensor | None = None,
) -> Tensor:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438, eq. 11 and 16)::

        delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t)
        A_t     = delta_t + gamma lambda (1 - done_t) A_{t+1}

    ``terminated`` removes the bootstrap; ``done`` (terminated or cut by a time limit) only cuts the trace.
    ``next_values`` holds V of the true successor s'. After a time limit s' is not the state of the next row.
    ``discounts``, if given, multiply gamma step by step, where a step takes longer than others (a semi-Markov
    decision process: Sutton, Precup and Singh 1999, Artificial Intelligence 112).

    Args: all of shape (T, N); ``gamma``, ``gae_lambda`` and ``discounts`` in [0, 1].
    Returns: advantages (T, N), in the units of the reward.
    """
    each = gamma if discounts is None else gamma * discounts  # (T, N) or one number
    deltas = rewards + each * torch.where(terminated, 0.0, next_values) - values  # (T, N)
    keep = each * gae_lambda * (~done).to(rewards.dtype)  # (T, N)
    running = torch.zeros_like(deltas[0])  # (N,)
    advantages: list[Tensor] = []  # latest first
    for delta, decay in zip(reversed(deltas.unbind()), reversed(keep.unbind()), strict=True):
        running = torch.addcmul(delta, decay, running)
        advantages.append(running)
    return torch.stack(advantages[::-1])


def standardize(advantage: Tensor) -> Tensor:
    """(A - mean) / deviation over the batch (..., B); the deviation divides by B. 0 if A is constant."""
    # "Layer normalisation" of each row is one operator instead of five.
    return torch.nn.functional.layer_norm(advantage, advantage.shape[-1:], eps=1e-16)


def standardize_parts(advantage: Tensor, size: int) -> Tensor:
    """``standardize`` for each part of ``size`` numbers of ``advantage`` (S,); the last may be smaller."""
    full = len(advantage) - len(advantage) % size
    parts = standardize(advantage[:full].view(-1, size)).flatten()  # all at once
    return parts if full == len(advantage) else torch.cat([parts, standardize(advantage[full:])])


def explained_variance(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - Var[target - predicted] / Var[target]: 1 is perfect, 0 no better than a constant.

    Returns: a scalar tensor, NaN if the target is constant.
    """
    variance = target.var(correction=0)
    return torch.where(variance > 0, 1 - (target - predicted).var(correction=0) / variance, torch.nan)
