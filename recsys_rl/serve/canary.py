"""The canary: a challenger's returns beside the champion's, with bounds that hold at every look.

Assignment, centring and counting share one unit. With the unit `session` each session is an outcome, minus
the mean of its person's earlier ones. With the unit `user` the first session of each person counts, minus the
mean of the person's sessions before the release. Outcomes stand in the order in which their sessions began,
so that sessions that end soon do not come first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from recsys_rl.ope.anytime import arm_terms, betting, centred, log_capital, share_bound
from recsys_rl.serve.outcomes import Outcome
from recsys_rl.serve.record_schema import Unit

POINTS = 40
"""Places of the band that a page draws."""
GUARDS = {
    "degraded": "popularity answers in its place",
    "early": "users leave early",
    "top": "one item is shown",
}
"""The guardrails, and what they watch."""
Answer = Literal["better", "worse", "can't tell", "the log is broken"]


@dataclass(frozen=True)
class CanarySettings:
    """When a release stops by itself."""

    alpha: float = 0.05
    """Probability, for each bound, that it is ever wrong."""
    degraded: float = 2.0
    """Times the champion's share of decisions by popularity."""
    early: float = 0.10
    """Early leaves above the champion's."""
    top: float = 0.10
    """Share of the most shown item above that of the champion's most shown one."""
    shares_alpha: float = 0.001
    """Probability that right shares of the arms are ever taken for wrong ones."""
    prior: int = 2_000
    """Latest sessions before the release, from which centres and the range of the outcomes are learned."""
    learned: int = 100
    """Sessions from which they are learned at least; those of the release among them are not counted."""
    least: int = 3
    """Sessions of a person before the release, with the unit `user`, for a centre of their own."""


@dataclass(frozen=True)
class Count:
    """The sessions of an arm that have matured."""

    sessions: int = 0
    mean: float = 0.0  # of their returns


@dataclass(frozen=True)
class Guard:
    """A guardrail: a mean of the challenger's sessions beside the champion's."""

    challenger: float
    champion: float
    harms: bool  # the challenger's is certainly above what the settings allow


@dataclass(frozen=True)
class Look:
    """What the canary says now."""

    difference: float | None = None  # challenger minus champion, in units of the return
    low: float | None = None  # of the difference; None: not asked for, or too few sessions
    high: float | None = None
    sessions: int = 0  # that are counted in the difference
    answer: Answer = "can't tell"
    guardrails: dict[str, Guard] = field(default_factory=dict)
    band: list[tuple[int, float, float]] = field(
        default_factory=list
    )  # sessions, low, high after some of them
    harm: str = ""  # why the release must stop; "" if it need not


class Canary:
    """The outcomes of one release, in the order in which its sessions began."""

    def __init__(self, unit: Unit, prior: Sequence[Outcome], settings: CanarySettings | None = None) -> None:
        """``prior``: sessions before the release, in the same order."""
        self.unit, self.settings = unit, CanarySettings() if settings is None else settings
        self.prior = [(outcome.person, outcome.reward) for outcome in prior]
        self.rows: list[_Row] = []
        self.people: set[int] = set()
        self.sums = {
            "champion": [0.0, 0.0],
            "challenger": [0.0, 0.0],
        }  # sessions, and the sum of their returns
        self.top = {"champion": -1, "challenger": -1}  # rows of the most shown items so far
        self.items: dict[str, Counter[int]] = {"champion": Counter(), "challenger": Counter()}

    @property
    def counts(self) -> dict[str, Count]:
        """The sessions of both arms."""
        return {arm: Count(int(n), total / max(1.0, n)) for arm, (n, total) in self.sums.items()}

    def add(self, outcome: Outcome) -> None:
        """Add the next session; one without an arm counts for nothing."""
        if not outcome.arm:
            return
        sums, items = self.sums[outcome.arm], self.items[outcome.arm]
        sums[0] += 1
        sums[1] += outcome.reward
        top = outcome.shown.count(self.top[outcome.arm]) / max(1, len(outcome.shown))
        items.update(outcome.shown)
        self.top[outcome.arm] = max((self.top[outcome.arm], *outcome.shown), key=items.__getitem__)
        if self.unit == "user" and outcome.person in self.people:
            return
        self.people.add(outcome.person)
        is_challenger = outcome.arm == "challenger"
        probability = outcome.probability if is_challenger else 1 - outcome.probability
        watched = outcome.degraded, outcome.early, top
        self.rows.append(_Row(is_challenger, probability, outcome.person, outcome.reward, watched))

    def look(self, band: bool = False) -> Look:
        """The answer now, which was never another one before; ``band``: with the bounds of the difference."""
        if not self.rows:
            return Look()
        settings = self.settings
        arms = _Split(
            torch.tensor([row.is_challenger for row in self.rows]),
            torch.tensor([row.probability for row in self.rows], dtype=torch.float64),
        )
        guards = self._guards(arms)
        found = self._difference(arms, band)
        if share_bound(arms.of_challenger, arms.probability, settings.shares_alpha) is not None:
            wrong = "the arms have other shares than they were given"
            return replace(found, answer="the log is broken", guardrails=guards, harm=wrong)
        harm = next((f"{GUARDS[name]} too often" for name, guard in guards.items() if guard.harms), "")
        if found.answer == "worse":
            harm = f"its sessions return less, by {-(found.difference or 0):.3g}"
        return replace(found, guardrails=guards, harm=harm)

    def _difference(self, arms: _Split, band: bool) -> Look:
        """Challenger minus champion. The sessions from which the range is learned are not counted."""
        rewards = [*(reward for _, reward in self.prior), *(row.reward for row in self.rows)]
        outcomes = centred(torch.tensor(rewards, dtype=torch.float64), torch.tensor(self._people()))
        learned = max(self.settings.learned, len(self.prior))
        span = float(outcomes[:learned].abs().max())
        skip = learned - len(self.prior)
        counted = arms.after(skip)
        number = len(counted.probability)
        if not number or not span:
            return Look()
        # An outcome further off than any before counts as that far: bets need a range that is known before.
        values = outcomes[len(self.prior) + skip :].clamp(-span, span)
        terms = arm_terms(counted.of_challenger, counted.probability, values)
        most = span / float(torch.minimum(counted.probability, 1 - counted.probability).min())
        alpha = self.settings.alpha
        better, worse = log_capital(terms, -most, most, 0.0, alpha)
        first = [float(capital.max()) >= math.log(2 / alpha) for capital in (better, worse)]
        answer: Answer = "better" if first[0] else "worse" if first[1] else "can't tell"
        found = Look(float(terms.mean()), None, None, number, answer)
        if not band:
            return found
        low, high = betting(terms, -most, most, alpha)
        low, high = low.cummax(0).values, high.cummin(0).values  # whoever looks always may
        every = sorted({number - 1 - round(at * (number - 1) / POINTS) for at in range(POINTS)})
        points = [(at + 1, float(low[at]), float(high[at])) for at in every]
        return replace(found, low=float(low[-1]), high=float(high[-1]), band=points)

    def _people(self) -> list[int]:
        """The person of each session, as far as it shares a centre with others; -1, -2, ... do not."""
        before = [person for person, _ in self.prior]
        if self.unit == "session":
            return before + [row.person for row in self.rows]
        visits, least = Counter(before), self.settings.least
        everyone = before + [row.person for row in self.rows]
        return [person if visits[person] >= least else -1 - at for at, person in enumerate(everyone)]

    def _guards(self, arms: _Split) -> dict[str, Guard]:
        settings, guards = self.settings, dict[str, Guard]()
        limits = {
            "degraded": (settings.degraded, 0.0),
            "early": (1.0, settings.early),
            "top": (1.0, settings.top),
        }
        for at, (name, (times, above)) in enumerate(limits.items()):
            values = torch.tensor([row.watched[at] for row in self.rows], dtype=torch.float64)
            ours, champions = _mean(values[arms.of_challenger]), _mean(values[~arms.of_challenger])
            harms = ours > times * champions + above  # the bound takes longer to compute
            harms = harms and arms.exceeds(values, times, above, settings.alpha)
            guards[name] = Guard(ours, champions, harms)
        return guards


class _Row(NamedTuple):
    """A session that is counted."""

    is_challenger: bool
    probability: float  # of the challenger
    person: int
    reward: float
    watched: tuple[float, float, float]  # by guardrails, each within [0, 1]


class _Split(NamedTuple):
    """The arms of n sessions."""

    of_challenger: Tensor  # (n,) bool
    probability: Tensor  # (n,) of the challenger

    def after(self, skip: int) -> _Split:
        """Without the first ones."""
        return _Split(self.of_challenger[skip:], self.probability[skip:])

    def exceeds(self, values: Tensor, times: float, above: float, alpha: float) -> bool:
        """True if the challenger's mean of ``values`` (n,) in [0, 1] is too high.

        That is above ``times`` the champion's mean plus ``above``, at some look.
        """
        scaled = torch.where(self.of_challenger, values, times * values)
        terms = arm_terms(self.of_challenger, self.probability, scaled)
        least, most = -times / float((1 - self.probability).min()), 1 / float(self.probability.min())
        capital, _ = log_capital(terms, least, most, above, alpha)
        return float(capital.max()) >= math.log(2 / alpha)


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else 0.0
