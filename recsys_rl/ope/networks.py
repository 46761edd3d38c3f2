"""Networks that are fitted to a log: of the estimator `world`, and reward models."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from recsys_rl.ope.reward_model import Fit, Predict

HIDDEN = (64, 32)
EPOCHS, BATCH, LR = 15, 512, 4e-3
LEAST_STEPS = 300  # of the optimiser, for small logs
BLOCK = 2**16  # rows that pass the network together
CHECKED = 5  # one user of so many is held out, to stop early


@dataclass(frozen=True)
class Outcome:
    """The model's expectation for B decisions."""

    reward: Tensor  # (B,)
    leave: Tensor  # (B,) probability that the user leaves
    signals: Tensor  # (B, K, S): the visible signals of each place


class WorldModel:
    """A network 64-32 whose outputs are sigmoids over the seen range of each target, fitted by the log loss::

        y = low + (high - low) sigmoid(net(x) + shift)      low, high: the smallest and the largest y seen

    The log loss is proper for the mean of any target in [0, 1], binary or not. Predictions stay within what
    was seen without being cut there: cut errors would not cancel, and the mean of rare clicks would be too
    high. The first epoch begins at the mean of each target, the epoch with the least loss on held-out users
    is kept, and the intercepts are then shifted until the mean prediction is the mean target.
    """

    def __init__(
        self, features: Tensor, targets: Tensor, left: Tensor, users: Tensor, generator: torch.Generator
    ) -> None:
        """Fit the model.

        Args:
            features: (E, F) float32.
            targets: (E, 1 + K S) float32: the reward, then the visible signals.
            left: (E,) bool.
            users: (E,) int64. A fifth of them is held out; with fewer than five users, none is, and the loss
                is that of the fitted rows.
        """
        self.mean, self.scale = features.mean(0), spread(features)
        y = torch.cat([targets, left.float().unsqueeze(1)], 1)  # (E, T)
        self.low = y.min(0).values
        self.size = y.max(0).values - self.low  # 0 for a constant target, which is then predicted exactly
        y = (y - self.low) / torch.where(self.size > 0, self.size, 1.0)
        x = (features - self.mean) / self.scale
        self.net = network((x.shape[1], *HIDDEN, y.shape[1]), generator)
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        start = y.mean(0).clamp(1e-6, 1 - 1e-6)
        with torch.no_grad():
            last.weight.zero_()
            last.bias.copy_(start.logit())
        held = held_out(users, generator)
        fitted = (~held).nonzero().squeeze(1)  # rows
        checked = held.nonzero().squeeze(1) if bool(held.any()) else fitted
        weights = shares(y, start)
        weights[1:-1] /= max(1, int((weights[1:-1] > 0).sum()))  # all signals together count as the reward
        self._train(x, y, fitted, checked, weights, generator)
        with torch.no_grad():
            # In blocks of rows: a large log would need much memory at once.
            logits = torch.cat([self.net(rows) for rows in x.split(BLOCK)])  # (E, T)
            last.bias.add_(shift(logits, y.mean(0)))

    def _train(
        self,
        x: Tensor,
        y: Tensor,
        fitted: Tensor,
        checked: Tensor,
        weights: Tensor,
        generator: torch.Generator,
    ) -> None:
        """Train on the rows ``fitted`` of x (E, F) and y (E, T); keep the best weights on ``checked``."""
        essential = weights.clone()
        essential[1:-1] = 0

        def loss(rows: Tensor, weights: Tensor) -> Tensor:
            """The mean over ``rows`` (B,)."""
            logits = self.net(x.index_select(0, rows))
            found = nn.functional.binary_cross_entropy_with_logits(
                logits, y.index_select(0, rows), reduction="none"
            )
            return (found @ weights).mean()

        @torch.no_grad()
        def checked_loss() -> float:
            """The loss that decides when to stop, of reward and leaving alone.

            Signals that can't be learned would stop the training before these are.
            """
            blocks = checked.split(BLOCK)
            return sum(float(loss(rows, essential)) * len(rows) for rows in blocks) / len(checked)

        def weights_now() -> dict[str, Tensor]:
            return {name: p.clone() for name, p in self.net.state_dict().items()}

        batches = -(-len(fitted) // BATCH)  # of an epoch
        epochs = max(EPOCHS, -(-LEAST_STEPS // batches))
        optimizer = torch.optim.Adam(self.net.parameters(), LR)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, epochs * batches)
        best, kept = checked_loss(), weights_now()
        for _ in range(epochs):
            for places in torch.randperm(len(fitted), generator=generator).split(BATCH):
                now = loss(fitted[places], weights)
                optimizer.zero_grad()
                now.backward()
                optimizer.step()
                schedule.step()
            if (found := checked_loss()) < best:
                best, kept = found, weights_now()
        self.net.load_state_dict(kept)

    @torch.no_grad()
    def __call__(self, features: Tensor, places: int) -> Outcome:
        """The outcome of decisions with these features (B, F), on slates of ``places`` items.

        Predictions stay within what was seen; without any leaving in the log nobody leaves.
        """
        out = self.net((features - self.mean) / self.scale).sigmoid() * self.size + self.low
        return Outcome(out[:, 0], out[:, -1], out[:, 1:-1].reshape(len(out), places, -1))


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


def mlp_of_shares(generator: torch.Generator) -> Fit:
    """The network of WorldModel for a reward alone: for rewards of 0 and 1, with the log loss.

    ``mlp`` also predicts numbers below 0 for rare clicks. Cut at 0, their mean is too high.
    """

    def fit(features: Tensor, targets: Tensor) -> Predict:
        left = torch.zeros(len(targets), dtype=torch.bool)
        rows = torch.arange(len(targets))  # in place of users: a fifth of the rows decides when to stop
        model = WorldModel(features.float(), targets.float().unsqueeze(1), left, rows, generator)
        return lambda x: model(x.float(), 1).reward.double()

    return fit


def held_out(users: Tensor, generator: torch.Generator) -> Tensor:
    """(E,) bool: the rows of a fifth of the users (E,), drawn at random; none of fewer than five users."""
    known, place = users.unique(return_inverse=True)
    return (torch.randperm(len(known), generator=generator) < len(known) // CHECKED)[place]


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


def shift(logits: Tensor, means: Tensor) -> Tensor:
    """(T,) what to add to the logits (E, T) for their sigmoids to have the means (T,); by bisection."""
    low, high = torch.full_like(means, -20.0), torch.full_like(means, 20.0)
    for _ in range(40):
        middle = (low + high) / 2
        above = (logits + middle).sigmoid().mean(0) > means
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (low + high) / 2
