"""Learning from a log of decisions: its facts, what rules an algorithm out, what is missing most.

learnable_survey.py finds the facts in a file, and logs/experience/log_facts.py in the rows of a training. A
fault is said in the same words by both: ``check_needs`` raises the first one that rules an algorithm out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from scipy.special import bdtrc
from torch import Tensor

from recsys_rl.errors import UserError, short
from recsys_rl.logs.describe.context_survey import ContextPiece
from recsys_rl.settings.shared import Need

SURE = 1 - 1e-4
"""Level of the intervals here, as of the mean weight in `ope`: 1 in 10,000 right logs lies outside."""
ROUNDING = 1e-3
"""Distance of such an interval that counts as rounding, as in `ope`: logs hold 0.3333 for a third."""
SAME = 1e-6
"""Share by which propensities may differ and still count as one."""
LOWER = 1.96
"""Standard errors by which a mean reward counts as lower, so that one lucky row makes no best item."""
FEW = 200
"""Effective samples under which `ope` trusts no estimate."""


@dataclass(frozen=True)
class BestItem:
    """The item with the highest estimate of its reward if it were shown in each row."""

    item: str
    rows: int  # that show it
    ess: float  # effective sample size, in rows


@dataclass(frozen=True)
class Excess:
    """An item that is shown more often than a constant propensity can explain."""

    item: str
    share: float  # of all rows
    possible: float  # the largest share that the propensity allows
    first: str = ""  # the words for the first row that shows it, if that is known


@dataclass(frozen=True)
class Propensities:
    """The propensities of a log. A number is None where the log does not determine it."""

    column: str  # in words, where they stand
    rows: int  # with a propensity that is a probability
    constant: float | None = None  # if it is the same in each row
    mean_inverse: float | None = None  # of 1 / (propensity x items that could be shown)
    low: float | None = None  # of its interval over users, at the level SURE
    high: float | None = None
    uniform_ess: float | None = None  # effective sample size of the uniform policy, in rows
    session_ess: float | None = None  # the same in whole sessions, if some have several decisions
    best_item: BestItem | None = None
    excess: Excess | None = None

    @property
    def too_small(self) -> bool:
        """True if the mean of 1 / (propensity x items) is above 1 beyond chance."""
        return self.low is not None and self.low - ROUNDING > 1

    @property
    def too_large(self) -> bool:
        """True if it is below 1 beyond chance: wrong propensities, or items without a chance."""
        return self.high is not None and self.high + ROUNDING < 1


@dataclass(frozen=True)
class DecisionFacts:
    """Facts about a log that decide what can be learned from it."""

    rows: int
    users: int | None  # None without a column of users
    longest: int  # decisions of the longest session; 1 without sessions
    same_items: bool  # each row shows the same items
    rewards: Mapping[str, tuple[float, float]]  # the least and the largest of each column of rewards
    propensities: Propensities | None  # None: the log has none
    slate_size: int = 1  # items in a row
    context: tuple[ContextPiece, ...] = ()
    derived: bool = False  # a recorded log, whose sessions also determine what the policy knew
    sound: bool = True  # no row breaks a rule for which a reader refuses the log
    first: str = "row 1"  # the words for the first row
    has_candidates: bool = False  # it tells the items that each row could show

    @property
    def constant_share(self) -> float | None:
        """The share of the context's numbers that are the same in each row; None without a context."""
        size = sum(piece.size for piece in self.context)
        return sum(piece.constant for piece in self.context) / size if size else None

    @property
    def rewards_differ(self) -> bool:
        return any(low != high for low, high in self.rewards.values())


@dataclass(frozen=True)
class Fault:
    """A fault of a log, for which algorithms can't learn from it."""

    need: Need | None  # that it leaves unmet; None: no algorithm can learn from it
    text: str
    mend: str

    @property
    def sentence(self) -> str:
        return f"{self.text}: {self.mend}"


def too_often(shown: float, possible: float, propensity: float, independent: float, items: int) -> bool:
    """True if an item is shown more often than a constant propensity can explain, beyond chance.

    Whichever item a policy shows, it shows it with this probability; so an item can't be shown in more than
    this share of the rows, on average, also where the policy shows different items in different contexts.

    Args:
        shown: share of the rows that show the item.
        possible: share of the rows that could show it.
        independent: independent draws in the log: (sum n)^2 / sum n^2 of the rows n of its users, as a user's
            rows may all show what was drawn once.
        items: among which this one is the most frequent.
    """
    draws, hits = int(independent * possible), int(independent * shown)
    # P(at least `hits` of `draws`), for each of the items
    return hits > 0 and float(bdtrc(hits - 1, max(draws, hits), min(propensity, 1.0))) * items < 1 - SURE


# mean_a - 1.96 sigma / sqrt n_a, mean_a = sum w r / sum w, n_a = (sum w)^2 / sum w^2
def lower_ends(of_items: Tensor, of_all: Tensor) -> Tensor:
    """(I,): the lower end of each item's mean reward; -inf for an item that is never shown.

    sigma is the standard deviation of all rewards: those of an item that was shown twice say nothing of it.

    Args:
        of_items: (3, I), sums of w, w r and w^2 over the decisions that show the item.
        of_all: (3,), sums of w, w r and w r^2 over all decisions.
    """
    total, gained, squares = of_items
    mean = of_all[1] / of_all[0]
    variance = (of_all[2] / of_all[0] - mean**2).clamp_min(0)
    lower = gained / total - LOWER * (variance * squares).sqrt() / total
    return torch.where(total > 0, lower, -math.inf)


def faults(log: DecisionFacts) -> Iterator[Fault]:
    """The faults of a log, the gravest first."""
    if log.users == 1:
        yield Fault(
            None,
            f"all rows from {log.first} on are of one user, so no user can be held out",
            "give rows of several users, or no column of users (--user-column -)",
        )
    if log.same_items:
        yield Fault(
            None,
            f"all rows from {log.first} on show the same, so there is nothing to choose",
            "give a log of a policy that shows different items",
        )
    if not log.rewards:
        yield Fault("rewards", "it has no column of rewards", "name it with --reward-column")
    elif not log.rewards_differ:
        name, (reward, _) = next(iter(log.rewards.items()))
        yield Fault(
            "rewards",
            f"{name} is {reward:g} in all rows from {log.first} on, so no item is better than another",
            "give a log with rewards that differ",
        )
    least = min((low for low, _ in log.rewards.values()), default=0.0)
    if least < 0:
        yield Fault(
            "gains",
            f"its lowest reward is {least:g}, and a likelihood with negative weights has no maximum",
            "leave --weighted out, or choose reinforce, cql, bcq or iql",
        )
    yield from _of_propensities(log.propensities)
    if log.slate_size > 1:
        yield Fault(
            "single items",
            f"each row from {log.first} on shows {log.slate_size} items",
            "give a log of single items",
        )
    if log.longest < 2:
        yield Fault(
            "steps",
            "no session has more than one decision",
            "give sessions of several decisions, in a column session",
        )


def _of_propensities(known: Propensities | None) -> Iterator[Fault]:
    if known is None:
        yield Fault(
            "propensities",
            "it has no propensities",
            "log the probability of each decision, in a column propensity",
        )
    elif known.excess is not None:
        excess = known.excess
        first = f" ({excess.first} is the first)" if excess.first else ""
        yield Fault(
            "propensities",
            f"{known.column} is {known.constant:g} in each row, but the item {short(excess.item)} is shown "
            f"in {excess.share:.1%} of the rows{first}, and could be in at most {excess.possible:.1%}",
            "log the probability with which each item was chosen",
        )


def fault_for(log: DecisionFacts, needs: Collection[Need]) -> Fault | None:
    """The first fault that rules out an algorithm with these ``needs``; None if it can learn from the log."""
    return next((fault for fault in faults(log) if fault.need is None or fault.need in needs), None)


def check_needs(name: str, algo: str, log: DecisionFacts, needs: Collection[Need]) -> None:
    """Raise UserError if ``algo``, with these ``needs``, can't learn from the log ``name``."""
    fault = fault_for(log, needs)
    if fault is not None:
        raise UserError(f"{algo} can't learn from {name}: {fault.sentence}.")


def lacks_candidates(log: DecisionFacts) -> bool:
    """True if the mean of 1 / (propensity x items) is below 1, likely for want of a column candidates."""
    known = log.propensities
    return known is not None and known.too_large and not log.has_candidates and not log.derived


def missing_most(log: DecisionFacts) -> str:
    """The thing that would help most to learn from the log, in one sentence without an end."""
    if not log.sound:
        return "rows without the problems above: a log that has them is refused"
    for fault in faults(log):
        if fault.need not in ("steps", "single items", "gains"):  # what a log is about, and no lack
            return fault.sentence
    known = log.propensities
    assert known is not None
    if known.too_small:
        return (
            "right propensities: these are too small for the items that could be shown, or further items "
            "could be shown, which a column candidates has to name"
        )
    if known.uniform_ess is not None and known.uniform_ess < FEW:
        return (
            f"chance: these rows are worth {known.uniform_ess:,.0f} of a uniform policy, and under {FEW} no "
            "estimate is trusted; log more rows, or explore more"
        )
    if lacks_candidates(log):
        return (
            "a column candidates, with the items that each row could show: these propensities are right only "
            "if there were fewer than all of the log"
        )
    if known.too_large:
        return "a chance for every item: some that could be shown never are, or propensities are too large"
    if not log.context and not log.derived:
        return "what the policy knew: without columns context.NAME, the same items are best for everybody"
    if log.constant_share == 1 and not log.derived:
        return "context that differs: each number of it is the same in all rows"
    if log.users is None:
        return "a column of users: without one each row counts as another person; intervals are too narrow"
    return "nothing that these facts show"
