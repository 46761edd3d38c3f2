"""From a DecisionLog and a policy to the tensors that the estimators read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.decisions.log import DecisionLog
from recsys_rl.decisions.transitions import observations
from recsys_rl.ope.features import Features
from recsys_rl.ope.fits import Fit
from recsys_rl.ope.reward_model import folds_by_user
from recsys_rl.ope.sequential import Sessions, balanced, cumulative, with_fitted_q
from recsys_rl.protocols import Behaviour
from recsys_rl.types import Catalogue, Obs, UserError

Probabilities = Callable[[Tensor, Obs], Tensor]
"""Rows (B,) of the log and their observations -> the probability of every item, (B, I) float64."""
PAIRS = 1_000_000
"""Pairs of a row and an item, up to which a reward model is averaged over every item."""
LARGEST = 1e300
"""The largest term of an estimate; sums of larger ones are no numbers."""


@dataclass(frozen=True)
class Prepared:
    """A log and what all judged policies share: E rows, of N sessions of at most T steps."""

    log: DecisionLog
    catalogue: Catalogue
    features: Features
    rewards: Tensor  # (E,) float64
    rows: Tensor  # (E, F) float32: features of the logged decisions
    grid: Tensor  # (N, T) int64: the row of each step, -1 after the end
    folds: Tensor  # (E,) int64, by user
    gamma: float

    @property
    def users(self) -> Tensor:
        """(N,)"""
        return self.log.users[self.grid[:, 0]]

    @property
    def alive(self) -> Tensor:
        """(N, T) bool"""
        return self.grid >= 0

    def on_grid(self, x: Tensor) -> Tensor:
        """(N, T, ...): the values ``x`` (E, ...) of the rows; 0 after the end."""
        found = x[self.grid.clamp_min(0)]
        found[~self.alive] = 0
        return found

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest reward of a step in the log."""
        return float(self.rewards.min()), float(self.rewards.max())

    @property
    def most(self) -> float:
        """The largest possible return: the largest reward of the log in each step.

        Where all rewards are negative it is that of a session of one step. Equal rewards bound nothing.
        """
        least, best = self.bounds
        if least == best:
            return float("inf")
        return best * sum(self.gamma**t for t in range(self.grid.shape[1])) if best > 0 else best


def prepare(
    log: DecisionLog, catalogue: Catalogue, rewards: Tensor, gamma: float, generator: torch.Generator
) -> Prepared:
    """Check the log and compute what all policies share. Raises UserError.

    Args:
        rewards: (E,), of the rows.
        gamma: discount per step.
        generator: draws the folds.
    """
    if bool((log.items < 0).any()):
        row = int((log.items < 0).any(1).nonzero()[0])
        raise UserError(
            f"Row {row + 1} of the log has an empty place, whose probability no policy knows: drop its "
            "session."
        )
    if not log.has_propensities:
        raise UserError(
            "The log has no propensities, which the weights of the estimators need: log the probability of "
            "each decision, or enter what is known by design in a column propensity."
        )
    if not bool(rewards.isfinite().all()):
        row = int((~rewards.isfinite()).nonzero()[0])
        raise UserError(f"The reward of row {row + 1} is missing or infinite: drop its session.")
    number = session_numbers(log)
    begun = log.loggers[log.steps == 0]  # (N,)
    if bool((log.loggers != begun[number]).any()):
        row = int((log.loggers != begun[number]).nonzero()[0])
        raise UserError(
            f"Session {int(log.sessions[row])} has decisions of two loggers, but its weight is that of a "
            "session by one: give each logger its own sessions."
        )
    if len(log.items.unique()) < 2:
        raise UserError(
            "The log has one item in every row, so that it shows nothing about other choices: give a log of "
            "a policy that chose among several."
        )
    if len(log.users.unique()) < 2:
        raise UserError("The log has one user: an interval over users needs at least two, so add users.")
    features = Features(catalogue, log.header.interface)
    found = [(at, features(obs, log.items[at])) for at, obs in observations(log, catalogue)]
    rows = torch.zeros(log.num_rows, found[0][1].shape[1])
    for at, part in found:
        rows[at] = part
    return Prepared(
        log=log,
        catalogue=catalogue,
        features=features,
        rewards=rewards.double(),
        rows=rows,
        grid=session_grid(log),
        folds=folds_by_user(log.users, generator),
        gamma=gamma,
    )


def session_numbers(log: DecisionLog) -> Tensor:
    """(E,) int64: 0, 1 ... of the row's session."""
    return (log.steps == 0).cumsum(0) - 1


def session_grid(log: DecisionLog) -> Tensor:
    """(N, T) int64: the row of each step of each session, -1 after its end."""
    number = session_numbers(log)
    grid = torch.full((int(number[-1]) + 1, int(log.steps.max()) + 1), -1)
    grid[number, log.steps] = torch.arange(log.num_rows)
    return grid


@dataclass(frozen=True)
class Actions:
    """M actions of each row, over which a reward model is averaged."""

    features: Tensor  # (E, M, F) float32
    probabilities: Tensor | None = None  # (E, M) float64; None: draws of the policy, each with 1 / M


@dataclass(frozen=True)
class Judged:
    """A policy on a log."""

    logprobs: Tensor  # (E,) float64: of the logged actions under the policy
    draws: Tensor  # (E, M, F) float32: features of M actions that it draws itself
    places: Tensor | None = None  # (E, K) float64: the terms of logprobs, each place given those above


@torch.no_grad()
def judge(prepared: Prepared, policy: Behaviour, draws: int) -> Judged:
    """The probabilities of the logged actions under ``policy``, and its own draws."""
    log = prepared.log
    places = torch.zeros(log.items.shape, dtype=torch.float64)
    drawn = torch.zeros(log.num_rows, draws, prepared.rows.shape[1])
    for at, obs in observations(log, prepared.catalogue):
        terms = policy.place_logprobs(obs, log.items[at]).double()  # (B, K)
        places[at] = terms.nan_to_num(nan=-torch.inf, neginf=-torch.inf)
        for k in range(draws):
            drawn[at, k] = prepared.features(obs, policy.act(obs).items)
    return Judged(places.sum(1), drawn, places)


@torch.no_grad()
def features_of(prepared: Prepared, items: Tensor) -> Tensor:
    """(E, M, F) float32: the features of the items (E, M) in each row of the log."""
    found = torch.zeros(*items.shape, prepared.rows.shape[1])
    for at, obs in observations(prepared.log, prepared.catalogue):
        for k in range(items.shape[1]):
            found[at, k] = prepared.features(obs, items[at, k].unsqueeze(1))
    return found


def every_item(prepared: Prepared) -> Tensor | None:
    """(E, I, F): the features of all I items in each row, for any policy; None above PAIRS of both."""
    number, items = prepared.log.num_rows, prepared.catalogue.num_items
    if number * items > PAIRS:
        return None
    return features_of(prepared, torch.arange(items).expand(number, -1))


@torch.no_grad()
def probabilities_of(prepared: Prepared, policy: Probabilities) -> Tensor:
    """(E, I) float64: the policy's probability of every item in each row."""
    found = torch.zeros(prepared.log.num_rows, prepared.catalogue.num_items, dtype=torch.float64)
    for at, obs in observations(prepared.log, prepared.catalogue):
        found[at] = policy(at, obs).double()
    return found


def weights(prepared: Prepared, logprobs: Tensor) -> Tensor:
    """(N, T) float64: w_{0:t} from the policy's log-probabilities (E,); by the balance heuristic if P > 1."""
    log, alive = prepared.log, prepared.alive
    mine = prepared.on_grid(logprobs)
    if log.logger_logprobs is None:
        return cumulative((mine - prepared.on_grid(log.logprobs)).exp(), alive)
    shares = log.loggers[prepared.grid[:, 0]].bincount(minlength=len(log.header.loggers)).double()
    present = shares > 0
    theirs = prepared.on_grid(log.logger_logprobs)[:, :, present]
    return balanced(mine, theirs, alive, (shares / shares.sum())[present])


def sessions_of(prepared: Prepared, logprobs: Tensor, actions: Actions | None, fit: Fit | None) -> Sessions:
    """The log as the estimators read it; without ``actions`` or ``fit`` it has no Q."""
    plain = Sessions(
        weights=weights(prepared, logprobs),
        rewards=prepared.on_grid(prepared.rewards),
        alive=prepared.alive,
        gamma=prepared.gamma,
    )
    if actions is None or fit is None:
        return plain
    grid, known = prepared.grid, actions.probabilities

    def alternatives(t: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        at = actions.features[grid[rows, t]]  # (B, M, F)
        if known is not None:
            return at, known[grid[rows, t]]
        return at, torch.full(at.shape[:2], 1 / at.shape[1], dtype=torch.float64)

    folds = prepared.folds[grid[:, 0]]
    return with_fitted_q(plain, prepared.on_grid(prepared.rows), alternatives, fit, folds, prepared.bounds)


def check_weights(prepared: Prepared, weights: Tensor) -> None:
    """Raise UserError if a weight (N, T), times what a session can earn, is too large for a number."""
    most = max(map(abs, prepared.bounds)) * weights.shape[1]
    wrong = ~(weights.amax(1) * (1 + 2 * most) <= LARGEST)  # (N,); a term holds r - q + V
    if not bool(wrong.any()):
        return
    place = int(wrong.nonzero()[0])
    log, row, steps = prepared.log, int(prepared.grid[place, 0]), int(prepared.alive[place].sum())
    where = f"the weight of session {int(log.sessions[row])} is {float(weights[place].max()):.3g}"
    if steps == 1:
        raise UserError(
            f"{where}, too large to estimate with, as its propensity is "
            f"{float(log.logprobs[row].exp()):.3g}: correct the propensity, or drop the row."
        )
    raise UserError(
        f"{where}, too large to estimate with, as its {steps} steps multiply the policy's probabilities over "
        "the propensities: correct the propensities, or cut the sessions into shorter ones."
    )


def certain_mass(prepared: Prepared, logprobs: Tensor) -> float:
    """Share of the policy's mass that the log surely lacks: elsewhere in rows with propensity 1.

    With several loggers a row counts if every logger of the log takes its action with probability 1.
    """
    log = prepared.log
    theirs = log.logprobs  # (E,)
    if log.logger_logprobs is not None:
        theirs = log.logger_logprobs[:, log.loggers.unique()].amin(1)
    return float(torch.where(theirs > -1e-9, 1 - logprobs.exp(), 0.0).mean())
