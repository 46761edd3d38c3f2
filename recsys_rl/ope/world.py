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
from torch import Tensor, nn

from recsys_rl.data.decisions import DecisionLog
from recsys_rl.ope.features import Features
from recsys_rl.protocols import Policy
from recsys_rl.session import Session
from recsys_rl.types import Catalogue, UserError

WARNING = (
    "Model-based, no promise of coverage: this is the answer of a learned model, and the interval does not "
    "cover its error."
)
HIDDEN = (64, 32)
EPOCHS, BATCH, LR = 15, 512, 4e-3
LEAST_STEPS = 300  # of the optimiser, for small logs
WIDTH = 4096  # sessions played together


@dataclass(frozen=True)
class Outcome:
    """The model's expectation for B decisions."""

    reward: Tensor  # (B,)
    leave: Tensor  # (B,) probability that the user leaves
    signals: Tensor  # (B, K, S): the visible signals of each place


class WorldModel:
    """A network 64-32 from features to reward, visible signals and leaving."""

    def __init__(self, features: Tensor, targets: Tensor, left: Tensor, generator: torch.Generator) -> None:
        """Fit the model.

        Args:
            features: (E, F) float32.
            targets: (E, 1 + K S) float32: the reward, then the visible signals.
            left: (E,) bool.
        """
        self.mean, self.scale = features.mean(0), features.std(0).clamp_min(1e-6)
        self.offset, self.size = targets.mean(0), targets.std(0).clamp_min(1e-6)
        self.low, self.high = targets.min(0).values, targets.max(0).values
        layers: list[nn.Module] = []
        size = features.shape[1]
        for wide in (*HIDDEN, targets.shape[1] + 1):
            layer = nn.Linear(size, wide)
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
            layers += [layer, nn.ReLU()]
            size = wide
        self.net = nn.Sequential(*layers[:-1])
        self.leaves = bool(left.any())
        x, y = (features - self.mean) / self.scale, (targets - self.offset) / self.size
        self._train(x, y, left.float(), generator)

    def _train(self, x: Tensor, y: Tensor, left: Tensor, generator: torch.Generator) -> None:
        batches = -(-len(x) // BATCH)  # of an epoch
        epochs = max(EPOCHS, -(-LEAST_STEPS // batches))
        optimizer = torch.optim.Adam(self.net.parameters(), LR)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, epochs * batches)
        for _ in range(epochs):
            for rows in torch.randperm(len(x), generator=generator).split(BATCH):
                out = self.net(x[rows])  # (b, 2 + K S)
                loss = nn.functional.mse_loss(out[:, :-1], y[rows])
                loss = loss + nn.functional.binary_cross_entropy_with_logits(out[:, -1], left[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()

    @torch.no_grad()
    def __call__(self, features: Tensor, places: int) -> Outcome:
        """The outcome of decisions with these features (B, F), on slates of ``places`` items.

        Predictions stay within what was seen; without any leaving in the log nobody leaves.
        """
        out = self.net((features - self.mean) / self.scale)
        seen = (out[:, :-1] * self.size + self.offset).clamp(self.low, self.high)
        leave = out[:, -1].sigmoid() if self.leaves else torch.zeros(len(out))
        return Outcome(seen[:, 0], leave, seen[:, 1:].reshape(len(out), places, -1))


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
        rows: (E, F) float32: the features of each logged decision.
        rewards: (E,).
        folds: (E,) int64 by user (``folds_by_user``).

    Raises UserError where the history holds events, and for a log of candidates: the model predicts neither.
    """
    if log.header.interface.events or log.candidates is not None:
        what = "events of the users" if log.header.interface.events else "candidates of a first stage"
        raise UserError(
            f"The estimator world can't predict the {what} in this log: choose another estimator."
        )
    shown = log.signals[..., log.visible].flatten(1)  # (E, K S)
    targets = torch.cat([rewards.float().unsqueeze(1), shown], 1)
    models = []
    for fold in range(int(folds.max()) + 1):
        others = folds != fold
        models.append(WorldModel(rows[others], targets[others], log.terminated[others], generator))
    first = log.steps == 0
    return Worlds(models, features, catalogue, log.rows(first), folds[first], gamma)


@torch.no_grad()
def world(worlds: Worlds, policy: Policy, sessions: int | None = None) -> Tensor:
    """The terms (N,) float64: the expected return of each logged session's user under ``policy``.

    ``sessions``: only the first of them; None for all.
    """
    number = len(worlds.folds) if sessions is None else min(sessions, len(worlds.folds))
    parts = [_play(worlds, policy, rows) for rows in torch.arange(number).split(WIDTH)]
    return torch.cat(parts)


def _play(worlds: Worlds, policy: Policy, rows: Tensor) -> Tensor:
    """(B,) float64 for the sessions ``rows`` (B,)."""
    interface, catalogue = worlds.starts.header.interface, worlds.catalogue
    session = Session.begin(interface, catalogue, worlds.starts.users[rows])
    handed = {name: x[rows] for name, x in worlds.starts.handed.items()}
    folds = worlds.folds[rows]
    available = None if bool(catalogue.available.all()) else catalogue.available.expand(len(rows), -1)
    exclude = worlds.starts.exclude
    total = torch.zeros(len(rows), dtype=torch.float64)
    alive = torch.ones(len(rows), dtype=torch.float64)
    for step in range(interface.session_length):
        obs = session.request(handed, available)
        if exclude is not None:
            more = exclude[rows]
            known = more if obs.exclude is None else torch.cat([obs.exclude, more], 1)
            obs = dataclasses.replace(obs, exclude=known)
        items = policy.act(obs).items  # (B, K)
        x = worlds.features(obs, items)
        reward, leave = torch.zeros(len(rows)), torch.zeros(len(rows))
        signals = torch.zeros(*items.shape, len(interface.signals))
        for fold, model in enumerate(worlds.models):
            mine = (folds == fold).nonzero().squeeze(1)
            outcome = model(x[mine], items.shape[1])
            reward[mine], leave[mine], signals[mine] = outcome.reward, outcome.leave, outcome.signals
        total = total + worlds.gamma**step * alive * reward
        alive = alive * (1 - leave.double())
        session = session.record(items, signals)
    return total
