"""Is a made world like its log? The embeddings and popularity rank the later likes of held-out users.

In a log without times these are likes that a hash of user and item drew.

A simulated user likes what lies near his vector. If these vectors rank what people liked later worse than
plain popularity does, the simulator rewards another taste than that of the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_rl.data import bias

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

K = 20  # items of a list
MOST_USERS = 1000  # held-out users of the check, and fewer in a large catalogue:
MOST_SCORES = 2 * 10**7
SHARES = (0.25, 0.5, 0.75)  # of popularity that are tried


def ndcg(scores: Tensor, seen: Tensor, relevant: Tensor, k: int = K) -> Tensor:
    """(N,) float64: NDCG@k of the rankings of I items by ``scores`` (N, I), without those ``seen``.

    ``seen`` and ``relevant`` (N, I) are bool, with a relevant item in each row. Items with equal scores have
    a fixed order that has nothing to do with their places in the catalogue.
    """
    k = min(k, scores.shape[1])
    order = torch.from_numpy(np.random.default_rng(0).permutation(scores.shape[1]))
    top = scores.masked_fill(seen, -torch.inf)[:, order].argsort(dim=1, descending=True, stable=True)[:, :k]
    hits = relevant[:, order].gather(1, top).double()
    gain = 1 / torch.arange(2, k + 2, dtype=torch.float64).log2()  # (k,)
    best = gain.cumsum(0)[relevant.sum(1).clamp_max(k) - 1]
    return (hits * gain).sum(1) / best


def check_world(
    unit_items: Tensor,
    unit_profiles: Tensor,
    share: float,
    likes: NDArray[np.int64],
    earlier: csr_matrix,
    later: csr_matrix,
    timed: bool,
) -> dict[str, Tensor]:
    """The check of ``Population.ranking``; empty if no held-out user has a later like.

    Args:
        unit_items: (I, D), and ``unit_profiles`` (U, D) of the held-out users, without popularity.
        share: of popularity in the embeddings (data/bias.py).
        likes: (I,), the training users' number of likes of each item.
        earlier: (U, I), the likes behind the profiles; ``later`` (U, I) those that are ranked.
        timed: whether they are later by the times of a log.

    Returns: ``users``, their number; ``embeddings`` and ``popularity``, the mean NDCG@20 of both rankings;
    ``error``, the standard error of the mean difference; and ``share`` and ``best``, the share of popularity
    in the embeddings (data/bias.py) that ranks best among SHARES, and its NDCG@20; without times also
    ``drawn``, 1. Scalars, float32.
    """
    most = max(50, min(MOST_USERS, MOST_SCORES // len(unit_items)))
    users = np.flatnonzero(later.getnnz(1) > 0)
    if not len(users):
        return {}
    users = np.sort(np.random.default_rng(0).permutation(users)[:most])
    seen, relevant = (torch.from_numpy(matrix[users].toarray() > 0) for matrix in (earlier, later))
    t = bias.places(likes.astype(np.float64))

    def with_share(share: float) -> Tensor:
        items = bias.of_items(unit_items, t) if share else unit_items
        return ndcg(bias.of_users(unit_profiles[users], share) @ items.T, seen, relevant)

    ours = with_share(share)
    theirs = ndcg(torch.from_numpy(likes).float().expand(len(users), -1), seen, relevant)
    tried = {other: with_share(other).mean().item() for other in SHARES}
    best = max(SHARES, key=lambda other: tried[other])
    ranking = {
        "users": len(users),
        "embeddings": ours.mean().item(),
        "popularity": theirs.mean().item(),
        "error": (ours - theirs).std().item() / len(users) ** 0.5 if len(users) > 1 else 1.0,
        "share": best,
        "best": tried[best],
        **({} if timed else {"drawn": 1.0}),
    }
    return {name: torch.tensor(value, dtype=torch.float32) for name, value in ranking.items()}


def about_check(ranking: Mapping[str, Tensor], share: float = 0.0) -> str:
    """The outcome of ``check_world`` in a sentence; "" without one.

    It has a warning if the embeddings lose, and names the share of popularity that ranks better.

    ``share``: share of popularity that the embeddings have already (``bias.share_of``).
    """
    if not ranking:
        return ""
    value = {name: float(number) for name, number in ranking.items()}
    ours, theirs = value["embeddings"], value["popularity"]
    people = f"{value['users']:,.0f} held-out {'user' if value['users'] == 1 else 'users'}"
    likes = f"the later likes of {people}"
    if "drawn" in value:
        likes = f"the likes of {people} that a hash drew, as the log has no times,"
    finding = f"the embeddings rank {likes} with NDCG@{K} {ours:.3f}, popularity with {theirs:.3f}"
    remedy = ""
    if not share and value["best"] > ours + 2 * value["error"]:
        remedy = f"; --popularity-share {value['share']:g} ranks them with {value['best']:.3f}"
    if ours - theirs > -2 * value["error"]:
        return finding + remedy
    return (
        f"warning: {finding}: the tastes of the simulated users are not those of the log, and returns say "
        "little about its people"
        + (remedy or "; more events, other --embedding-dim or --like-threshold may help")
    )
