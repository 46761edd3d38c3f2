"""The rule of the gate: from both policies' terms on the same held-out sessions to one of five answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from recsys_rl.errors import amount
from recsys_rl.logs.ope.answer import BROKEN, CANT_TELL, EXIT_CODES
from recsys_rl.logs.ope.answer import Answer as OpeAnswer
from recsys_rl.logs.ope.diagnostics import FEW, student_t
from recsys_rl.logs.ope.result import number

Answer = OpeAnswer | Literal["no harm seen"]
GAIN, HARM = 0.1, -0.05
"""Shares of the champion's return: a lower bound above the first is *better*, above the second no harm."""
LEAST_SESSIONS = 500
"""Held-out sessions, below which nothing is *better*."""
MOST_UNJUDGED = 0.1
"""Share of draws of items that no session could show, above which nothing is *better*."""
ALPHA = 0.05
"""The probability of a false alarm over all judgements in a folder together, as far as the estimator is
right."""


@dataclass(frozen=True)
class Compared:
    """Both policies on the same N held-out sessions."""

    by: str  # the estimator
    new: Tensor  # (N,) float64: the terms of the challenger
    old: Tensor  # (N,): of the champion
    users: Tensor  # (N,)
    logged: float  # mean return of these sessions, as they were served
    steps: float  # mean length of a session
    chi2: float  # of a decision of the challenger against the record's; nan if unknown
    left_out: int = 0  # earlier sessions of held-out users that were not judged
    # Effective number of items among which the challenger, and the champion, draw a decision; nan if unknown.
    items: tuple[float, float] = (math.nan, math.nan)
    # Why their weights are too heavy, as the end of a sentence; the difference is then too low.
    heavy: str = ""
    # Share of the challenger's draws, among the items of now, that no session here could show.
    unjudged: float = 0.0
    doubt: str = ""  # why the difference can't be trusted, as the end of a sentence
    broken: str = ""  # what is wrong with the log, as the end of a sentence


@dataclass(frozen=True)
class GateVerdict:
    """What the gate found; the content of SHA256.gate.json."""

    challenger: str  # SHA-256
    champion: str
    answer: Answer
    by: str
    # Of the return of a session: the challenger's minus the champion's; by LOWER it is too low on average.
    difference: float
    low: float
    high: float
    value: float  # of the champion, by the same estimator; by LOWER it is too high on average
    logged: float
    sessions: int  # of held-out users
    users: int
    since: int  # the rows of the record
    until: int
    left_out: int  # earlier sessions of held-out users that were not judged
    alpha: float
    round: int  # of the candidate; of another policy the last one
    look: int  # number of this judgement in the folder of the policies, from 1 on
    chi2: float
    chi2_most: float  # of a decision of a policy that these sessions could judge by weights
    effective: float  # of these sessions, where the challenger is judged by weights
    reason: str  # of the answer, as a sentence
    items: float = math.nan  # effective number among which the challenger draws a decision
    champion_items: float = math.nan

    @property
    def exit_code(self) -> int:
        """Of the command: as that of `ope --verdict`; a challenger that may go on to a canary has 0."""
        return {**EXIT_CODES, "no harm seen": 0}[self.answer]

    def values(self) -> dict[str, Any]:
        """The values of the JSON file; numbers that are unknown are null."""
        values = {name: value for name, value in vars(self).items() if name not in ("since", "until")}
        values |= {"from": self.since, "to": self.until}
        return {name: None if _unknown(value) else value for name, value in values.items()}


def _unknown(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def alpha_of(look: int) -> float:
    """The part of ALPHA that judgement i may spend: 6 / (pi^2 i^2) of it; all of them spend it once."""
    return ALPHA * 6 / (math.pi * look) ** 2


def chi2_most(sessions: int, steps: float) -> float:
    """The largest chi^2 of a decision at which so many sessions leave FEW effective ones; 0 below FEW."""
    most: float = (sessions / FEW) ** (1 / steps) - 1
    return max(0.0, most)


def decide(
    of: Compared,
    challenger: str,
    champion: str,
    interval: tuple[int, int],
    round: int,
    look: int | None = None,
    certain: bool = False,
) -> GateVerdict:
    """The verdict. Its interval is over users, at the level that this judgement may spend.

    Args:
        challenger, champion: their SHA-256.
        interval: of the record.
        look: the number of this judgement in its folder; None: that of the round.
        certain: all that was shown had probability 1, so that a model must guess all else.
    """
    look = round if look is None else look
    sessions, users, alpha = len(of.users), len(of.users.unique()), alpha_of(look)
    terms = of.new - of.old
    low, high = student_t(terms, of.users, 1 - alpha) if users > 1 else (-math.inf, math.inf)
    high = math.inf if of.heavy else high
    value, difference = float(of.old.mean()), float(terms.mean())
    answer, reason = _answer(of, low, high, abs(value), certain)
    return GateVerdict(
        challenger=challenger,
        champion=champion,
        answer=answer,
        by=of.by,
        difference=difference,
        low=low,
        high=high,
        value=value,
        logged=of.logged,
        sessions=sessions,
        users=users,
        since=interval[0],
        until=interval[1],
        left_out=of.left_out,
        alpha=alpha,
        round=round,
        look=look,
        chi2=of.chi2,
        chi2_most=chi2_most(sessions, of.steps),
        effective=sessions / (1 + of.chi2) ** of.steps,
        reason=reason,
        items=of.items[0],
        champion_items=of.items[1],
    )


def _answer(of: Compared, low: float, high: float, size: float, certain: bool) -> tuple[Answer, str]:
    """The answer with its reason; ``size`` is the champion's return without its sign."""
    if of.broken:
        return BROKEN, f"The log is broken: {of.broken}."
    if of.doubt:
        return CANT_TELL, f"The difference can't be estimated: {of.doubt}."
    if math.isinf(low):
        return CANT_TELL, "All sessions are of one user, and an interval over users needs two."
    gain, harm, least = GAIN * size, HARM * size, f"the lower bound {number(low)}"
    not_better = "; a record without chance shows nothing better" if certain else ""
    if of.heavy:
        not_better = "; weights as heavy as these show nothing better"
    if of.unjudged > MOST_UNJUDGED:
        not_better = f"; {of.unjudged:.0%} of its draws are items that no session here could show"
    if len(of.users) < LEAST_SESSIONS:
        not_better = f"; below {amount(LEAST_SESSIONS, 'held-out session')} nothing is better"
    if low > gain and not not_better:
        return "better", f"{least} is above {number(gain)}, {GAIN:.0%} of the champion's return.".capitalize()
    if high < 0:
        return "worse", f"The whole interval, up to {number(high)}, is below 0."
    if low > harm:
        why = not_better if low > gain else ""
        mark = f"{number(harm)}, {-HARM:.0%} of the champion's return below 0"
        return "no harm seen", f"{least} is above {mark}{why}: the canary may decide.".capitalize()
    why = of.heavy or "the upper bound is not below 0"
    return CANT_TELL, f"{least} is not above {number(harm)}, and {why}.".capitalize()
