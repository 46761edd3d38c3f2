"""Reward models q(x, a), cross-fitted: the model that values a row was fitted on other users' rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recsys_rl.ope.fits import Fit, Predict
from recsys_rl.types import UserError

FOLDS = 3


def folds_by_user(users: Tensor, generator: torch.Generator, folds: int = FOLDS) -> Tensor:
    """(E,) int64: the fold of each row; all rows of a user are in one fold, and folds differ by one user.

    Raises UserError with fewer users than folds.
    """
    known, place = users.unique(return_inverse=True)
    if len(known) < folds:
        raise UserError(f"The log has {len(known)} users, but cross-fitting needs {folds}: add users.")
    return (torch.randperm(len(known), generator=generator) % folds)[place]


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
        raise UserError("There are no rewards to fit a reward model on: give a log with rewards.")
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
        part = features[mine]  # (B, ..., F)
        out[mine] = model(part.reshape(-1, part.shape[-1])).reshape(part.shape[:-1])
    return out
