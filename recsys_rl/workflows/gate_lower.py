"""The lower bound of the gate for single decisions whose weights are too heavy for `dr`.

It needs no light weights, but the ends between which every reward lies, and weights that are not too large on
average.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recsys_rl.experience.logged import rewards_of
from recsys_rl.ope.diagnostics import ROUNDING, weigh
from recsys_rl.protocols import UserModel
from recsys_rl.records import Platform
from recsys_rl.tables.decision_log import DecisionLog
from recsys_rl.types import UserError
from recsys_rl.users.from_log import sums_of_signals

Bounds = tuple[float, float]


def lower_terms(
    new: Tensor, old: Tensor, rewards: Tensor, least: float, most: float
) -> tuple[Tensor, Tensor]:
    """Terms that are too low on average for the challenger, and too high for the champion::

        least + min(w, c) (r - least)    and    most - min(w', c) (most - r),    c = sqrt(N)

    What is cut of a weight, or what the log lacks of a policy's choices, counts as the worst reward for the
    one and as the best for the other, so the difference of the means is a lower bound however heavy weights
    are: the outer interval of Bottou et al. 2013 (arXiv:1209.2355, section 4.4). c is that of Ionides 2008.

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


def reward_bounds(log: DecisionLog, platform: Platform, users: UserModel, weights: Tensor) -> Bounds | None:
    """The ends of the reward of a single decision; None if they are unknown.

    A reward is a weighted sum of signals over the places of a slate. The range of a signal is that of its
    platform. Of a log of one's own a signal that was 0 and 1 in the log of the training, or is so in ``log``,
    is from 0 to 1; the range of another one is unknown, as what was never shown may pay less than all that
    was.

    Args:
        weights: (M,) of the streams.
    """
    places = log.header.interface.slate_size
    if log.header.interface.events:
        return None
    try:
        made = sums_of_signals("the log", users, places) @ weights  # (S,)
    except UserError:
        return None
    ranges = platform.signal_ranges if platform.simulates else _that_are_known(users)
    least = most = 0.0
    for signal, by in zip(users.signals, made.tolist(), strict=True):
        if not by:
            continue
        known = ranges.get(signal.name) or _of_zeros_and_ones(log, signal.name)
        if known is None or not all(map(math.isfinite, known)):
            return None
        ends = sorted(places * by * end for end in known)
        least, most = least + ends[0], most + ends[1]
    rewards = rewards_of(log.header, users, weights, log.feedback)
    slack = 1e-6 * max(1.0, abs(least), abs(most))  # rewards are sums of float32
    within = least - slack <= float(rewards.min()) and float(rewards.max()) <= most + slack
    return (least, most) if within else None


def _that_are_known(users: UserModel) -> dict[str, Bounds]:
    """The ranges of the signals that have one."""
    ranges = {signal.name: (signal.low, signal.high) for signal in users.signals}
    return {name: ends for name, ends in ranges.items() if all(map(math.isfinite, ends))}


def _of_zeros_and_ones(log: DecisionLog, name: str) -> Bounds | None:
    """0 and 1 for a signal that has these values and no other; else None."""
    if name not in log.header.signals:
        return None
    values = log.signals[:, :, log.header.signals.index(name)][log.shown].unique()
    return (0.0, 1.0) if torch.equal(values, torch.tensor([0.0, 1.0])) else None
