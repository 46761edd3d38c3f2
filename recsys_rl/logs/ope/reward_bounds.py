"""The ends between which every reward of a single decision lies, those that the log lacks too."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.ope.lower import Bounds
from recsys_rl.logs.rewards import of_platform
from recsys_rl.logs.users.from_log import sums_of_signals
from recsys_rl.protocols import UserModel
from recsys_rl.settings.config import Config
from recsys_rl.types import UserError

ANY = (-math.inf, math.inf)


def reward_bounds(log: DecisionLog, config: Config, users: UserModel, weights: Tensor) -> Bounds | None:
    """The ends of a reward of a platform's signals; None if they are unknown.

    The range of a signal is that of its platform. At a place of one's own a signal that was 0 and 1 in the
    log of the training is from 0 to 1; one with other values there has no known range.

    Args:
        config: the settings of the policy.
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
    rewards = of_platform(log.header, users, weights)(log.feedback)
    tables, ranges = config.platform.tables, config.platform.signal_ranges
    if tables is not None:
        of_log = tables.ranges(config.env_config)
        ranges = {name: of[:2] if of.binary else ANY for name, of in of_log.items()}
    return bounds_of_sum(log, by, rewards, ranges)


def bounds_of_sum(
    log: DecisionLog, by: Mapping[str, float], rewards: Tensor, ranges: Mapping[str, Bounds]
) -> Bounds | None:
    """The ends of a reward that is a weighted sum of signals over the places of a slate; None if unknown.

    A signal of which nothing is known and that is 0 and 1 in the log, and nothing else, is from 0 to 1. The
    range of another one is unknown, as what was never shown may pay less than all that was.

    Args:
        by: the weight of each signal.
        rewards: (E,) of the log.
        ranges: of signals; ANY of one that is known to have none.
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
