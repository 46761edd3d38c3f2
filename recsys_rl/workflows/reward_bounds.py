"""The ends between which every reward of a single decision lies, those that the log lacks too."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from recsys_rl.experience.logged import rewards_of
from recsys_rl.ope.lower import Bounds
from recsys_rl.protocols import UserModel
from recsys_rl.records import Platform
from recsys_rl.tables.decision_log import DecisionLog
from recsys_rl.types import UserError
from recsys_rl.users.from_log import sums_of_signals


def reward_bounds(log: DecisionLog, platform: Platform, users: UserModel, weights: Tensor) -> Bounds | None:
    """The ends of a reward of a platform's signals; None if they are unknown.

    The range of a signal is that of its platform. At a place of one's own a signal that was 0 and 1 in the
    log of the training is from 0 to 1.

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
    by = {signal.name: value for signal, value in zip(users.signals, made.tolist(), strict=True)}
    rewards = rewards_of(log.header, users, weights, log.feedback)
    return bounds_of_sum(log, by, rewards, platform.signal_ranges if platform.simulates else _known(users))


def _known(users: UserModel) -> dict[str, Bounds]:
    """The ranges of the signals that have one."""
    ranges = {signal.name: (signal.low, signal.high) for signal in users.signals}
    return {name: ends for name, ends in ranges.items() if all(map(math.isfinite, ends))}


def bounds_of_sum(
    log: DecisionLog, by: Mapping[str, float], rewards: Tensor, ranges: Mapping[str, Bounds]
) -> Bounds | None:
    """The ends of a reward that is a weighted sum of signals over the places of a slate; None if unknown.

    A signal without a range that is 0 and 1 in the log, and nothing else, is from 0 to 1. That of another
    signal is unknown, as what was never shown may pay less than all that was.

    Args:
        by: the weight of each signal.
        rewards: (E,) of the log.
        ranges: of signals, where they are known.
    """
    least = most = 0.0
    for name, weight in by.items():
        if not weight:
            continue
        known = ranges.get(name) or _of_zeros_and_ones(log, name)
        if known is None or not all(map(math.isfinite, known)):
            return None
        ends = sorted(log.header.interface.slate_size * weight * end for end in known)
        least, most = least + ends[0], most + ends[1]
    slack = 1e-6 * max(1.0, abs(least), abs(most))  # rewards are sums of float32
    within = least - slack <= float(rewards.min()) and float(rewards.max()) <= most + slack
    return (least, most) if within else None


def _of_zeros_and_ones(log: DecisionLog, name: str) -> Bounds | None:
    """0 and 1 for a signal that has these values and no other; else None."""
    if name not in log.header.signals:
        return None
    values = log.signals[:, :, log.header.signals.index(name)][log.shown].unique()
    return (0.0, 1.0) if torch.equal(values, torch.tensor([0.0, 1.0])) else None
