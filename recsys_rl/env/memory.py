"""Forgetting by FSRS-6, the spaced repetition scheduler of Anki, with its published parameters w0 .. w20.

A memory has a stability S [days until the recall has fallen to 0.9] and a difficulty D [1 .. 10]. A review is
rated Good (3) if the answer was right, and Again (1) if it was wrong. After t whole days, with
F = 0.9^(-1 / w20) - 1 (0.98)::

    R(t) = (1 + F t / S)^-w20                                                       the recall

    first review     S = w[rating - 1]                  D = w4 - e^(w5 (rating - 1)) + 1
    t >= 1, Good     S <- S (1 + e^w8 (11 - D) S^-w9 (e^(w10 (1 - R)) - 1))
    t >= 1, Again    S <- min(w11 D^-w12 ((S + 1)^w13 - 1) e^(w14 (1 - R)), S e^(-w17 w18))
    t = 0            S <- S g,  g = e^(w17 (rating - 3 + w18)) S^-w19, at least 1 for Good
    any later one    D <- w7 D_easy + (1 - w7) (D - w6 (rating - 3) (10 - D) / 9)     D_easy: first, of 4

S is at least 0.001, and D is clipped to 1 .. 10. The parameters are the defaults of the package `fsrs` 6.3.2
(MIT); they were fitted to the reviews of Anki's users.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

W = (
    *(0.212, 1.2931, 2.3065, 8.2956, 6.4133, 0.8334, 3.0194, 0.001, 1.8722, 0.1666, 0.796),
    *(1.4835, 0.0614, 0.2629, 1.6483, 0.6014, 1.8729, 0.5425, 0.0912, 0.0658, 0.1542),
)
FACTOR = 0.9 ** (-1 / W[20]) - 1
LEAST = 0.001  # of S
AGAIN, GOOD, EASY = 1, 3, 4


def recall(stability: Tensor, days: Tensor) -> Tensor:
    """R after ``days`` since the last review. Shapes broadcast."""
    held: Tensor = (1 + FACTOR * days / stability) ** -W[20]
    return held


def first(rating: int) -> tuple[float, float]:
    """S and D after the first review."""
    return W[rating - 1], min(max(_first_difficulty(rating), 1.0), 10.0)


def review(stability: Tensor, difficulty: Tensor, days: Tensor, rating: int) -> tuple[Tensor, Tensor]:
    """S and D after a review with this ``rating``, AGAIN or GOOD, whole ``days`` after the last one."""
    forgotten = 1 - recall(stability, days)
    same_day = math.exp(W[17] * (rating - 3 + W[18])) * stability ** -W[19]
    if rating == GOOD:
        same_day = same_day.clamp_min(1)
        gain = math.exp(W[8]) * (11 - difficulty) * stability ** -W[9] * (W[10] * forgotten).expm1()
        later = stability * (1 + gain)
    else:
        lapse = W[11] * difficulty ** -W[12] * ((stability + 1) ** W[13] - 1) * (W[14] * forgotten).exp()
        later = torch.minimum(lapse, stability * math.exp(-W[17] * W[18]))
    after = torch.where(days >= 1, later, stability * same_day).clamp_min(LEAST)
    moved = difficulty - W[6] * (rating - 3) * (10 - difficulty) / 9
    return after, (W[7] * _first_difficulty(EASY) + (1 - W[7]) * moved).clamp(1, 10)


def _first_difficulty(rating: int) -> float:
    """D after the first review, before it is clipped."""
    return W[4] - math.exp(W[5] * (rating - 1)) + 1
