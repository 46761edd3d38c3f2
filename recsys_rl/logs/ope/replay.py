"""A log replayed once: what its policies saw before each decision, and what all judged policies share."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from recsys_rl.data.tables.findings import TableError, wrong
from recsys_rl.errors import one_line
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.decision_table import DecisionTable
from recsys_rl.logs.ope.features import Features
from recsys_rl.logs.ope.parts import Totals, survey
from recsys_rl.logs.transitions import observations
from recsys_rl.types import Catalogue, Obs, UserError

Probabilities = Callable[[Tensor, Obs], Tensor]
"""Rows (B,) of a log and their observations -> a policy's probability of every item, (B, I) float64."""
PAIRS = 1_000_000
"""Pairs of a row and an item, up to which a reward model is averaged over every item."""
LARGEST = 1e300
"""The largest term of an estimate; sums of larger ones are not finite."""


@dataclass(frozen=True)
class ReplayedLog:
    """A log and what all judged policies share: E rows, of N sessions of at most T steps."""

    log: DecisionLog
    catalogue: Catalogue
    features: Features
    rewards: Tensor  # (E,) float64
    rows: Tensor  # (E, F) float32: features of the logged decisions
    grid: Tensor  # (N, T) int64: the row of each step, -1 after the end
    folds: Tensor  # (E,) int64, by user
    totals: Totals  # what the parts of a log share; alone, the log is its own part
    gamma: float
    held: Sequence[
        tuple[Tensor, Obs]
    ]  # rows (B,) and their observations; a mask of the catalogue alone is left out
    file: str = "the log"  # for errors
    table: DecisionTable | None = None  # what people's own file has beside the log
    estimated: bool = False  # True if a model filled in the propensities
    known: Tensor | None = None  # (I,) bool: the items that the judged policy knows (unknown.py); None: all

    @property
    def users(self) -> Tensor:
        """(N,)"""
        return self.log.users[self.grid[:, 0]]

    @property
    def alive(self) -> Tensor:
        """(N, T) bool"""
        return self.grid >= 0

    @property
    def places(self) -> int:
        """K"""
        return self.log.items.shape[1]

    @property
    def num_items(self) -> int:
        """I"""
        return self.catalogue.num_items

    def observations(self) -> Iterator[tuple[Tensor, Obs]]:
        """The rows (B,) int64 of whole sessions, and what the policy saw before each."""
        available = self.catalogue.available
        limited = self.log.candidates is None and not self.catalogue.own and not bool(available.all())
        for at, obs in self.held:
            mask = available.expand(len(at), -1) if limited and obs.mask is None else obs.mask
            yield at, dataclasses.replace(obs, mask=mask)

    def of_rows(self, function: Callable[[Tensor, Obs], Tensor]) -> Tensor:
        """(E, ...): what ``function`` gives for rows (B,) and their observations, (B, ...)."""
        values: Tensor | None = None
        for at, obs in self.observations():
            block = function(at, obs)
            if values is None:
                values = torch.empty(self.log.num_rows, *block.shape[1:], dtype=block.dtype)
            values[at] = block
        assert values is not None  # a log has rows
        return values

    def on_grid(self, values: Tensor) -> Tensor:
        """(N, T, ...): the ``values`` (E, ...) of the rows; 0 after the end."""
        grid = values[self.grid.clamp_min(0)]
        grid[~self.alive] = 0
        return grid

    @cached_property
    def beside_unknown(self) -> Tensor:
        """(E,) bool: the rows that could show an item which the judged policy does not know."""
        if self.known is None:
            return torch.zeros(self.log.num_rows, dtype=torch.bool)
        strange = ~self.known
        return self.of_rows(lambda at, obs: (obs.showable(self.num_items) & strange).any(1))

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest reward of a step in the whole log."""
        return self.totals.bounds

    @property
    def most(self) -> float:
        """The largest possible return: the largest reward of the log in each step.

        Where all rewards are negative it is that of a session of one step. Equal rewards bound nothing.
        """
        least, best = self.bounds
        if least == best:
            return float("inf")
        return best * sum(self.gamma**t for t in range(self.totals.steps)) if best > 0 else best

    @cached_property
    def every_item(self) -> Tensor | None:
        """(E, I, F) float32: the features of all I items in each row; None above PAIRS of row and item."""
        if self.totals.rows * self.num_items > PAIRS:
            return None
        return self.features_of(torch.arange(self.num_items).expand(self.log.num_rows, -1))

    @torch.no_grad()
    def features_of(self, items: Tensor) -> Tensor:
        """(E, M, F) float32: the features of the items (E, M) in each row of the log."""
        return self.of_rows(
            lambda at, obs: torch.stack(
                [self.features(obs, column.unsqueeze(1)) for column in items[at].unbind(1)], 1
            )
        )

    def weights(self, logprobs: Tensor) -> Tensor:
        """(N, T) float64: w_{0:t} of a policy with these log-probabilities (E,) of the logged actions.

        They are by the balance heuristic in a log of several loggers.
        """
        log, alive = self.log, self.alive
        mine = self.on_grid(logprobs)
        if log.logger_logprobs is None:
            return cumulative((mine - self.on_grid(log.logprobs)).exp(), alive)
        shares = self.totals.logger_sessions.double()
        present = shares > 0
        theirs = self.on_grid(log.logger_logprobs)[:, :, present]
        return balanced(mine, theirs, alive, (shares / shares.sum())[present])

    def certain_mass(self, logprobs: Tensor) -> float:
        """Share of a policy's mass that the log surely lacks: elsewhere in rows with propensity 1.

        ``logprobs`` (E,) are those of the logged actions under the policy. With several loggers a row counts
        if every logger of the log takes its action with probability 1.
        """
        theirs = self.log.logprobs  # (E,)
        if self.log.logger_logprobs is not None:
            theirs = self.log.logger_logprobs[:, self.totals.logger_rows > 0].amin(1)
        return float(torch.where(theirs > -1e-9, 1 - logprobs.exp(), 0.0).mean())

    def errors(self) -> contextlib.AbstractContextManager[None]:
        """Errors inside the block begin with the name of the log's file, and have its ids."""
        return errors_of(self.file, self.table)


def replay(
    log: DecisionLog,
    catalogue: Catalogue,
    rewards: Tensor,
    gamma: float,
    totals: Totals | torch.Generator,
    file: str = "the log",
    table: DecisionTable | None = None,
    estimated: bool = False,
    by_item: bool = False,
    known: Tensor | None = None,
) -> ReplayedLog:
    """Replay the sessions of a log, or of a part of it. Raises UserError.

    Args:
        rewards: (E,), of the rows.
        gamma: discount per step.
        totals: what all parts share; a generator of folds where the log has no other parts.
        file, table, estimated, known: as in ReplayedLog.
        by_item: as in Features.
    """
    if isinstance(totals, torch.Generator):
        totals = survey([(log, rewards)], totals)
    features, rows = Features(catalogue, log.header.interface, by_item), torch.empty(0)
    held = []
    for at, obs in observations(log, catalogue):
        limits = (log.candidates, log.exclude, log.list_place, log.stock)
        own = any(values is not None for values in limits)  # else the mask is the catalogue's
        held.append((at, obs if own else dataclasses.replace(obs, mask=None)))
        block = features(obs, log.items[at])
        if not len(rows):
            rows = torch.empty(log.num_rows, block.shape[1])
        rows[at] = block
    return ReplayedLog(
        log=log,
        catalogue=catalogue,
        features=features,
        rewards=rewards.double(),
        rows=rows,
        grid=session_grid(log),
        folds=totals.folds_of(log.users),
        totals=totals,
        gamma=gamma,
        held=held,
        file=file,
        table=table,
        estimated=estimated,
        known=known,
    )


def session_grid(log: DecisionLog) -> Tensor:
    """(N, T) int64: the row of each step of each session, -1 after its end."""
    grid = torch.full((log.num_sessions, int(log.steps.max()) + 1), -1)
    grid[log.session, log.steps] = torch.arange(log.num_rows)
    return grid


def check_weights(log: ReplayedLog, weights: Tensor) -> None:
    """Raise UserError if a weight (N, T), times what a session can earn, is too large for a number."""
    most = max(map(abs, log.bounds)) * weights.shape[1]
    large = ~(weights.amax(1) * (1 + 2 * most) <= LARGEST)  # (N,); a term holds r - q + V
    if not bool(large.any()):
        return
    index = int(large.nonzero()[0])
    row, steps = int(log.grid[index, 0]), int(log.alive[index].sum())
    where = "the weight of {session} is {value:.3g}, too large to estimate with, as its "
    if steps == 1:
        where += "propensity is {chance:.3g}: correct the propensity, or drop the row"
    else:
        where += (
            "{steps} steps multiply the policy's probabilities over the propensities: correct the "
            "propensities, or cut the sessions into shorter ones"
        )
    value, chance = float(weights[index].max()), float(log.log.logprobs[row].exp())
    session = int(log.log.sessions[row])
    raise wrong("", where, session=session, value=value, chance=chance, steps=steps)


def cumulative(ratios: Tensor, alive: Tensor) -> Tensor:
    """w_{0:t} (N, T) from the ratios pi / pi_b of each step (N, T)."""
    return torch.where(alive, ratios, 1.0).cumprod(1)


# w_{0:t} = prod pi / sum_j share_j prod pi_j: the balance heuristic (Veach and Guibas 1995)
def balanced(policy: Tensor, loggers: Tensor, alive: Tensor, shares: Tensor) -> Tensor:
    """w_{0:t} (N, T) of a log of several loggers, over the average of their cumulative probabilities.

    Args:
        policy: (N, T) log-probability of the logged action under the judged policy.
        loggers: (N, T, P) the same under each logger, whichever of them took the action.
        shares: (P,) share of each logger's sessions in the log.
    """
    mine = torch.where(alive, policy, 0.0).cumsum(1)  # (N, T)
    theirs = torch.where(alive.unsqueeze(2), loggers, 0.0).cumsum(1)  # (N, T, P)
    return (mine - torch.logsumexp(theirs + shares.log(), 2)).exp()


@contextlib.contextmanager
def errors_of(file: str | None, table: DecisionTable | None) -> Iterator[None]:
    """Errors inside the block begin with the name of ``file``, and have the ids of people's own ``table``."""
    name = one_line(file)
    try:
        yield
    except TableError as error:
        raise error.by({} if table is None else table.words, name) from error
    except UserError as error:
        text = str(error)
        if text.startswith(name):
            raise
        raise UserError(f"{name}: {text[:1].lower()}{text[1:]}") from error
