"""The exposure of creators under a policy: the streams of limits, and the Gini coefficient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recsys_rl.experience.rollout import Sessions
from recsys_rl.objective.limit_streams import EARLY, creators_of, groups
from recsys_rl.types import Catalogue


def exposure(sessions: Sessions, catalogue: Catalogue) -> dict[str, Any]:
    """The columns of one row of the table.

    Returns: ``limit_streams`` {name: mean}, as limits measure them (objective/limit_streams.py), and
    ``creator_gini``, the Gini coefficient of the times that each creator was shown, missing without a
    catalogue. Where items have no creators, each item counts as a creator of its own.
    """
    items, means = sessions.items.to(catalogue.popularity.device), {}  # (T, N, K)
    for name, group in groups(catalogue).items():
        amounts, bases = group.count(items)
        means[name] = (amounts.double().sum() / bases.double().sum()).item()
    early = sessions.left if sessions.left_early is None else sessions.left_early
    means[EARLY] = early.double().mean().item()
    if not catalogue.num_items:
        return {"limit_streams": means}
    creators = creators_of(catalogue)
    shown = creators[items[items >= 0]]
    counts = shown[shown >= 0].bincount(minlength=int(creators.max()) + 1)
    return {"limit_streams": means, "creator_gini": gini(counts)}


def gini(counts: Tensor) -> float:
    """The Gini coefficient of counts (n,): 0 if all are equal, 1 - 1/n if one has everything; NaN of zeros.

    With x ascending it is sum_i (2 i - n - 1) x_i / (n sum_i x_i).
    """
    x = counts.double().sort().values
    n = len(x)
    ranks = 2 * torch.arange(1, n + 1, dtype=x.dtype, device=x.device) - n - 1
    return ((ranks * x).sum() / (n * x.sum())).item()
