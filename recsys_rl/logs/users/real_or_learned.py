"""A classifier that is to tell real sessions from those of learned users."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys_rl.logs.users.session_table import SessionTable
from recsys_rl.types import World

FOLDS, STEPS = 2, 300


def auc(scores: Tensor, positive: Tensor) -> float | None:
    """The area under the ROC curve: how often a positive row has a higher score (R,) than another one.

    Ties count one half. None if all rows are of one kind.
    """
    count = int(positive.sum())
    if not 0 < count < len(positive):
        return None
    _, index, counts = scores.double().unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0)
    ranks = (last - (counts - 1) / 2.0)[index]  # (R,): mean rank of ties, from 1
    total = float(ranks[positive].sum())
    return (total - count * (count + 1) / 2) / (count * (len(positive) - count))


def classifier_auc(real: SessionTable, learned: Tensor, world: World) -> float:
    """The AUC of a logistic regression, of sessions that it was not fitted on.

    It sees of each signal the mean, the deviation, the first and the last, the change from a step to the
    next, the product of neighbours, and that with the items' popularity and quality; and their squares.

    Args:
        learned: (B, T, K, S) the answers of learned users to the items of the sessions ``real``.
    """
    x = torch.cat([_numbers(real, real.signals, world), _numbers(real, learned, world)])
    y = torch.arange(2).repeat_interleave(real.num_sessions)
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-6)
    x = torch.cat([x, x**2], 1).clamp(-10, 10)
    # Both sessions with the same items are in the same fold.
    folds = torch.randperm(real.num_sessions, generator=torch.Generator().manual_seed(0)) % FOLDS
    folds, scores = folds.repeat(2), torch.zeros(len(y))
    for fold in range(FOLDS):
        mine = folds == fold
        scores[mine] = _fitted(x[~mine], y[~mine].float(), x[mine])
    area = auc(scores, y == 0)
    return 0.5 if area is None else max(area, 1 - area)


def _fitted(x: Tensor, y: Tensor, other: Tensor) -> Tensor:
    """(R',): the scores of the rows ``other`` by a logistic regression of y (R,) on x (R, F)."""
    weights, bias = torch.zeros(x.shape[1], requires_grad=True), torch.zeros((), requires_grad=True)
    optimizer = torch.optim.Adam([weights, bias], 0.03, weight_decay=1e-3)
    for _ in range(STEPS):
        loss = nn.functional.binary_cross_entropy_with_logits(x @ weights + bias, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (other @ weights + bias).detach()


def _numbers(table: SessionTable, signals: Tensor, world: World) -> Tensor:
    """(B, F): numbers about the ``signals`` (B, T, K, S) of each session."""
    shown = table.shown.unsqueeze(-1)  # (B, T, K, 1)
    count = shown.sum(2).clamp_min(1)
    steps = (signals * shown).sum(2) / count  # (B, T, S)
    there = table.under_way.unsqueeze(-1)
    number = table.lengths.view(-1, 1)
    mean = (steps * there).sum(1) / number  # (B, S)
    rest = (steps - mean.unsqueeze(1)) * there
    last = steps[torch.arange(len(steps)), table.lengths - 1]
    pairs = (rest[:, 1:] * rest[:, :-1]).sum(1) / number
    columns = [mean, (rest**2).sum(1) / number, steps[:, 0], last, pairs]
    columns.append(((steps[:, 1:] - steps[:, :-1]).abs() * there[:, 1:]).sum(1) / number)
    catalogue, items = world.catalogue, table.items.clamp_min(0)
    for values in ((catalogue.popularity + 1e-3).log(), catalogue.quality):
        of_items = ((values - values.mean())[items].unsqueeze(-1) * shown).sum(2) / count  # (B, T, 1)
        columns.append((rest * of_items).sum(1) / number)
    return torch.cat(columns, 1)
