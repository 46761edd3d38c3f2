"""The canary: a challenger's returns beside the champion's, with bounds that hold at every look.

Assignment, centring and counting share one unit. With the unit `session` each session is an outcome, minus
the mean of its person's earlier ones. With the unit `user` the first session of each person counts, minus
what their sessions before the release let expect. Outcomes stand in the order in which their sessions began,
so that sessions that end soon do not come first.

Each session is added once to the bets, to each bound with its own probability: what a look costs depends on
the new sessions alone, and a share that grows changes nothing of what was found before.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from recsys_rl.logs.ope.answer import BROKEN, CANT_TELL, Answer
from recsys_rl.logs.ope.anytime import Capital, Shares, arm_terms
from recsys_rl.serving.record.record_schema import Unit
from recsys_rl.serving.releases.outcomes import Outcome

POINTS = 40
"""Places of the band that a page draws."""
STEPS = 100
"""Differences on each side of 0 that the band tells apart, closer to each other near 0."""
BLOCK = 2_000
"""Sessions that are added to the bets at once."""


@dataclass(frozen=True)
class CanarySettings:
    """When a release stops by itself."""

    alpha: float = 0.05
    """Probability that a challenger as good as the champion is ever stopped, or called better.

    Half of it is of the difference; the guardrails and the shares share the rest.
    """
    degraded: float = 2.0
    """Times the champion's share of decisions by popularity."""
    early: float = 0.10
    """Early leaves above the champion's."""
    top: float = 0.10
    """Share of the most shown item above that of the champion's most shown one."""
    shares_alpha: float = 0.001
    """Probability that right shares of the arms are ever taken for wrong ones."""
    prior: int = 2_000
    """Latest sessions before the release, from which the mean and the range of the outcomes are learned."""
    learned: int = 100
    """Sessions from which they are learned at least; those of the release among them are not counted."""
    history: int = 20
    """Latest sessions of a person before the release, that make their centre at most."""
    longest: float = 3600.0
    """Seconds in which the visitor of a session is active at most; then it counts with what came until then.

    Without an end a page that stays open would hold up all later sessions.
    """


class Rule(NamedTuple):
    """A guardrail: a number of each session whose mean must not be far above the champion's."""

    name: str
    watches: str  # what happens too often where it stops a release
    of: Callable[
        [Outcome, float], float
    ]  # of a session and the share of its arm's most shown item: in [0, 1]
    limit: Callable[[CanarySettings], tuple[float, float]]  # times the champion's mean, and more than that


GUARDRAILS = (
    Rule(
        "degraded",
        "popularity answers in its place",
        lambda of, _: of.degraded,
        lambda by: (by.degraded, 0.0),
    ),
    Rule("early", "users leave early", lambda of, _: of.early, lambda by: (1.0, by.early)),
    Rule("top", "one item is shown", lambda _, top: top, lambda by: (1.0, by.top)),
)


@dataclass(frozen=True)
class Count:
    """The sessions of an arm that have matured."""

    sessions: int = 0
    mean: float = 0.0
    """Of their returns. Where there is a difference, of the sessions that are counted in it: the mean of the
    centres, and what the arm has above it. So the means of the arms differ by the difference."""


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
    low: float | None = None  # of the difference; None: too few sessions
    high: float | None = None
    sessions: int = 0  # that are counted in the difference
    answer: Answer = CANT_TELL
    doubt: str = ""  # why the answer is not *better* now, though that was found; "" if it was not
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
        self.centres = _Centres(shrunk=unit == "user")
        self.span, self.learned = 0.0, 0  # the largest distance from a centre, and of how many sessions
        for outcome in prior:
            self._learn(self.centres.off(outcome))
            self.centres.add(outcome, of_person=True)
        self.people: set[int] = set()
        self.sums = {
            "champion": [0.0, 0.0],
            "challenger": [0.0, 0.0],
        }  # sessions, and the sum of their returns
        self.top = {"champion": -1, "challenger": -1}  # rows of the most shown items so far
        self.items: dict[str, Counter[int]] = {"champion": Counter(), "challenger": Counter()}
        self.fresh: list[_Row] = []  # not in the bets yet
        self.shares, self.are_wrong = Shares(), False
        of_a_guard = (self.settings.alpha / 2 - self.settings.shares_alpha) / len(GUARDRAILS)
        self.guards = [_Guardrail(rule, self.settings, of_a_guard) for rule in GUARDRAILS]
        self.difference = _Difference(self.settings.alpha / 2)

    @property
    def counts(self) -> dict[str, Count]:
        """The sessions of both arms."""
        means = {arm: total / max(1.0, n) for arm, (n, total) in self.sums.items()}
        if self.difference.lows:
            means = self.difference.means(self.span)
        return {arm: Count(int(n), means[arm]) for arm, (n, _) in self.sums.items()}

    def add(self, outcome: Outcome, before: Sequence[Outcome] | None = None) -> None:
        """Add the next session; one without an arm counts for nothing.

        ``before``: the person's sessions before the release; None: those among the prior ones.
        """
        if not outcome.arm:
            return
        sums, items = self.sums[outcome.arm], self.items[outcome.arm]
        sums[0] += 1
        sums[1] += outcome.reward
        top = outcome.shown.count(self.top[outcome.arm]) / max(1, len(outcome.shown))
        items.update(outcome.shown)
        self.top[outcome.arm] = max((self.top[outcome.arm], *outcome.shown), key=items.__getitem__)
        is_first = outcome.person not in self.people
        if not is_first and self.unit == "user":
            return
        if is_first and before is not None:
            self.centres.know(outcome.person, before)
        self.people.add(outcome.person)
        off = self.centres.off(outcome)
        self.centres.add(outcome, of_person=self.unit == "session")
        if self.learned < self.settings.learned or not self.span:
            self._learn(off)
            off = None
        is_challenger = outcome.arm == "challenger"
        probability = outcome.probability if is_challenger else 1 - outcome.probability
        watched = tuple(rule.of(outcome, top) for rule in GUARDRAILS)
        self.fresh.append(_Row(is_challenger, probability, outcome.reward, off, watched))

    def _learn(self, off: float | None) -> None:
        """Learn the range. The first session of all is off from nothing."""
        self.learned += 1
        self.span = max(self.span, abs(off or 0.0))

    def look(self) -> Look:
        """The answer now. A harm that was found once stays; *better* holds while there is no doubt."""
        for at in range(0, len(self.fresh), BLOCK):
            self._bet(self.fresh[at : at + BLOCK])
        self.fresh = []
        guards = {guard.rule.name: guard.now for guard in self.guards}
        of, answer = self.difference, self.difference.answer
        harm = next((f"{guard.rule.watches} too often" for guard in self.guards if guard.now.harms), "")
        if answer == "worse":
            harm = f"its sessions return less, by {-of.mean * self.span:.3g}"
        if self.are_wrong:
            answer, harm = BROKEN, "the arms have other shares than they were given"
        if not of.lows:
            return Look(answer=answer, guardrails=guards, harm=harm)
        band, difference = of.band(self.span), of.mean * self.span
        return Look(difference, *band[-1][1:], len(of.lows), answer, of.doubt, guards, band, harm)

    def _bet(self, rows: Sequence[_Row]) -> None:
        """Add sessions to all bets."""
        arms = _Split.of(rows)
        reached = float(self.shares.add(arms.of_challenger, arms.probability).max())
        self.are_wrong |= reached >= -math.log(self.settings.shares_alpha)
        for at, guard in enumerate(self.guards):
            guard.add(arms, torch.tensor([row.watched[at] for row in rows], dtype=torch.float64))
        counted = [(row, row.off, row.reward - row.off) for row in rows if row.off is not None]
        if counted:
            values, centres = torch.tensor([of[1:] for of in counted], dtype=torch.float64).T / self.span
            self.difference.add(_Split.of([row for row, *_ in counted]), values, centres)


class _Centres:
    """What is known of each person, and of all.

    The centre of a person with n earlier sessions is their mean; without one, that of all. Where it is
    ``shrunk``, the person's mean counts in part, and that of all for the rest. With variances W of one
    person's sessions and B between people, the return of the next one is guessed best with the part

        n B / (n B + W)

    as one session tells little of a person. Whatever of earlier sessions is subtracted, the bounds hold.
    """

    def __init__(self, shrunk: bool) -> None:
        self.shrunk, self.all = shrunk, (0, 0.0)  # sessions, and the sum of their returns
        self.of: dict[int, tuple[int, float]] = {}
        self.squares, self.within, self.again = 0.0, 0.0, 0  # about the means of all, and of each person

    def know(self, person: int, before: Sequence[Outcome]) -> None:
        """All that is known of a person."""
        self.of[person] = len(before), sum(outcome.reward for outcome in before)

    def add(self, outcome: Outcome, of_person: bool) -> None:
        number, total = self.all
        self.squares += _square(outcome.reward, number, total)
        self.all = number + 1, total + outcome.reward
        if of_person:
            number, total = self.of.get(outcome.person, (0, 0.0))
            self.within += _square(outcome.reward, number, total)
            self.again += number > 0
            self.of[outcome.person] = number + 1, total + outcome.reward

    def off(self, outcome: Outcome) -> float | None:
        """The return minus the person's centre; None if no session is known."""
        number, total = self.of.get(outcome.person, (0, 0.0))
        every, sum_of_all = self.all
        if not every:
            return outcome.reward - total / number if number else None
        part = self._part(number)
        return outcome.reward - part * total / max(1, number) - (1 - part) * sum_of_all / every

    def _part(self, number: int) -> float:
        """The part of a person's own mean, of so many sessions, in their centre."""
        if not (self.shrunk and self.again):
            return float(number > 0)
        within = self.within / self.again
        between = max(0.0, self.squares / max(1, self.all[0] - 1) - within)
        return number * between / (number * between + within) if within else float(number > 0)


def _square(value: float, number: int, total: float) -> float:
    """What one more value adds to the sum of squares about the mean of ``number`` values (Welford)."""
    return (value - total / number) ** 2 * number / (number + 1) if number else 0.0


class _Row(NamedTuple):
    """A session that is counted."""

    is_challenger: bool
    probability: float  # of the challenger
    reward: float
    off: float | None  # its return minus its centre; None: the range was learned from it
    watched: tuple[float, ...]  # by each of GUARDRAILS


class _Split(NamedTuple):
    """The arms of n sessions."""

    of_challenger: Tensor  # (n,) bool
    probability: Tensor  # (n,) of the challenger

    @staticmethod
    def of(rows: Sequence[_Row]) -> _Split:
        return _Split(
            torch.tensor([row.is_challenger for row in rows]),
            torch.tensor([row.probability for row in rows], dtype=torch.float64),
        )


class _Difference:
    """The challenger's mean outcome minus the champion's, in units of the span."""

    def __init__(self, alpha: float) -> None:
        side = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)[1:].square() * 2
        self.ends = torch.cat([-side.flip(0), side.new_zeros(1), side])
        self.capital, self.threshold = Capital(self.ends[1:-1], alpha), math.log(2 / alpha)
        self.found: set[Answer] = set()  # *better*, *worse*: each is judged for itself, and stays
        self.of_arms, self.centres = [0.0, 0.0], 0.0  # sums of the terms of champion and challenger
        # After each session: the sum of the terms, and the bounds. These are among ``ends``, so too far out
        # by a step at most. Whoever looks after each session may keep the narrowest.
        self.totals, self.lows, self.highs = array("d", [0.0]), array("d"), array("d")

    @property
    def mean(self) -> float:
        """Since the start of the release."""
        return self.totals[-1] / max(1, len(self.lows))

    @property
    def answer(self) -> Answer:
        """*worse* also after *better*, as a gain may fade."""
        if "worse" in self.found:
            return "worse"
        return "better" if "better" in self.found and not self.doubt else CANT_TELL

    @property
    def doubt(self) -> str:
        """Why *better*, which was found, does not hold now; "" if it was not found, or holds."""
        if "better" not in self.found:
            return ""
        if self.lows[-1] > self.highs[-1]:
            return "it was better, but its bounds exclude each other: the difference has changed"
        last = max(1, len(self.lows) // 3)
        if self.totals[-1] < self.totals[-1 - last]:
            return f"it was better, but in the last {last:,} sessions, a third of all, its mean is lower"
        return ""

    def means(self, span: float) -> dict[str, float]:
        """The mean of each arm, whose difference is ``mean``: what it has above the mean of the centres."""
        champion, challenger = self.of_arms  # the champion's terms are negative
        sums = {"champion": self.centres - champion, "challenger": self.centres + challenger}
        return {arm: total / max(1, len(self.lows)) * span for arm, total in sums.items()}

    def add(self, arms: _Split, values: Tensor, centres: Tensor) -> None:
        """Add outcomes (n,) minus their centres (n,), and these."""
        # One further off than any before counts as that far: bets need a range that is known before.
        terms = arm_terms(arms.of_challenger, arms.probability, values.clamp(-1, 1))
        rows = zip(terms.tolist(), arms.of_challenger.tolist(), centres.tolist(), strict=True)
        for term, is_challenger, centre in rows:  # one by one: the same sums in one pass or in many
            self.totals.append(self.totals[-1] + term)
            self.of_arms[is_challenger] += term
            self.centres += centre
        most = 1 / torch.minimum(arms.probability, 1 - arms.probability)
        above, below = (logs >= self.threshold for logs in self.capital.add(terms, -most, most))
        low, high = self.ends[above.sum(0)], self.ends[-1 - below.sum(0)]
        sides: tuple[tuple[Answer, Tensor], ...] = ("better", low >= 0), ("worse", high <= 0)
        self.found.update(answer for answer, side in sides if bool(side.any()))
        if self.lows:
            low, high = low.clamp(min=self.lows[-1]), high.clamp(max=self.highs[-1])
        self.lows.extend(low.cummax(0).values.tolist())
        self.highs.extend(high.cummin(0).values.tolist())

    def band(self, span: float) -> list[tuple[int, float, float]]:
        """Some of the intervals, with the numbers of their sessions."""
        last = len(self.lows) - 1
        every = sorted({last - round(at * last / POINTS) for at in range(POINTS)}) if self.lows else []
        return [(at + 1, self.lows[at] * span, self.highs[at] * span) for at in every]


class _Guardrail:
    """What may not be above ``times`` the champion's mean plus ``above``, at any look."""

    def __init__(self, rule: Rule, settings: CanarySettings, alpha: float) -> None:
        self.rule, (self.times, above) = rule, rule.limit(settings)
        self.threshold, self.harms = -math.log(alpha), False
        self.capital = Capital(torch.tensor([above]), 2 * alpha)  # of which one side counts
        self.sums = torch.zeros(2, 2, dtype=torch.float64)  # of champion and challenger: sessions, values

    def add(self, arms: _Split, values: Tensor) -> None:
        """``values``: (n,) within [0, 1]."""
        of, p = arms
        terms = arm_terms(of, p, torch.where(of, values, self.times * values))
        logs, _ = self.capital.add(terms, -self.times / (1 - p), 1 / p)
        self.harms |= bool((logs >= self.threshold).any())
        self.sums.index_add_(0, of.long(), torch.stack([torch.ones_like(values), values], 1))

    @property
    def now(self) -> Guard:
        champion, challenger = (self.sums[:, 1] / self.sums[:, 0].clamp(min=1)).tolist()
        return Guard(challenger, champion, self.harms)
