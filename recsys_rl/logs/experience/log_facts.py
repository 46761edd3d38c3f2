"""Facts about a whole log for its learner, found in one pass before the first update."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.describe.learnable import (
    SAME,
    DecisionFacts,
    Excess,
    Propensities,
    check_needs,
    too_often,
)
from recsys_rl.logs.experience.dealt import Decisions
from recsys_rl.settings.shared import Need
from recsys_rl.types import Catalogue, UserError


@dataclass(frozen=True)
class LogFacts:
    """Facts about the decisions of a log that are learned from."""

    rows: int
    span: tuple[float, float]  # smallest and largest reward
    returns: Tensor  # (G,) float64: sum of the rewards of each session
    longest: int  # decisions of the longest session; 0 without a decision
    varies: bool  # two decisions show different items
    shown: ShownItems | None  # None: some decision has no probability
    logger_rows: Tensor  # (P,) int64: decisions of each logger
    least_of_places: float | None = None  # smallest reward of a place of a slate; None if some are unknown

    def best(self, share: float, parts: Iterable[Decisions]) -> Iterator[Decisions]:
        """The decisions of the ``share`` of sessions with the highest returns, at least one, with rewards."""
        for part in parts:
            if share < 1:
                least = self.returns.topk(max(1, math.ceil(share * len(self.returns)))).values[-1]
                sums, lengths = _of_sessions(part)
                part = part.rows((sums >= least).repeat_interleave(lengths))
            if part.log.num_rows:
                yield part


class ShownItems:
    """The rows of a log that show each item, and the ends of their probabilities."""

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf  # of the log-probabilities
        self.single = True  # each row shows one item
        self.rows = torch.zeros(0, dtype=torch.int64)  # (I,) that show the item
        self.possible = torch.zeros(0, dtype=torch.int64)  # (I,) rows whose candidates have it
        self.users: list[Tensor] = []

    def add(self, log: DecisionLog) -> None:
        self.low = min(self.low, float(log.logprobs.min()))
        self.high = max(self.high, float(log.logprobs.max()))
        self.single = self.single and log.items.shape[1] == 1
        number = log.header.num_items
        self.rows = _added(self.rows, log.items, number)
        if log.candidates is not None:
            self.possible = _added(self.possible, log.candidates, number)
        self.users.append(log.users)

    def propensities(self, rows: int, ids: Sequence[object]) -> Propensities:
        """The propensities of all ``rows``, and the item that is shown too often for a constant one.

        ``ids`` (I,): of the items.
        """
        if not rows or not self.single or self.high - self.low > SAME:
            return Propensities("the propensity", rows)
        constant = math.exp(self.high)
        item, items = int(self.rows.argmax()), int((self.rows > 0).sum())
        shown = int(self.rows[item]) / rows
        possible = int(self.possible[item]) / rows if len(self.possible) else 1.0
        counts = torch.cat(self.users).unique(return_counts=True)[1].double()  # (U,)
        independent = float(counts.sum() ** 2 / counts.square().sum())
        excess = None
        if too_often(shown, possible, constant, independent, items):
            excess = Excess(str(ids[item]), shown, constant * possible)
        return Propensities("the propensity", rows, constant, excess=excess)


def _added(counts: Tensor, items: Tensor, number: int) -> Tensor:
    """``counts`` (I,) and those of ``items`` (E, n), where -1 is none."""
    more = items[items >= 0].bincount(minlength=number)
    return more if not len(counts) else counts + more


def facts_of(parts: Iterable[Decisions]) -> LogFacts:
    """The facts of a log from its parts of whole sessions."""
    rows, low, high, longest, varies, of_places = 0, math.inf, -math.inf, 0, False, list[float | None]()
    returns: list[Tensor] = []
    shown: ShownItems | None = ShownItems()
    loggers = torch.zeros(1, dtype=torch.int64)
    first: Tensor | None = None  # (1, K): items of the first decision
    for part in parts:
        log, rewards = part.log, part.rewards
        rows += log.num_rows
        low, high = min(low, float(rewards.min())), max(high, float(rewards.max()))
        of_places.append(None if part.places is None else float(part.places.min()))
        sums, lengths = _of_sessions(part)
        returns.append(sums)
        longest = max(longest, int(lengths.max()))
        first = log.items[:1] if first is None else first
        varies = varies or bool((log.items != first).any())
        loggers = loggers + log.loggers.bincount(minlength=len(log.header.loggers))
        shown = shown if log.has_propensities else None
        if shown is not None:
            shown.add(log)
    none = torch.zeros(0, dtype=torch.float64)
    known = [least for least in of_places if least is not None]
    least = min(known) if known and len(known) == len(of_places) else None
    return LogFacts(rows, (low, high), torch.cat(returns or [none]), longest, varies, shown, loggers, least)


# mu(a | s) = sum_j share_j mu_j(a | s): the balance heuristic (Veach and Guibas 1995)
def behaviour_logprobs(log: DecisionLog, logger_rows: Tensor) -> Tensor:
    """(E,) float64: the log-probability of each decision, by which a learner weighs it.

    It is that of the decision's own logger, or, where the probability under every logger is known, of their
    average with the shares of their decisions, ``logger_rows`` (P,). A decision that its own logger made
    rarely, and another often, has no huge weight then.
    """
    if log.logger_logprobs is None:
        return log.logprobs
    present = logger_rows > 0
    shares = logger_rows[present].double() / logger_rows.sum()
    average = torch.logsumexp(log.logger_logprobs[:, present] + shares.log(), 1)
    return torch.where(average.isnan(), log.logprobs, average)


def check_facts(
    name: str,
    algo: str,
    facts: LogFacts,
    needs: Sequence[Need],
    ids: Sequence[object],
    users: int | None = None,
) -> None:
    """Raise UserError if ``algo``, with its ``needs`` (records.Algorithm), can't learn from this log.

    Args:
        ids: (I,) of the items.
        users: of the log, with those who are held out; None if it has none.
    """
    if not facts.longest and users != 1:
        return  # Logged has the error of a log without decisions
    log = DecisionFacts(
        rows=facts.rows,
        users=users,
        longest=facts.longest,
        same_items=not facts.varies,
        rewards={"the reward": facts.span},
        propensities=None if facts.shown is None else facts.shown.propensities(facts.rows, ids),
    )
    check_needs(name, algo, log, needs)


def check_slates(name: str, log: DecisionLog, catalogue: Catalogue) -> None:
    """Raise UserError for a slate that no policy of this place can show, as its likelihood is 0.

    Where the interface has patterns of kinds, each slate must have the kinds of one of them.
    """
    patterns = log.header.interface.patterns
    if not patterns:
        return
    kinds = catalogue.attributes["kind"][log.items.clamp_min(0)].masked_fill(log.items < 0, -1)  # (E, K)
    fits = (kinds.unsqueeze(1) == torch.tensor(patterns)).all(2).any(1)  # (E,)
    if not bool(fits.all()):
        wrong = int((~fits).sum())
        example = tuple(kinds[~fits][0].tolist())
        raise UserError(
            f"{name} has {wrong:,} decisions with slates that this place can't show, such as one of the "
            f"kinds {example}, where {', '.join(map(str, patterns))} are possible: record a log without them "
            "(an earlier version's policy random showed such slates)."
        )


def _of_sessions(part: Decisions) -> tuple[Tensor, Tensor]:
    """The sum (G,) float64 of the rewards of each session, in order, and its number of decisions (G,)."""
    _, session, lengths = part.log.sessions.unique_consecutive(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(lengths), dtype=torch.float64).index_add_(0, session, part.rewards.double())
    return sums, lengths
