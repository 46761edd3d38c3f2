"""The evidence of clusters of items: the weight of the logged item's cluster, for `mips` and `offcem`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.logs.ope.replay import Probabilities, ReplayedLog

ROUNDS = 25  # of k-means at most
BLOCK = 4096


def k_means(points: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """(I,) int64: the cluster of each of the ``points`` (I, D), 0 up to ``number`` - 1 at most.

    Lloyd's rounds from centres that are drawn as in Arthur and Vassilvitskii 2007 (k-means++).
    """
    centres = points[torch.randint(len(points), (1,), generator=generator)]
    nearest = _distance(points, centres)
    while len(centres) < number and float(nearest.max()) > 1e-12:
        pick = torch.multinomial(nearest, 1, generator=generator)
        centres = torch.cat([centres, points[pick]])
        nearest = torch.minimum(nearest, _distance(points, points[pick]))
    rank: Tensor = lloyd(points, centres).unique(return_inverse=True)[1]
    return rank


def lloyd(points: Tensor, centres: Tensor) -> Tensor:
    """(I,) int64: the centre, of those (G, D) given, that each point ends at. One without points stays."""
    nearest = torch.full((len(points),), -1)
    for _ in range(ROUNDS):
        before = nearest
        nearest = torch.cat([torch.cdist(block, centres).argmin(1) for block in points.split(BLOCK)])
        if torch.equal(nearest, before):
            break
        count = nearest.bincount(minlength=len(centres)).unsqueeze(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = torch.where(count > 0, sums / count.clamp_min(1), centres)
    return nearest


def _distance(points: Tensor, centre: Tensor) -> Tensor:
    """(I,): squared distance to the one centre (1, D)."""
    distance: Tensor = ((points - centre) ** 2).sum(1)
    return distance


@dataclass(frozen=True)
class ClusterLog:
    """The clusters of a log of single decisions, with the logger's probability of each, for all policies."""

    log: ReplayedLog
    clusters: Tensor  # (I,) int64
    logging: Tensor  # (E, G) float64: pi_b of each cluster

    @classmethod
    def make(cls, log: ReplayedLog, clusters: Tensor, logging: Probabilities) -> ClusterLog:
        return cls(log, clusters, shares(log, clusters, logging))

    @property
    def number(self) -> int:
        """G"""
        return self.logging.shape[1]

    # w(c) = sum_{a in c} pi(a|x) / sum_{a in c} pi_b(a|x)
    def weights(self, policy: Probabilities) -> tuple[Tensor, float]:
        """The weight (E,) of the cluster of each logged item; the policy's share of clusters never shown."""
        mine = shares(self.log, self.clusters, policy)  # (E, G)
        at = self.clusters[self.log.log.items]  # (E, 1)
        lost = float(torch.where(self.logging > 0, 0.0, mine).sum(1).mean())
        return (mine.gather(1, at) / self.logging.gather(1, at)).squeeze(1), lost


def shares(log: ReplayedLog, clusters: Tensor, policy: Probabilities) -> Tensor:
    """(E, G) float64: the probability of each cluster under the policy."""
    return log.of_rows(lambda at, obs: by_cluster(policy(at, obs), clusters))


def by_cluster(probabilities: Tensor, clusters: Tensor) -> Tensor:
    """(B, G) float64: the probability of each cluster, from those of the items (B, I)."""
    sums = torch.zeros(len(probabilities), int(clusters.max()) + 1, dtype=torch.float64)
    return sums.index_add_(1, clusters, probabilities.double())
