"""`mips` and `offcem` of a policy on a log of single decisions: clusters of items, and their weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.decisions.transitions import observations
from recsys_rl.ope.bandit import Decisions
from recsys_rl.ope.clustered import mips, offcem
from recsys_rl.ope.judging import Terms
from recsys_rl.ope.logged import Prepared, Probabilities

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
    found = torch.full((len(points),), -1)
    for _ in range(ROUNDS):
        before = found
        found = torch.cat([torch.cdist(part, centres).argmin(1) for part in points.split(BLOCK)])
        if torch.equal(found, before):
            break
        count = found.bincount(minlength=len(centres)).unsqueeze(1)
        sums = torch.zeros_like(centres).index_add_(0, found, points)
        centres = torch.where(count > 0, sums / count.clamp_min(1), centres)
    return found


def _distance(points: Tensor, centre: Tensor) -> Tensor:
    """(I,): squared distance to the one centre (1, D)."""
    found: Tensor = ((points - centre) ** 2).sum(1)
    return found


@dataclass(frozen=True)
class ClusterBench:
    """The clusters of `mips` and `offcem`, with the logger's probability of each, for all policies."""

    prepared: Prepared
    clusters: Tensor  # (I,) int64
    logging: Tensor  # (E, G) float64: pi_b of each cluster

    @classmethod
    def make(cls, prepared: Prepared, clusters: Tensor, logging: Probabilities) -> ClusterBench:
        return cls(prepared, clusters, shares(prepared, clusters, logging))

    def terms(self, policy: Probabilities, decisions: Decisions) -> dict[str, Terms]:
        """``decisions`` in the order of the log's rows; `offcem` needs their reward model."""
        mine = shares(self.prepared, self.clusters, policy)  # (E, G)
        at = self.clusters[self.prepared.log.items]  # (E, 1)
        w = (mine.gather(1, at) / self.logging.gather(1, at)).squeeze(1)
        lost = float(torch.where(self.logging > 0, 0.0, mine).sum(1).mean())
        found = {"mips": Terms(mips(decisions, w), w, lost)}
        if decisions.q is not None:
            found["offcem"] = Terms(offcem(decisions, w), w, lost)
        return found


def shares(prepared: Prepared, clusters: Tensor, policy: Probabilities) -> Tensor:
    """(E, G) float64: the probability of each cluster under the policy."""
    log = prepared.log
    found = torch.zeros(log.num_rows, int(clusters.max()) + 1, dtype=torch.float64)
    for rows, obs in observations(log, prepared.catalogue):
        found[rows] = found[rows].index_add_(1, clusters, policy(rows, obs))
    return found
