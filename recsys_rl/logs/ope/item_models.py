"""A reward model with coefficients of each item, where nothing is known of the items that could be compared.

A linear model of one context and one constant for each item says that the same items are best for everybody.
Where items are known by their ids alone, each item also gets its own coefficients of the context, as in the
disjoint linear model of Li et al. (2010, arXiv:1003.0146). They are fitted to what the common model leaves,
and drawn to 0, so that an item with few rows has the answer of the common model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recsys_rl.logs.ope.reward_model import Fit, Predict, with_one

MOST_ITEMS = 256
"""Items up to which each has a model: one linear system of the context's size for each."""


# q(x, a) = common(x, a) + x b_a, b_a = argmin |x b_a - rest|^2 + strength |b_a|^2 over the rows of a
def of_each_item(common: Fit, own: Sequence[int], num_items: int, strength: float = 1.0) -> Fit:
    """``common``, and for each item the ridge of what it leaves.

    Args:
        common: fitted to all columns but the last, which is the item's row in the catalogue.
        own: the columns of which each item has coefficients of its own, beside a constant.
        num_items: I.
    """

    def fit(features: Tensor, targets: Tensor) -> Predict:
        shared = common(features[:, :-1], targets)
        rest = targets.double() - shared(features[:, :-1])  # (E,)
        x, item = with_one(features[:, own].double()), features[:, -1].long()
        size = x.shape[1]
        penalty = strength * torch.eye(size, dtype=torch.float64)
        beta = torch.zeros(num_items, size, dtype=torch.float64)
        for index in item.unique().tolist():
            mine = item == index
            beta[index] = torch.linalg.solve(x[mine].T @ x[mine] + penalty, x[mine].T @ rest[mine])

        def predict(rows: Tensor) -> Tensor:
            of_item = beta[rows[:, -1].long()]  # (B, F')
            return shared(rows[:, :-1]) + (with_one(rows[:, own].double()) * of_item).sum(1)

        return predict

    return fit
