"""The watch time of short videos, in two regimes: of users who stay, and of users who leave.

The watch ratio is the time watched over the duration, at most HIGHEST_RATIO. For a user who stays it is
log-normal. A user who leaves does so after a log-normal number of seconds; before ``skip_below`` that is a
skip. The platform's file has the equations. All functions work element by element.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from recsys_rl.functional.log_normal import capped_mean

HIGHEST_RATIO = 5.0


class Watched(NamedTuple):
    """Drawn values, or expectations; all have the same shape."""

    ratio: Tensor
    watch: Tensor  # the ratio, with 0 for skips
    skip: Tensor  # 1 for a skip, or its probability


def expected_of_leavers(leave: Tensor, leave_spread: float, duration: Tensor, skip_below: float) -> Watched:
    """The expectation for a user who leaves.

    ``leave`` and ``leave_spread`` are mean and standard deviation of the logarithm of the seconds.
    """
    noise = torch.full_like(leave, leave_spread)
    most = HIGHEST_RATIO * duration
    watched = capped_mean(leave, noise, most.clamp_min(skip_below), skip_below).minimum(most) / duration
    return Watched(
        ratio=capped_mean(leave, noise, most) / duration,
        watch=watched,
        skip=torch.special.ndtr((math.log(skip_below) - leave) / noise),
    )


def expected(stays: Tensor, location: Tensor, spread: Tensor, of_leavers: Watched) -> Watched:
    """The expectation where users stay with the probability ``stays``.

    ``location`` and ``spread`` are mean and standard deviation of the log watch ratio of those who stay.
    """
    stayed, leaves = stays * capped_mean(location, spread, HIGHEST_RATIO), 1 - stays
    return Watched(
        ratio=stayed + leaves * of_leavers.ratio,
        watch=stayed + leaves * of_leavers.watch,
        skip=leaves * of_leavers.skip,
    )


def drawn(
    stays: Tensor,
    location: Tensor,
    spread: Tensor,
    leave: Tensor,
    leave_spread: float,
    duration: Tensor,
    skip_below: float,
    normal: Tensor,
) -> Watched:
    """The outcome where ``stays`` is bool and ``normal`` the noise; the rest as in the functions above."""
    center = torch.where(stays, location, leave - duration.log())
    deviation = torch.where(stays, spread, leave_spread)
    ratio = (center + deviation * normal).exp().clamp_max(HIGHEST_RATIO)
    skip = ~stays & (leave + leave_spread * normal < math.log(skip_below))
    return Watched(ratio, ratio.masked_fill(skip, 0), skip.float())
