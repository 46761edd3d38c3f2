"""Lives: users who leave and come back some days later. Pure functions over the rows of N users.

A life is a mapping of tensors (N,) each; it is empty if an episode is one visit:

- ``habit`` h [logits of returning on the next day, after a visit as usual]
- ``usual`` u [feeling per item that the user is used to]
- ``felt`` f and ``items`` n: sum of the feelings of this visit's items, and their number
- ``opened`` [hour of the week at which this visit began, 0 .. 168], where the hour matters

The feeling of an item is a number of the platform. At the end of a visit::

    went  = f / n                                                              [feeling per item]
    z     = h + gain (went - u)                                                          [logits]
    P(return on day k after the visit, not before) = sigmoid(z - fade (k - 1)),  k = 1 .. 30
    u    <- u + rate (went - u)

A user who has not come back after 30 days never does (churn). A life is observed for DAYS days. Each day has
one visit at most, at the same hour of the day. ``opening_hours`` draws that hour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from recsys_rl.settings.fields import Finite, NonNegative, Range, Share
from recsys_rl.settings.shared import EnvConfig

HOURS = 168  # of a week
LONGEST_GAP = 30  # days; a user who stays away for longer never returns
DAYS = 35  # of a life
# Share of the views in each hour of the day (KuaiRand, users with even places in the order of their ids).
OPENED_AT = (
    *(0.038, 0.019, 0.010, 0.007, 0.007, 0.007, 0.017, 0.030, 0.034, 0.036, 0.042, 0.050),
    *(0.062, 0.065, 0.040, 0.039, 0.045, 0.056, 0.067, 0.067, 0.057, 0.065, 0.076, 0.064),
)

Life = Mapping[str, Tensor]


@dataclass(frozen=True)
class VisitsConfig(EnvConfig):
    """Users who come back. All but the first setting matter only with ``visits`` above 1."""

    visits: Annotated[int, Range(1, DAYS)] = 1
    """Most visits of an episode. 1: an episode is one visit; more: a user's life of up to 35 days."""
    habit_base: Finite = -0.3
    """Logits of returning on the next day after a visit as usual; habits matter only with visits above 1."""
    habit_deviation: NonNegative = 1.5
    """Standard deviation of these logits between users."""
    habit_fade: NonNegative = 0.5
    """Logits of returning lost on each day away."""
    visit_gain: NonNegative = 10.0
    """Logits of returning per unit of feeling by which a visit was better than usual."""
    usual_rate: Share = 0.1
    """Share by which the usual feeling moves to that of a visit."""
    overnight: Annotated[float, Range(0, below=1)] = 0.3
    """Share of a user's weariness, and of other passing states, that remains after a day away."""
    day_discount: Share = 0.0
    """Discount of learning for each day away; gamma counts steps. 0: each visit is learned alone."""


class Visiting:
    """The part of ``ReturningUsers`` that the settings give."""

    config: VisitsConfig

    @property
    def visits(self) -> int:
        return self.config.visits

    @property
    def day_discount(self) -> float:
        return self.config.day_discount


def begin(habit: Tensor, usual: Tensor, opened: Tensor | None = None) -> Life:
    """The lives at the start of their first visit; all arguments are (N,)."""
    nothing = torch.zeros_like(habit)
    life = {"habit": habit, "usual": usual, "felt": nothing, "items": nothing}
    return life if opened is None else {**life, "opened": opened}


def feel(life: Life, feeling: Tensor, counts: Tensor | None = None) -> Life:
    """The lives after one more item with this ``feeling`` (N,), where it ``counts`` (N,); None: everywhere.

    Without visits there is no life, and none is returned.
    """
    if not life:
        return life
    number = torch.ones_like(feeling) if counts is None else counts.to(feeling.dtype)
    return {**life, "felt": life["felt"] + number * feeling, "items": life["items"] + number}


def went(life: Life) -> Tensor:
    """(N,): mean feeling of the visit's items; the usual one before the first item."""
    mean = life["felt"] / life["items"].clamp_min(1)
    return torch.where(life["items"] > 0, mean, life["usual"])


def gap_days(logit: Tensor, fade: float, chance: Tensor) -> Tensor:
    """(N,) int64: days until the next visit, 1 .. LONGEST_GAP + 1; the last stands for churn.

    P(gap > k) is the product over days j = 1 .. k of 1 - sigmoid(logit - fade (j - 1)). ``chance`` (N,),
    uniform in [0, 1), is inverted: the gap is the first k with P(gap > k) <= chance.
    """
    day = torch.arange(LONGEST_GAP, device=logit.device)
    stays_away = torch.nn.functional.logsigmoid(fade * day - logit.unsqueeze(1))  # (N, 30)
    beyond = stays_away.cumsum(1).exp()  # (N, 30): P(gap > k)
    return 1 + (beyond > chance.unsqueeze(1)).sum(1)


def next_visit(life: Life, chance: Tensor, config: VisitsConfig) -> tuple[Life, Tensor]:
    """The lives at the start of their next visit, and the days until then, (N,) int64 (``gap_days``)."""
    better = went(life) - life["usual"]  # (N,)
    gap = gap_days(life["habit"] + config.visit_gain * better, config.habit_fade, chance)
    usual = life["usual"] + config.usual_rate * better
    opened = (life["opened"] + 24 * gap) % HOURS if "opened" in life else None
    return begin(life["habit"], usual, opened), gap


def possible(life: Life) -> bool:
    """True if these numbers can be those of lives under way."""
    if not life:
        return True
    within = life["items"] >= 0
    if "opened" in life:
        within = within & (life["opened"] >= 0) & (life["opened"] < HOURS)
    return bool(within.all())


def opening_hours(count: int, generator: torch.Generator) -> Tensor:
    """(count,): hour of the week at which a session starts, by OPENED_AT on each day alike.

    Users are spread evenly over the quantiles, so that few users have the same shares.
    """
    shares = torch.tensor(OPENED_AT, dtype=torch.float64)
    quantile = (torch.randperm(count, generator=generator) + 0.5) / count  # (count,), in (0, 1)
    hour = torch.searchsorted((shares.cumsum(0) / shares.sum())[:-1], quantile.double())
    day = torch.randint(7, (count,), generator=generator)
    return (24 * day + hour).float() + 0.999 * torch.rand(count, generator=generator)
