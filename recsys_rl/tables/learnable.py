"""What can be learned from a log of decisions: its facts, what rules an algorithm out, what is missing most.

learnable_survey.py finds the facts in a file. A fault that rules learning out is a ``Fault``, with the row
where it begins; ``check_learnable`` raises the first one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from recsys_rl.errors import UserError, short
from recsys_rl.records import Need
from recsys_rl.tables.context_survey import Piece
from recsys_rl.tables.read import TableFile

SURE = 1 - 1e-4
"""Level of the intervals here, as of the mean weight in `ope`: 1 in 10,000 right logs lies outside."""
ROUNDING = 1e-3
"""Distance of such an interval that counts as rounding, as in `ope`: logs hold 0.3333 for a third."""
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
    first: str  # the words for the first row that shows it
    share: float  # of all rows
    expected: float  # the largest share that the propensity allows


@dataclass(frozen=True)
class Propensities:
    """The propensities of a log. A number is None where the log does not determine it."""

    column: str  # in words, where they stand
    rows: int  # with a propensity that is a probability
    constant: float | None = None  # if it is the same in each row
    mean_inverse: float | None = None  # of 1 / (items that could be shown x propensity)
    low: float | None = None  # of its interval over users, at the level SURE
    high: float | None = None
    uniform_ess: float | None = None  # effective sample size of the uniform policy, in rows
    session_ess: float | None = None  # the same in whole sessions, if some have several decisions
    best_item: BestItem | None = None
    excess: Excess | None = None

    @property
    def too_small(self) -> bool:
        """True if the mean of 1 / (items x propensity) is above 1 beyond chance."""
        return self.low is not None and self.low - ROUNDING > 1

    @property
    def too_large(self) -> bool:
        """True if it is below 1 beyond chance: wrong propensities, or items without a chance."""
        return self.high is not None and self.high + ROUNDING < 1


@dataclass(frozen=True)
class Learnable:
    """Facts about a log that decide what can be learned from it."""

    rows: int
    items: int  # that are shown
    users: int | None  # None without a column of users
    longest: int  # decisions of the longest session; 1 without sessions
    same_items: bool  # each row shows the same items
    sound: bool  # no row breaks a rule for which `ope` refuses the log
    rewards: Mapping[str, tuple[float, float]]  # the least and the largest of each column of rewards
    context: tuple[Piece, ...]
    derived: bool = False  # a recorded log, whose sessions also determine what the policy knew
    propensities: Propensities | None = None  # None: the log has none
    first: str = "row 1"  # the words for the first row

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


def place(table: TableFile, row: int) -> str:
    """The words for a row, from 1: of a text file its line, as an editor counts."""
    return f"row {row:,}" if table.raw is None else f"line {table.line(row):,}"


def faults(log: Learnable) -> Iterator[Fault]:
    """The faults of a log, the gravest first."""
    if log.same_items:
        yield Fault(
            None,
            f"all rows from {log.first} on show the same, so there is nothing to choose",
            "give a log of a policy that shows different items",
        )
    if log.users == 1:
        yield Fault(
            None,
            f"all rows from {log.first} on are of one user, so no user can be held out",
            "give rows of several users, or no column of users (--user-column -)",
        )
    if not log.rewards:
        yield Fault("rewards", "it has no column of rewards", "name it with --reward-column")
    elif not log.rewards_differ:
        name, (value, _) = next(iter(log.rewards.items()))
        yield Fault(
            "rewards",
            f"{name} is {value:g} in all rows from {log.first} on, so no item is better than another",
            "give a log with rewards that differ",
        )
    yield from _of_propensities(log)
    if log.longest < 2:
        yield Fault(
            "steps",
            "no session has more than one decision",
            "give sessions of several decisions, in a column session",
        )


def _of_propensities(log: Learnable) -> Iterator[Fault]:
    found = log.propensities
    if found is None:
        yield Fault(
            "propensities",
            "it has no propensities",
            "log the probability of each decision, in a column propensity",
        )
    elif found.excess is not None:
        more = found.excess
        yield Fault(
            "propensities",
            f"{found.column} is {found.constant:g} in each row, but the item {short(more.item)} is "
            f"shown in {more.share:.1%} of the rows, the first is {more.first}, and could be in at "
            f"most {more.expected:.1%}",
            "log the probability with which each item was chosen",
        )


def reason_against(log: Learnable, needs: Collection[Need]) -> Fault | None:
    """The first fault that rules out an algorithm with these ``needs``; None if it can learn from the log."""
    return next((x for x in faults(log) if x.need is None or x.need in needs), None)


def check_learnable(name: str, algo: str, log: Learnable, needs: Collection[Need]) -> None:
    """Raise UserError if ``algo`` can't learn from the log ``name``: the first fault, with its row."""
    fault = reason_against(log, needs)
    if fault is not None:
        raise UserError(f"{name} is no log for {algo}: {fault.text}: {fault.mend}.")


def missing_most(log: Learnable) -> str:
    """What would help most to learn from the log, in one sentence without an end."""
    if not log.sound:
        return "rows without the problems above: `ope` and training refuse a log that has them"
    for fault in faults(log):
        if fault.need != "steps":  # logs of single decisions are logs, too
            return fault.sentence
    found = log.propensities
    assert found is not None
    if found.too_small:
        return (
            "right propensities: these are too small for the items that could be shown, or further items "
            "could be shown, which a column candidates has to name"
        )
    if found.uniform_ess is not None and found.uniform_ess < FEW:
        return (
            f"chance: these rows are worth {found.uniform_ess:,.0f} of a uniform policy, and under {FEW} no "
            "estimate is trusted; log more rows, or explore more"
        )
    if found.too_large:
        return "a chance for every item: some that could be shown never are, or propensities are too large"
    if not log.context and not log.derived:
        return "what the policy knew: without columns context.NAME, the same items are best for everybody"
    if log.constant_share == 1 and not log.derived:
        return "context that differs: each number of it is the same in all rows"
    if log.users is None:
        return (
            "a column of users: without one, each row counts as another person, and intervals are too narrow"
        )
    return "nothing that these facts show"
