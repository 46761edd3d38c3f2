"""A reward model of each item: against one large ridge regression, and on rewards that depend on both."""

from __future__ import annotations

import numpy as np
import torch

from recsys_rl.logs.ope.item_models import of_each_item
from recsys_rl.logs.ope.reward_model import ridge


def test_of_each_item_adds_a_ridge_of_residuals_to_the_common_ridge() -> None:
    """In NumPy, with the normal equations of each item written out."""
    draw = np.random.default_rng(0)
    x, item = draw.normal(size=(60, 3)), draw.integers(0, 4, 60)
    target = x[:, 0] * (item - 1) + item + draw.normal(size=60)
    features = torch.tensor(np.column_stack([x, item]))
    model = of_each_item(ridge(), [0, 2], 5)(features, torch.tensor(target))

    ones = np.column_stack([x, np.ones(60)])
    common = np.linalg.solve(ones.T @ ones + np.diag([1, 1, 1, 0]), ones.T @ target)
    rest = target - ones @ common
    expected = ones @ common
    for k in range(4):
        own = np.column_stack([x[:, [0, 2]], np.ones(60)])[item == k]
        expected[item == k] += own @ np.linalg.solve(own.T @ own + np.eye(3), own.T @ rest[item == k])
    np.testing.assert_allclose(model(features).numpy(), expected, rtol=1e-5, atol=1e-6)

    never = torch.tensor(np.column_stack([x[:5], np.full(5, 4)]))
    np.testing.assert_allclose(model(never).numpy(), ones[:5] @ common, rtol=1e-5, atol=1e-6)


def test_of_each_item_learns_the_best_item_of_a_context() -> None:
    draw = torch.Generator().manual_seed(0)
    mood, item = torch.randn(4_000, 1, generator=draw), torch.randint(2, (4_000, 1), generator=draw)
    target = ((mood > 0) == (item == 1)).double().squeeze(1)
    features = torch.cat([mood, item], 1)
    model = of_each_item(ridge(), [0], 2)(features, target)
    at = torch.tensor([[1.0, 1], [1.0, 0], [-1.0, 1], [-1.0, 0]])
    one, other, third, last = model(at).tolist()
    assert one - other > 0.5 and last - third > 0.5
    flat = ridge()(features, target)(at)
    assert float(flat.max() - flat.min()) < 0.1
