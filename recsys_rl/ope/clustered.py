"""Estimators for large catalogues: the weight of the item's cluster in place of the item's own.

An item's own weight is huge or zero where the catalogue is large. The weight of its cluster is unbiased if
the items of a cluster have the same reward, and it is wrong by their difference where the logger and the
policy prefer different items of a cluster.

Saito and Joachims 2022, "Off-policy evaluation for large action spaces via embeddings"; Saito, Ren and
Joachims 2023, "Off-policy evaluation for large action spaces via conjunct effect modeling".
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from recsys_rl.ope.bandit import Decisions, dr, ips


# w(c) = sum_{a in c} pi(a|x) / sum_{a in c} pi_b(a|x)
def cluster_ratios(policy: Tensor, logging: Tensor, clusters: Tensor) -> Tensor:
    """(E, G) float64: the weight of each cluster; infinite or NaN where the logger never shows it.

    Args:
        policy, logging: (E, A) probabilities of all items under both policies.
        clusters: (A,) int64, the cluster (or the cell of the embedding) of each item, 0..G-1.
    """
    number = int(clusters.max()) + 1
    mine, theirs = (
        torch.zeros(len(x), number, dtype=torch.float64).index_add_(1, clusters, x.double())
        for x in (policy, logging)
    )
    return mine / theirs


def cluster_weights(policy: Tensor, logging: Tensor, clusters: Tensor, items: Tensor) -> Tensor:
    """(E,) float64: the weight of the cluster of the logged ``items`` (E,); see ``cluster_ratios``."""
    return cluster_ratios(policy, logging, clusters).gather(1, clusters[items].unsqueeze(1)).squeeze(1)


# w(c) r
def mips(log: Decisions, weights: Tensor) -> Tensor:
    """``weights`` (E,) are ``cluster_weights``."""
    return ips(replace(log, weights=weights))


# v + w(c) (r - q(x, a)): the model has to be right only about differences within a cluster
def offcem(log: Decisions, weights: Tensor) -> Tensor:
    """``weights`` (E,) are ``cluster_weights``."""
    return dr(replace(log, weights=weights))
