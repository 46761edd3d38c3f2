"""`world`: a one-step model of reward and leaving, learned from the log; the policy is played in it.

    V = mean over sessions of sum_t g^t prod_{s<t} (1 - leave_s) reward_t

It uses no weights, so it needs no overlap; in return it is only as good as its model, and no interval covers
that error. Cross-fitted by user: a session is played in the model that its user did not train. A session
keeps the pieces of the context that its first row has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.decisions.log import DecisionLog
from recsys_rl.ope.diagnostics import student_t
from recsys_rl.ope.estimators import discounts
from recsys_rl.ope.networks import WorldModel
from recsys_rl.ope.replay import ReplayedLog
from recsys_rl.ope.result import WorldCheck
from recsys_rl.protocols import Policy
from recsys_rl.session import Session
from recsys_rl.types import UserError
from recsys_rl.utils.progress import announce

WARNING = (
    "Model-based, no promise of coverage: this is the answer of a learned model, and the interval does not "
    "cover its error."
)
WIDTH = 4096  # sessions played together


@dataclass(frozen=True)
class Worlds:
    """The cross-fitted models of a log, and the starts of its sessions."""

    models: Sequence[WorldModel]
    log: ReplayedLog
    starts: DecisionLog  # the first row of each of the N sessions
    folds: Tensor  # (N,) int64: the model of each session, which its user did not train


def why_no_world(log: DecisionLog) -> str:
    """The reason why the log can have no world model; "" if it can have one."""
    if log.header.interface.events:
        return "no world model predicts the events in this log"
    if log.candidates is not None:
        return "no world model predicts the candidates of a row"
    return "no world model predicts which items a step forbids" if log.forbids else ""


def fit_world(of: ReplayedLog, generator: torch.Generator, keep: Tensor | None = None) -> Worlds:
    """Fit one model for each fold on the rows of the other folds.

    ``keep`` (E,) bool: only these rows, of whole sessions.

    Raises UserError where the history holds events, and for a log of candidates: the model predicts neither.
    """
    log = of.log
    if why_no_world(log):
        what = "events of the users" if log.header.interface.events else "candidates of a first stage"
        if log.candidates is None and not log.header.interface.events:
            what = "items that each step forbids"
        raise UserError(
            f"The estimator world can't predict the {what} in this log: choose another estimator."
        )
    shown = log.signals[..., log.visible].flatten(1)  # (E, K S)
    targets = torch.cat([of.rewards.float().unsqueeze(1), shown], 1)
    rows, kept = torch.cat([of.rows, of.past], 1), torch.ones_like(log.terminated) if keep is None else keep
    models = []
    for fold in range(int(of.folds[kept].max()) + 1):
        others = kept & (of.folds != fold)
        models.append(
            WorldModel(rows[others], targets[others], log.terminated[others], log.users[others], generator)
        )
    first = kept & (log.steps == 0)
    return Worlds(models, of, log.rows(first), of.folds[first])


@torch.no_grad()
def world(
    worlds: Worlds, policy: Policy, log: ReplayedLog | None = None, sessions: int | None = None
) -> Tensor:
    """The terms (N,) float64: the expected return of each logged session's user under ``policy``.

    Args:
        log: another part of the log; None: the sessions on which the models were fitted.
        sessions: only the first of them; None for all.
    """
    starts, folds = worlds.starts, worlds.folds
    if log is not None and log is not worlds.log:
        first = log.log.steps == 0
        starts, folds = log.log.rows(first), log.folds[first]
    folds = folds[:sessions]
    found = torch.zeros(len(folds), dtype=torch.float64)
    for fold, model in enumerate(worlds.models):
        mine = (folds == fold).nonzero().squeeze(1)
        for rows in mine.split(WIDTH) if len(mine) else ():  # a small part may have no user of a fold
            found[rows] = _play(worlds.log, model, policy, starts.rows(rows))
    return found


def _play(log: ReplayedLog, model: WorldModel, policy: Policy, starts: DecisionLog) -> Tensor:
    """(B,) float64 for the sessions that begin as ``starts`` (B,), in ``model``."""
    interface, catalogue, features = starts.header.interface, log.catalogue, log.features
    session = Session.begin(interface, catalogue, starts.users)
    available = None if bool(catalogue.available.all()) else catalogue.available.expand(starts.num_rows, -1)
    more = starts.exclude
    total = torch.zeros(starts.num_rows, dtype=torch.float64)
    alive = torch.ones(starts.num_rows, dtype=torch.float64)
    for step in range(interface.session_length):
        obs = session.request(starts.given, available)
        if more is not None:
            known = more if obs.exclude is None else torch.cat([obs.exclude, more], 1)
            obs = dataclasses.replace(obs, exclude=known)
        items = policy.act(obs).items  # (B, K)
        outcome = model(torch.cat([features(obs, items), features.past(obs)], 1), items.shape[1])
        total += log.gamma**step * alive * outcome.reward
        alive *= 1 - outcome.leave.double()
        session = session.record(items, outcome.signals)
    return total


def check_world(
    of: ReplayedLog, logger: Callable[[int], Policy | None], generator: torch.Generator
) -> list[WorldCheck]:
    """A check of the model by each logger: its prediction for sessions on which it was not fitted.

    ``logger`` gives the policy at a place in the log's loggers; None for one that can't be played.
    """
    loggers, found = of.log.loggers, []
    for place in loggers.unique().tolist():
        others = loggers != place
        policy = logger(place) if bool(others.any()) else None
        # The model of a fold needs rows of another one.
        if policy is None or len(of.folds[others].unique()) < 2:
            continue
        announce("fitting the world model without the sessions of one logger")
        worlds = fit_world(of, generator, others)
        mine = loggers[of.grid[:, 0]] == place
        returns = of.on_grid(of.rewards)[mine] @ discounts(of.gamma, of.grid.shape[1])
        if len(of.users[mine].unique()) < 2:
            continue
        low, high = student_t(returns, of.users[mine])
        predicted = float(world(worlds, policy).mean())
        found.append(WorldCheck(of.log.header.loggers[place], predicted, float(returns.mean()), low, high))
    return found


def not_checked(reason: str, needed: str) -> str:
    """The sentence for a world without a check: the ``reason``, and what the check needs."""
    where = "on a policy that it was not fitted on"
    return f"The model was not checked {where}, {reason}: the check needs {needed}."


def why_not_checked(of: ReplayedLog, with_checkpoint: bool) -> str:
    """The sentence for a world of this log without a check."""
    if not with_checkpoint:
        return not_checked(
            "as none of the policies that logged can be played without a checkpoint",
            "a log of recsys-rl record by two policies, with its --checkpoint",
        )
    if of.estimated:
        return not_checked(
            "as the propensities are estimated, so that no logger can be recognised by them",
            "a log with propensities",
        )
    if len(of.log.loggers.unique()) < 2:
        return not_checked(
            "as one policy logged all sessions",
            "sessions of a second policy (record --policy A --policy B)",
        )
    return not_checked(
        "as no logger's policy can be played with this checkpoint, or too few users are left without its "
        "sessions",
        "the checkpoint of the loggers, and sessions of more users",
    )
