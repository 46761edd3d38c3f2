"""The numbers of lives: active days, retention and churn, of users who come back (env/visits.py)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recsys_rl.experience.rollout import Sessions

RETENTION = (1, 7, 30)  # days after the first one


def active_days(days: Tensor) -> Tensor:
    """(N,) int64: number of different days in ``days`` (T, N), which never fall; -1 after the end."""
    new = torch.ones_like(days, dtype=torch.bool)
    new[1:] = days[1:] != days[:-1]
    return (new & (days >= 0)).sum(0)


def retained(sessions: Sessions, day: int) -> Tensor | None:
    """(N,) bool: the user is active on this day after the first day; None if that is unknown for some user.

    It is unknown for a life that was cut after its largest number of visits, before ``day``.
    """
    days = sessions.days
    assert days is not None
    cut = ~sessions.left & (active_days(days) >= sessions.visits)  # (N,)
    if bool((cut & (days.amax(0) < day)).any()):
        return None
    return (days == day).any(0)


def life_columns(sessions: Sessions) -> dict[str, float]:
    """The table's columns of lives; empty if an episode is one visit.

    - ``active_days``: mean number of days with a visit
    - ``d1``, ``d7``, ``d30``: retention, the share of the users who are active on exactly that day after
      their first day (classic retention); NaN if it is unknown for some user
    - ``churn``: share of the users who stay away for more than 30 days
    """
    if sessions.days is None:
        return {}
    columns = {"active_days": active_days(sessions.days).double().mean().item()}
    for day in RETENTION:
        there = retained(sessions, day)
        columns[f"d{day}"] = math.nan if there is None else there.double().mean().item()
    return columns | {"churn": sessions.left.double().mean().item()}
