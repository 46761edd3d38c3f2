"""Networks as reward models, and what the fits of networks to a log share."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from recsys_rl.logs.ope.reward_model import Fit, Predict
from recsys_rl.logs.users.fit import shift

HIDDEN = (64, 32)
EPOCHS, BATCH, LR = 15, 512, 4e-3
LEAST_STEPS = 300  # of the optimiser, for small logs
BLOCK = 2**16  # rows that pass the network together
CHECKED = 5  # one user of so many is held out, to stop early


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


def spread(features: Tensor) -> Tensor:
    """(F,) the standard deviation of each column of the features (E, F), infinite for a constant one.

    Divided by it, a column that never varied stays 0 whatever a new row has there.
    """
    deviation = features.std(0, correction=0)
    return torch.where(deviation > 1e-6, deviation, torch.inf)


def network(sizes: tuple[int, ...], generator: torch.Generator) -> nn.Sequential:
    """Linear layers of these sizes, from the features to the outputs, with rectifiers between them."""
    layers: list[nn.Module] = []
    for size, wide in pairwise(sizes):
        layer = nn.Linear(size, wide)
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def mlp_of_shares(generator: torch.Generator) -> Fit:
    """A network 64-32 for rewards of 0 and 1, fitted by the log loss.

    ``mlp`` also predicts numbers below 0 for rare clicks. Cut at 0, their mean is too high. The first epoch
    begins at the mean reward, the epoch with the least loss on a fifth of the rows is kept, and the intercept
    is then shifted until the mean prediction is the mean reward.
    """

    def fit(features: Tensor, targets: Tensor) -> Predict:
        x, y = features.float(), targets.float()
        mean, scale = x.mean(0), spread(x)
        x = (x - mean) / scale
        net = network((x.shape[1], *HIDDEN, 1), generator)
        last = net[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.zero_()
            last.bias.copy_(y.mean().clamp(1e-6, 1 - 1e-6).logit())
        held = held_out(torch.arange(len(y)), generator)  # rows in place of users
        fitted = (~held).nonzero().squeeze(1)
        checked = held.nonzero().squeeze(1) if bool(held.any()) else fitted

        def loss(rows: Tensor) -> Tensor:
            logits = net(x.index_select(0, rows)).squeeze(1)
            return nn.functional.binary_cross_entropy_with_logits(logits, y.index_select(0, rows))

        @torch.no_grad()
        def checked_loss() -> float:
            return sum(float(loss(rows)) * len(rows) for rows in checked.split(BLOCK)) / len(checked)

        def weights_now() -> dict[str, Tensor]:
            return {name: p.clone() for name, p in net.state_dict().items()}

        batches = -(-len(fitted) // BATCH)  # of an epoch
        epochs = max(EPOCHS, -(-LEAST_STEPS // batches))
        optimizer = torch.optim.Adam(net.parameters(), LR)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, epochs * batches)
        best, best_weights = checked_loss(), weights_now()
        for _ in range(epochs):
            for places in torch.randperm(len(fitted), generator=generator).split(BATCH):
                now = loss(fitted[places])
                optimizer.zero_grad()
                now.backward()
                optimizer.step()
                schedule.step()
            if (loss_now := checked_loss()) < best:
                best, best_weights = loss_now, weights_now()
        net.load_state_dict(best_weights)
        with torch.no_grad():
            # In blocks of rows: a large log would need much memory at once.
            logits = torch.cat([net(rows) for rows in x.split(BLOCK)])  # (E, 1)
            last.bias.add_(shift(logits, y.mean().view(1)))

        @torch.no_grad()
        def predict(rows: Tensor) -> Tensor:
            out: Tensor = net((rows.float() - mean) / scale).squeeze(1)
            return out.sigmoid().double()

        return predict

    return fit


def held_out(users: Tensor, generator: torch.Generator) -> Tensor:
    """(E,) bool: the rows of a fifth of the users (E,), drawn at random; none of fewer than five users."""
    known, user = users.unique(return_inverse=True)
    return (torch.randperm(len(known), generator=generator) < len(known) // CHECKED)[user]


def shares(targets: Tensor, means: Tensor) -> Tensor:
    """(T,) the weight of each target's log loss, for targets (E, T) in [0, 1] and their means (T,).

    With it, the loss of the means exceeds that of the targets themselves by 1, so that targets of all scales
    count the same. 0 for a constant target.
    """
    entropy = nn.functional.binary_cross_entropy
    least = entropy(targets, targets, reduction="none").mean(0)
    of_means = entropy(means.expand_as(targets), targets, reduction="none").mean(0)
    varies = targets.min(0).values < targets.max(0).values
    return torch.where(varies, 1 / (of_means - least).clamp_min(1e-6), 0.0)
