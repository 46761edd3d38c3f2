"""Signals of users as distributions: a probability for a signal of 0 and 1, quantiles for any other.

A quantile at level q is fitted by the pinball loss (Koenker and Bassett 1978, "Regression quantiles")::

    pinball_q(y, x) = max(q (y - x), (q - 1) (y - x))

whose expectation is smallest where x is the quantile of y. Between two levels the quantile function is a
straight line, and beyond the outermost ones it is constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

LEVELS = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)
"""Levels of the quantiles."""
LARGEST_WEIGHT = 20.0  # of the loss of a signal, against that of its mean: seldom signals are mostly noise
MOST_SORTED = 2**24 - 1  # numbers: torch.quantile takes no more


@dataclass(frozen=True)
class SignalKinds:
    """The range and the kind of each of the S signals of a log."""

    binary: tuple[bool, ...]  # (S,): the values are 0 and 1 alone
    low: tuple[float, ...]  # (S,): the smallest value
    high: tuple[float, ...]  # (S,): the largest value
    weights: tuple[float, ...]  # (S,): of the losses, 1 over that of a constant; 0 for a constant signal
    leave_weight: float  # of the loss of leaving; 0 if no user leaves
    start: tuple[float, ...]  # (O,): outputs of a network that knows nothing but what the log shows of all
    leave_start: float  # the logit of the share of steps after which a user leaves
    # (S,): the number is one of the whole step. It is the same at each place, and no later step reads it.
    # Empty: no signal is.
    of_step: tuple[bool, ...] = ()

    @property
    def output_sizes(self) -> tuple[int, ...]:
        """(S,): outputs of a network for each signal."""
        return tuple(1 if one else len(LEVELS) for one in self.binary)

    @property
    def num_outputs(self) -> int:
        """Outputs of a network for all signals."""
        return len(self.start)


def are_binary(signals: Tensor) -> tuple[bool, ...]:
    """(S,): True for each signal of ``signals`` (R, S) whose values are 0 and 1 alone."""
    return tuple(((signals == 0) | (signals == 1)).all(0).tolist())


def kinds_of(signals: Tensor, left: Tensor, binary: Sequence[bool] | None = None) -> SignalKinds:
    """The kinds of the ``signals`` (R, S) of R shown places.

    Args:
        left: (R',) bool of R' steps: the user left after it.
        binary: (S,) the signals of 0 and 1, by more than these places. None: by ``signals``. A number from
            0 to 1 may be one of them: it then has its mean alone, fitted by the log loss.
    """
    binary = are_binary(signals) if binary is None else tuple(binary)
    low, high, weights = [], [], []
    start: list[float] = []
    for index, values in enumerate(signals.unbind(1)):
        low.append(float(values.min()))
        high.append(float(values.max()))
        if binary[index]:
            share = float(values.mean())
            weights.append(min(LARGEST_WEIGHT, 1 / _entropy(share)) if 0 < share < 1 else 0.0)
            start.append(_logit(share))
        elif low[-1] == high[-1]:
            weights.append(0.0)
            start += [0.0] * len(LEVELS)
        else:
            unit = (values - low[-1]) / (high[-1] - low[-1])
            fixed = unit[:MOST_SORTED].quantile(unit.new_tensor(LEVELS))
            loss = float(pinball(fixed, unit.unsqueeze(1)).mean())
            weights.append(min(LARGEST_WEIGHT, 1 / max(1e-6, loss)))
            start += [float(fixed[0]), *fixed.diff().clamp_min(1e-3).expm1().log().tolist()]
    share = float(left.float().mean())
    leave = min(LARGEST_WEIGHT, 1 / _entropy(share)) if 0 < share < 1 else 0.0
    return SignalKinds(binary, tuple(low), tuple(high), tuple(weights), leave, tuple(start), _logit(share))


def _entropy(share: float) -> float:
    p = torch.tensor(share, dtype=torch.float64)
    return float(-(p * p.log() + (1 - p) * (1 - p).log()))


def _logit(share: float) -> float:
    return float(torch.tensor(share).clamp(1e-4, 1 - 1e-4).logit())


def pinball(quantiles: Tensor, values: Tensor) -> Tensor:
    """The loss (..., Q) of ``quantiles`` (..., Q) at LEVELS for ``values`` (..., 1)."""
    level, above = quantiles.new_tensor(LEVELS), values - quantiles
    return torch.maximum(level * above, (level - 1) * above)


class SignalOutputs:
    """The outputs (..., O) of a network, read as the distributions of S signals."""

    def __init__(self, kinds: SignalKinds, outputs: Tensor) -> None:
        self.kinds, self.outputs = kinds, outputs
        self.parts = outputs.split(kinds.output_sizes, -1)

    def loss(self, values: Tensor) -> Tensor:
        """(..., S): the weighted loss of each signal for ``values`` (..., S) in their own units."""
        kinds, losses = self.kinds, []
        for index, output in enumerate(self.parts):
            y = values[..., index : index + 1]
            if kinds.binary[index]:
                loss = nn.functional.binary_cross_entropy_with_logits(output, y, reduction="none").squeeze(-1)
            else:
                unit = (y - kinds.low[index]) / max(kinds.high[index] - kinds.low[index], 1e-12)
                loss = pinball(_quantiles(output), unit).mean(-1)
            losses.append(kinds.weights[index] * loss)
        return torch.stack(losses, -1)

    def quantiles(self, index: int) -> Tensor:
        """(..., Q): the quantiles at LEVELS of the signal ``index``, in its own units."""
        low, high = self.kinds.low[index], self.kinds.high[index]
        return low + (high - low) * _quantiles(self.parts[index]).clamp(0, 1)

    def probability(self, index: int) -> Tensor:
        """(...): the probability of a binary signal."""
        if self.kinds.low[index] == self.kinds.high[index]:
            return torch.full_like(self.parts[index][..., 0], self.kinds.low[index])
        probability: Tensor = self.parts[index][..., 0].sigmoid()
        return probability

    def expected(self) -> Tensor:
        """(..., S): the mean of each signal."""
        means = [
            self.probability(index) if one else self.quantiles(index) @ _mean_weights(self.parts[index])
            for index, one in enumerate(self.kinds.binary)
        ]
        return torch.stack(means, -1)

    def at(self, chance: Tensor) -> Tensor:
        """(..., S): the value of each signal where ``chance`` (..., S), uniform in [0, 1), is its noise."""
        signals = []
        for index, one in enumerate(self.kinds.binary):
            u = chance[..., index]
            if one:
                signals.append((u < self.probability(index)).float())
                continue
            quantiles, levels = self.quantiles(index), u.new_tensor(LEVELS)
            after = torch.searchsorted(levels, u.contiguous()).clamp(1, len(LEVELS) - 1).unsqueeze(-1)
            low, high = levels[after - 1].squeeze(-1), levels[after].squeeze(-1)
            share = ((u - low) / (high - low)).clamp(0, 1)
            below, above = (quantiles.gather(-1, level).squeeze(-1) for level in (after - 1, after))
            signals.append(below + share * (above - below))
        return torch.stack(signals, -1)


def _quantiles(outputs: Tensor) -> Tensor:
    """(..., Q) ascending: the first output, and the sum of positive steps from there."""
    first, steps = outputs[..., :1], nn.functional.softplus(outputs[..., 1:])
    return torch.cat([first, first + steps.cumsum(-1)], -1)


def _mean_weights(like: Tensor) -> Tensor:
    """(Q,): the weights of the quantiles in the mean of their distribution."""
    levels = like.new_tensor((0.0, *LEVELS, 1.0))
    middle = (levels[1:-1] - levels[:-2]) / 2 + (levels[2:] - levels[1:-1]) / 2
    middle[0] += levels[1] / 2  # constant beyond the outermost levels
    middle[-1] += (1 - levels[-2]) / 2
    return middle
