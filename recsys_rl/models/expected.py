"""The expected reward of each item, learned beside the policy from the rewards of the items shown.

With two towers of its own on the inputs x of the policy's hidden layers, and the logistic function s::

    b_i = two towers(relu(x W + c), x)_i        beta_i = middle + span (s(b_i) - 1/2)
    loss = mean (mean_k beta_(shown k) - (r - mean) / deviation)^2

with mean and deviation of the rewards r of a rollout, or of the latest minibatches of a log, over all
processes. Of a slate, the mean of its items' betas is compared with its reward. Most answers have two ends,
as a share that is watched has; middle and span are learned, so a reward without ends has a span that grows.
A feed ranks by beta. Here the b_i are inputs of the head (curves.py). This loss reaches no other weight, and
the policy's loss does not reach these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from recsys_rl.models.encoders import Linear
from recsys_rl.models.features import SplitFeatures
from recsys_rl.models.next_signals import Entries
from recsys_rl.models.towers import RATE, TwoTowers

HIDDEN = 32
HORIZON = 1000
"""Minibatches of a log over which mean and deviation of its rewards are taken."""
Average = Callable[[Tensor], None] | None


class ExpectedReward(nn.Module):
    """beta of items: by how many deviations their reward is expected to lie above the mean."""

    scale: Tensor
    seen: Tensor

    def __init__(
        self, num_inputs: int, num_blocks: int, num_item_features: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.hidden = Linear(num_inputs, HIDDEN, 2**0.5, generator)
        self.towers = TwoTowers(HIDDEN, num_blocks, num_item_features, generator)
        self.span = nn.Parameter(torch.tensor([0.0, 4.0]) / RATE)  # at first beta = b for small b
        self.register_buffer("scale", torch.tensor([0.0, 1.0]))  # mean and deviation of the latest rewards
        # Of the minibatches: means of the rewards and of their squares, and the number of minibatches.
        self.register_buffer("seen", torch.zeros(3, dtype=torch.float64))

    def query(self, inputs: Tensor, blocks: Sequence[Tensor]) -> Tensor:
        """The query of the towers for N users, (N, F_i + tower)."""
        hidden = self.hidden(inputs.detach()).relu_()
        return self.towers.user(self.towers.last(hidden), [block.detach() for block in blocks])

    def logits(self, query: Tensor, items: Tensor | tuple[Tensor, ...]) -> Tensor:
        """The b (N, A) of all items (I, F_i), or of each row's own items in parts (N, A, size)."""
        towers = self.towers
        return towers.of_all(query, items) if isinstance(items, Tensor) else towers.of_each(query, items)

    def of(self, query: Tensor, items: Tensor | SplitFeatures, index: Tensor) -> Tensor:
        """beta (N, C) of the items ``index`` (N, C)."""
        return self.answers(self.towers.of_few(query, items[index]))

    def answers(self, logits: Tensor) -> Tensor:
        """beta from the towers' scores b: middle + span (s(b) - 1/2)."""
        middle, span = (RATE * self.span).unbind()
        return torch.addcmul(middle - span / 2, span, logits.sigmoid())

    def loss(self, query: Tensor, items: Tensor | SplitFeatures, shown: Tensor, rewards: Tensor) -> Tensor:
        """The loss, a scalar, of the items ``shown`` (N, K) with the standardised ``rewards`` (N,)."""
        loss: Tensor = (self.of(query, items, shown).mean(1) - rewards).square().mean()
        return loss

    @torch.no_grad()
    def standardise(self, rewards: Tensor, average: Average = None, minibatch: bool = False) -> Tensor:
        """``rewards`` (any shape) by their mean and deviation, which are kept; all 0 if they don't vary.

        Args:
            average: replaces a tensor in place by its mean over all processes of the run.
            minibatch: take mean and deviation over the latest HORIZON minibatches, as one may hold no click.
        """
        known = rewards.double()
        moments = torch.stack([known.mean(), known.square().mean()])
        if average is not None:
            average(moments)
        if minibatch:
            self.seen[2] += 1
            self.seen[:2] += (moments - self.seen[:2]) / self.seen[2].clamp_max(HORIZON)
            moments = self.seen[:2]
        mean = moments[0]
        self.scale.copy_(torch.stack([mean, (moments[1] - mean.square()).clamp_min(0).sqrt()]))
        return ((known - mean) / self.scale[1].clamp_min(1e-6)).to(rewards.dtype)

    def in_units_of_reward(self, beta: Tensor) -> Tensor:
        """The expected reward itself."""
        return self.scale[0] + self.scale[1] * beta


class Lessons(NamedTuple):
    """The targets of B steps."""

    shown: Tensor  # (B, K) int64
    rewards: Tensor | None  # (B,), standardised over the rollout; None with a head that expects none
    entries: Entries | None  # that the steps added to the history; None without a transformer

    def rows(self, index: Tensor) -> Lessons:
        """Copies of the rows ``index``."""
        return Lessons(
            self.shown.index_select(0, index),
            None if self.rewards is None else self.rewards.index_select(0, index),
            None if self.entries is None else self.entries.rows(index),
        )

    def split(self, size: int) -> list[Lessons]:
        """Views of ``size`` rows each; the last may have fewer."""
        shown = self.shown.split(size)
        rewards = [None] * len(shown) if self.rewards is None else self.rewards.split(size)
        entries = [None] * len(shown) if self.entries is None else self.entries.split(size)
        return [Lessons(*parts) for parts in zip(shown, rewards, entries, strict=True)]


class Beside(NamedTuple):
    """The losses of a minibatch's lessons."""

    loss: Tensor  # their weighted sum, a scalar, which the learner adds to its own
    figures: dict[str, Tensor]  # of the log, without a gradient


def means(every: Sequence[Beside]) -> dict[str, Tensor]:
    """The means of the figures over minibatches."""
    names = every[0].figures if every else {}
    return {name: torch.stack([beside.figures[name] for beside in every]).mean() for name in names}
