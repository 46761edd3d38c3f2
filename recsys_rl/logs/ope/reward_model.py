"""Reward models: linear regressions, and cross-fitting: other users' rows fitted the model of a row.

At one step it is q(x, a); of sessions it is fitted Q evaluation, from the last step to the first. All is
float64, on the CPU. Networks are in networks.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from recsys_rl.logs.ope.estimators import Evidence
from recsys_rl.types import UserError

Predict = Callable[[Tensor], Tensor]
"""Features (B, F) -> predictions (B,)."""
Fit = Callable[[Tensor, Tensor], Predict]
"""Features (E, F) and targets (E,) -> a prediction."""


def with_one(features: Tensor) -> Tensor:
    """(B, F + 1): the features and a column of ones, for the intercept."""
    return torch.cat([features, features.new_ones(len(features), 1)], 1)


# argmin |X b - y|^2 + strength |b|^2, the intercept free
def ridge(strength: float = 1.0) -> Fit:
    def fit(features: Tensor, targets: Tensor) -> Predict:
        x = with_one(features.double())
        penalty = torch.full((x.shape[1],), strength, dtype=torch.float64)
        penalty[-1] = 0.0
        beta = torch.linalg.lstsq(
            x.T @ x + penalty.diag(), (x.T @ targets.double()).unsqueeze(1), driver="gelsd"
        ).solution.squeeze(1)  # (F + 1,)
        return lambda rows: with_one(rows.double()) @ beta

    return fit


# argmin sum log(1 + exp(-(2 y - 1) X b)) + |b|^2 / (2 C), the intercept free; by Newton's method
def logistic(inverse_strength: float = 1.0, steps: int = 50) -> Fit:
    """Logistic regression of targets in [0, 1]."""

    def fit(features: Tensor, targets: Tensor) -> Predict:
        beta = logistic_coefficients(features, targets, inverse_strength, steps)
        return lambda rows: (with_one(rows.double()) @ beta).sigmoid()

    return fit


def logistic_coefficients(
    features: Tensor, targets: Tensor, inverse_strength: float = 1.0, steps: int = 50
) -> Tensor:
    """(F + 1,) the coefficients of ``logistic``, the intercept last.

    With targets that are all 0 or all 1 the intercept is that of one more target of each kind.
    """
    x, y = with_one(features.double()), targets.double()
    size = x.shape[1]
    penalty = torch.full((size,), 1 / inverse_strength, dtype=torch.float64)
    penalty[-1] = 0.0
    beta = torch.zeros(size, dtype=torch.float64)
    beta[-1] = torch.logit((y.sum() + 1) / (len(y) + 2))
    if float(y.min()) == float(y.max()) and float(y[0]) in (0.0, 1.0):
        return beta

    def loss(at: Tensor) -> Tensor:
        score = x @ at
        return nn.functional.softplus(score).sum() - y @ score + 0.5 * penalty @ at**2

    now = loss(beta)
    for _ in range(steps):
        p = (x @ beta).sigmoid()
        gradient = x.T @ (p - y) + penalty * beta
        hessian = (x * (p * (1 - p)).unsqueeze(1)).T @ x + penalty.diag()
        step = torch.linalg.solve(hessian + 1e-10 * torch.eye(size, dtype=torch.float64), gradient)
        scale = 1.0
        while loss(beta - scale * step) > now and scale > 1e-6:  # a full step may go too far
            scale /= 2
        beta = beta - scale * step
        now, before = loss(beta), now
        if before - now <= 1e-12 * (1 + abs(now)):
            break
    return beta


FOLDS = 3


def folds_by_user(users: Tensor, generator: torch.Generator, folds: int = FOLDS) -> Tensor:
    """(E,) int64: the fold of each row; all rows of a user are in one fold, and folds differ by one user.

    Raises UserError with fewer users than folds.
    """
    known, user = users.unique(return_inverse=True)
    if len(known) < folds:
        raise UserError(f"The log has {len(known)} users, but cross-fitting needs {folds}: add users.")
    return (torch.randperm(len(known), generator=generator) % folds)[user]


def cross_fit(
    fit: Fit, features: Tensor, targets: Tensor, folds: Tensor, alone: Predict | None = None
) -> list[Predict]:
    """One model for each fold, fitted on the rows of the other folds.

    Args:
        features: (E, F) of the logged action.
        targets: (E,).
        folds: (E,) int64.
        alone: the model of a fold without other rows; None: UserError.

    Raises UserError if a target is missing.
    """
    if not len(targets):
        raise UserError("The log has no rewards to fit a reward model on: give a log with rewards.")
    if bool(targets.isnan().any()):
        row = int(targets.isnan().nonzero()[0])
        raise UserError(f"The reward of row {row + 1} is missing: drop the row, or fill in its reward.")
    models = []
    for fold in range(int(folds.max()) + 1):
        others = folds != fold
        if bool(others.any()):
            models.append(fit(features[others], targets[others]))
        elif alone is not None:
            models.append(alone)
        else:
            raise UserError("All rows are of one fold: cross-fitting needs at least two.")
    return models


def predict(models: Sequence[Predict], features: Tensor, folds: Tensor) -> Tensor:
    """(E, ...) float64: each row's prediction by the model of its own fold, which never saw the row.

    ``features`` is (E, F), or (E, A, F) for A actions of each row.
    """
    out = features.new_zeros(features.shape[:-1], dtype=torch.float64)
    for fold, model in enumerate(models):
        mine = folds == fold
        block = features[mine]  # (B, ..., F)
        out[mine] = model(block.reshape(-1, block.shape[-1])).reshape(block.shape[:-1])
    return out


Alternatives = Callable[[int, Tensor], tuple[Tensor, Tensor]]
"""Step t and rows (B,) -> features (B, A, F) of A actions, and the policy's probability of each, (B, A)."""
BLOCK = 200_000  # predictions at once


@dataclass(frozen=True)
class StepModels:
    """Cross-fitted Q of each step: the models of all folds, and the least and the most that it may be."""

    models: Mapping[int, Sequence[Predict]]  # by step
    limits: Mapping[int, tuple[float, float] | None]

    def values(
        self, t: int, features: Tensor, rows: Tensor, folds: Tensor, alternatives: Alternatives
    ) -> tuple[Tensor, Tensor]:
        """Q of the logged action and V, (B,) each, of the sessions ``rows`` (B,) at step ``t``.

        ``features`` (B, F) of the logged actions, ``folds`` (B,).
        """
        models, limits = self.models.get(t), self.limits.get(t)
        if models is None:  # none of the fitted sessions was so long
            return torch.zeros(2, len(rows), dtype=torch.float64).unbind(0)  # type: ignore[return-value]
        q = predict(models, features, folds)
        average = _policy_average(models, rows, folds, t, alternatives, limits)
        return q if limits is None else q.clamp(*limits), average


def fit_q(
    log: Evidence,
    features: Tensor,
    alternatives: Alternatives,
    fit: Fit,
    folds: Tensor,
    bounds: tuple[float, float] | None = None,
) -> tuple[Evidence, StepModels]:
    """``log`` with Q and V: from the last step to the first, ``Q_t`` is fitted to ``r_t + g V_{t+1}``.

    Args:
        features: (N, T, F) of the logged actions.
        alternatives: features and probabilities of the actions that V averages over.
        folds: (N,) int64; the model that values a session was fitted on the other folds.
        bounds: smallest and largest possible reward of a step; Q is clipped to what the steps left can earn.
    """
    number, steps = log.rewards.shape
    q, v = torch.zeros(2, number, steps, dtype=torch.float64)
    models, limits = dict[int, Sequence[Predict]](), dict[int, tuple[float, float] | None]()
    of_steps = StepModels(models, limits)
    after = torch.zeros(number, dtype=torch.float64)
    least = most = 0.0
    for t in reversed(range(steps)):
        if bounds is not None:  # r_t and g times what the later steps can earn, none of which may take place
            least = bounds[0] + log.gamma * min(least, 0.0)
            most = bounds[1] + log.gamma * max(most, 0.0)
        here = log.alive[:, t].nonzero().squeeze(1)
        if not len(here):
            continue
        target = (log.rewards[:, t] + log.gamma * after)[here]
        models[t] = cross_fit(fit, features[here, t], target, folds[here], alone=_nothing)
        limits[t] = (least, most) if bounds is not None else None
        q[here, t], v[here, t] = of_steps.values(t, features[here, t], here, folds[here], alternatives)
        after = v[:, t]
    return replace(log, q=q, v=v), of_steps


def with_q(
    log: Evidence, features: Tensor, alternatives: Alternatives, models: StepModels, folds: Tensor
) -> Evidence:
    """``log`` with Q and V by fitted models; the arguments as in ``fit_q``."""
    q, v = torch.zeros(2, *log.rewards.shape, dtype=torch.float64)
    for t in range(log.rewards.shape[1]):
        here = log.alive[:, t].nonzero().squeeze(1)
        if len(here):
            q[here, t], v[here, t] = models.values(t, features[here, t], here, folds[here], alternatives)
    return replace(log, q=q, v=v)


def _nothing(features: Tensor) -> Tensor:
    """Q = 0, for a step that no other fold reached: any Q that its own rows did not train is allowed."""
    return torch.zeros(len(features), dtype=torch.float64)


def _policy_average(
    models: Sequence[Predict],
    rows: Tensor,
    folds: Tensor,
    t: int,
    alternatives: Alternatives,
    bounds: tuple[float, float] | None,
) -> Tensor:
    """(B,): sum_a pi(a|x) Q(x, a) for the sessions ``rows`` (B,) at step ``t``."""
    one = alternatives(t, rows[:1])[1].shape[1]
    parts = []
    size = max(1, BLOCK // one)
    for mine, fold in zip(rows.split(size), folds.split(size), strict=True):
        features, probability = alternatives(t, mine)
        q = predict(models, features, fold)  # (b, A)
        parts.append((probability * (q.clamp(*bounds) if bounds else q)).sum(1))
    return torch.cat(parts)
