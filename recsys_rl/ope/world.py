"""`world`: a one-step model of reward and leaving, learned from the log; the policy is played in it.

    V = mean over sessions of sum_t g^t prod_{s<t} (1 - leave_s) reward_t

It uses no weights, so it needs no overlap; in return it is only as good as its model, and no interval covers
that error. Cross-fitted by user: a session is played in the model that its user did not train. A session
keeps the pieces of the context that its first row has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.decisions.log import DecisionLog
from recsys_rl.decisions.transitions import observations
from recsys_rl.ope.features import Features
from recsys_rl.ope.world_model import WorldModel
from recsys_rl.protocols import Policy
from recsys_rl.session import Session
from recsys_rl.types import Catalogue, UserError

WARNING = (
    "Model-based, no promise of coverage: this is the answer of a learned model, and the interval does not "
    "cover its error."
)
WIDTH = 4096  # sessions played together


@dataclass(frozen=True)
class Worlds:
    """The cross-fitted models of a log, and the starts of its sessions."""

    models: Sequence[WorldModel]
    features: Features
    catalogue: Catalogue
    starts: DecisionLog  # the first row of each of the N sessions
    folds: Tensor  # (N,) int64: the model of each session, which its user did not train
    gamma: float


def fit_world(
    log: DecisionLog,
    catalogue: Catalogue,
    features: Features,
    rows: Tensor,
    rewards: Tensor,
    folds: Tensor,
    gamma: float,
    generator: torch.Generator,
) -> Worlds:
    """Fit one model for each fold on the rows of the other folds.

    Args:
        rows: (E, F) float32: the features of each logged decision; those of the session so far are added.
        rewards: (E,).
        folds: (E,) int64 by user (``folds_by_user``).

    Raises UserError where the history holds events, and for a log of candidates: the model predicts neither.
    """
    if log.header.interface.events or log.candidates is not None:
        what = "events of the users" if log.header.interface.events else "candidates of a first stage"
        raise UserError(
            f"The estimator world can't predict the {what} in this log: choose another estimator."
        )
    past = torch.cat([features.past(obs) for _, obs in observations(log, catalogue)])  # (E, P)
    rows = torch.cat([rows, past], 1)
    shown = log.signals[..., log.visible].flatten(1)  # (E, K S)
    targets = torch.cat([rewards.float().unsqueeze(1), shown], 1)
    models = []
    for fold in range(int(folds.max()) + 1):
        others = folds != fold
        models.append(
            WorldModel(rows[others], targets[others], log.terminated[others], log.users[others], generator)
        )
    first = log.steps == 0
    return Worlds(models, features, catalogue, log.rows(first), folds[first], gamma)


@torch.no_grad()
def world(worlds: Worlds, policy: Policy, sessions: int | None = None) -> Tensor:
    """The terms (N,) float64: the expected return of each logged session's user under ``policy``.

    ``sessions``: only the first of them; None for all.
    """
    folds = worlds.folds if sessions is None else worlds.folds[:sessions]
    found = torch.zeros(len(folds), dtype=torch.float64)
    for fold, model in enumerate(worlds.models):
        for rows in (folds == fold).nonzero().squeeze(1).split(WIDTH):
            found[rows] = _play(worlds, model, policy, rows)
    return found


def _play(worlds: Worlds, model: WorldModel, policy: Policy, rows: Tensor) -> Tensor:
    """(B,) float64 for the sessions ``rows`` (B,), in ``model``."""
    interface, catalogue = worlds.starts.header.interface, worlds.catalogue
    session = Session.begin(interface, catalogue, worlds.starts.users[rows])
    handed = {name: x[rows] for name, x in worlds.starts.handed.items()}
    available = None if bool(catalogue.available.all()) else catalogue.available.expand(len(rows), -1)
    more = None if worlds.starts.exclude is None else worlds.starts.exclude[rows]
    total = torch.zeros(len(rows), dtype=torch.float64)
    alive = torch.ones(len(rows), dtype=torch.float64)
    for step in range(interface.session_length):
        obs = session.request(handed, available)
        if more is not None:
            known = more if obs.exclude is None else torch.cat([obs.exclude, more], 1)
            obs = dataclasses.replace(obs, exclude=known)
        items = policy.act(obs).items  # (B, K)
        seen = torch.cat([worlds.features(obs, items), worlds.features.past(obs)], 1)
        outcome = model(seen, items.shape[1])
        total += worlds.gamma**step * alive * outcome.reward
        alive *= 1 - outcome.leave.double()
        session = session.record(items, outcome.signals)
    return total
