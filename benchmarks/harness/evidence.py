"""The evidence of estimators from the numbers of decisions, without a log and a policy."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_rl.logs.ope.estimators import Evidence
from recsys_rl.types import tree_map


def of_decisions(
    weights: Tensor, rewards: Tensor, q: Tensor | None = None, v: Tensor | None = None
) -> Evidence:
    """The evidence of E decisions of one step, from their numbers (E,): w, r, q(x, a) and V(x)."""
    q, v = (None if values is None else values.unsqueeze(1) for values in (q, v))
    alive = torch.ones(len(rewards), 1, dtype=torch.bool)
    return Evidence(weights.unsqueeze(1), rewards.unsqueeze(1), alive, 1.0, q, v)


def rows_at(log: Evidence, index: Tensor) -> Evidence:
    """The sessions at ``index`` (B,), one may be there several times."""
    return tree_map(lambda values: values[index], log)
