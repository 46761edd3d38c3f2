"""Regressions for reward models: from features and targets to a prediction. All in float64, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from recsys_rl.errors import UserError

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


def mlp(
    generator: torch.Generator,
    hidden: tuple[int, ...] = (64, 32),
    *,
    epochs: int = 20,
    batch: int = 512,
    lr: float = 3e-3,
    decay: float = 1e-4,
) -> Fit:
    """A network with standardised features, trained by Adam on squared errors."""

    def fit(features: Tensor, targets: Tensor) -> Predict:
        x, y = features.float(), targets.float()
        mean, scale = x.mean(0), spread(x)
        net = network((x.shape[1], *hidden, 1), generator)
        offset, size = y.mean(), y.std(correction=0).clamp_min(1e-6)
        y = (y - offset) / size
        x = (x - mean) / scale
        steps = max(1, epochs * ((len(x) + batch - 1) // batch))
        optimizer = torch.optim.Adam(net.parameters(), lr=lr, weight_decay=decay)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
        for _ in range(epochs):
            for rows in torch.randperm(len(x), generator=generator).split(batch):
                loss = nn.functional.mse_loss(net(x[rows]).squeeze(1), y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()

        @torch.no_grad()
        def predict(rows: Tensor) -> Tensor:
            out: Tensor = net((rows.float() - mean) / scale).squeeze(1)
            return (out * size + offset).double()

        return predict

    return fit


def of_each_value(fit: Fit, columns: Sequence[int]) -> Fit:
    """A model for each distinct value of the features' ``columns``, fitted on its rows alone.

    To predict a row with a value that no fitted row has is a UserError.
    """

    def fit_all(features: Tensor, targets: Tensor) -> Predict:
        values, group = features[:, columns].unique(dim=0, return_inverse=True)
        models = [fit(features[group == k], targets[group == k]) for k in range(len(values))]

        def predict(rows: Tensor) -> Tensor:
            found = torch.full((len(rows),), torch.nan, dtype=torch.float64)
            for value, model in zip(values, models, strict=True):
                mine = (rows[:, columns] == value).all(1)
                if bool(mine.any()):
                    found[mine] = model(rows[mine])
            if bool(found.isnan().any()):
                raise UserError(
                    "The piece of --q-by has a value that too few users have to fit a model on others' rows: "
                    "choose another piece, or leave --q-by out."
                )
            return found

        return predict

    return fit_all


def spread(features: Tensor) -> Tensor:
    """(F,) the standard deviation of each column of the features (E, F), infinite for a constant one.

    Divided by it, a column that never varied stays 0 whatever a new row has there.
    """
    found = features.std(0, correction=0)
    return torch.where(found > 1e-6, found, torch.inf)


def network(sizes: tuple[int, ...], generator: torch.Generator) -> nn.Sequential:
    """Linear layers of these sizes, from the features to the outputs, with rectifiers between them."""
    layers: list[nn.Module] = []
    for size, wide in pairwise(sizes):
        layer = nn.Linear(size, wide)
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
