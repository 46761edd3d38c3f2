"""Item and user embeddings from likes: alternating least squares on implicit feedback, and fold-in.

Source: Hu, Koren & Volinsky 2008, "Collaborative filtering for implicit feedback datasets". With
``y_i`` the factors of the items as rows of Y, the vector of a user who liked the set S is

    x = (YᵀY + (alpha - 1) sum_{i in S} y_i y_iᵀ + lambda I)^-1  alpha sum_{i in S} y_i      (their eq. 4)

A liked item has confidence ``alpha``, every other item has confidence 1. If a log has weights (plays,
seconds, purchases), the confidence is alpha w_ui, at least 1: w_ui is log(1 + the weight of all likes of the
pair), divided by its mean over the training users. Y is learned from training users only. The vector of each
user, training or held-out, is the solution of this equation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_rl.data import bias
from recsys_rl.types import Catalogue, InteractionLog

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# Chosen on MovieLens (small) by recall@20 on held-out users' later likes, benchmarks/embeddings.py. Recall is
# flat over lambda 3..20 and alpha 3..7. Weaker regularisation makes all users' vectors alike (mean cosine
# between two users 0.6 at lambda 1, 0.2 at 10), and a recommender can't learn personal tastes from them.
REGULARIZATION = 10.0
ALPHA = 5.0
ITERATIONS = 15
MIN_USER_LIKES = 5  # fewer likes than this say too little about a user's taste
_TINY = 1e-6  # the regularisation shrank a vector of this norm to zero: it has no direction

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Embeddings:
    """Learned vectors of the ``I`` kept items and ``U`` kept users, not scaled yet."""

    item_rows: Ints  # (I,) in the log
    item_likes: Ints  # (I,) likes by training users
    item_factors: Floats  # (I, D)
    user_rows: Ints  # (U,) in the log
    heldout: Bools  # (U,)
    taste: Floats  # (U, D) from all likes of the user
    profile: Floats  # (U, D) from the earlier likes
    earlier: csr_matrix  # (U, I) 0 or 1
    later: csr_matrix  # (U, I) 0 or 1
    gram: Floats  # (D, D): YᵀY over all items that learned a factor, kept or not


def learn_embeddings(
    log: InteractionLog,
    heldout: Bools,
    *,
    embedding_dim: int,
    like_threshold: float,
    min_item_likes: int,
    profile_fraction: float,
    seed: int,
) -> Embeddings:
    """Learn item factors from the likes of the users not in ``heldout`` (U,), and fold all users in.

    Items with at least ``min_item_likes`` likes by training users are kept, then users with at least
    ``MIN_USER_LIKES`` likes among these. A user's earlier likes are the first ``profile_fraction`` of
    them by time, rounded down, at least one (in a log without times, those first in the order that a hash of
    user and item draws). A held-out user has no influence on an item or on another
    user. A later like has no influence on a profile. The same arguments give the same bytes on one machine.
    """
    import implicit.cpu.als  # noqa: F401  (late: it is slow; here: threadpool_limits needs its BLAS loaded)
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    num_users, num_items = len(log.user_ids), len(log.item_ids)
    users, items = first_likes(log, like_threshold)
    trust = confidence(log, like_threshold, users, items, heldout)
    train_likes = np.bincount(items[~heldout[users]], minlength=num_items)
    item_rows = np.flatnonzero(train_likes >= max(1, min_item_likes))
    column = np.full(num_items, -1)
    column[item_rows] = np.arange(len(item_rows))
    known = column[items] >= 0
    users, items, trust = users[known], column[items[known]], trust[known]

    # One thread: sums over several threads have no fixed order, and such small solves gain nothing.
    with threadpool_limits(1, "blas"):
        likes = like_matrix(users, items, (num_users, len(item_rows)), trust)
        factors = learn_items(likes[np.flatnonzero(~heldout)], embedding_dim, seed)
        user_rows = np.flatnonzero(np.bincount(users, minlength=num_users) >= MIN_USER_LIKES)
        first = is_earlier(users, profile_fraction)
        earlier = like_matrix(users[first], items[first], likes.shape, trust[first])[user_rows]
        later = like_matrix(users[~first], items[~first], likes.shape)[user_rows]
        taste = fold_in(likes[user_rows], factors)
        profile = fold_in(earlier, factors)
    earlier.data[:] = 1

    item_ok, user_ok = points_somewhere(factors), points_somewhere(taste) & points_somewhere(profile)
    return Embeddings(
        item_rows=item_rows[item_ok],
        item_likes=train_likes[item_rows][item_ok],
        item_factors=factors[item_ok],
        user_rows=user_rows[user_ok],
        heldout=heldout[user_rows][user_ok],
        taste=taste[user_ok],
        profile=profile[user_ok],
        earlier=earlier[user_ok][:, item_ok],
        later=later[user_ok][:, item_ok],
        gram=factors.T @ factors,
    )


def first_likes(log: InteractionLog, like_threshold: float) -> tuple[Ints, Ints]:
    """Rows (users, items) of the likes by user, then time. Of repeated likes only the first counts."""
    liked = np.flatnonzero(log.ratings.numpy() >= like_threshold)
    users, items, times = (column.numpy()[liked] for column in (log.users, log.items, log.times))
    order = np.lexsort((times, users))  # a stable sort: events of one second keep the order of the log
    users, items = users[order], items[order]
    first = np.sort(np.unique(users * len(log.item_ids) + items, return_index=True)[1])
    return users[first], items[first]


def confidence(
    log: InteractionLog, like_threshold: float, users: Ints, items: Ints, heldout: Bools
) -> NDArray[np.float32]:
    """w of each pair of ``first_likes`` (the second equation at the top); 1 for a log without weights."""
    if log.weights is None or len(users) == 0:
        return np.ones(len(users), dtype=np.float32)
    liked = log.ratings.numpy() >= like_threshold
    pairs = (log.users.numpy() * len(log.item_ids) + log.items.numpy())[liked]
    known, pair = np.unique(pairs, return_inverse=True)
    total = np.log1p(np.bincount(pair, weights=log.weights.numpy()[liked].astype(np.float64)))
    own = total[np.searchsorted(known, users * len(log.item_ids) + items)]
    by_training = own[~heldout[users]]
    mean = by_training.mean() if len(by_training) else own.mean()
    return np.asarray(np.maximum(own / mean, 1 / ALPHA), dtype=np.float32)


def is_earlier(users: Ints, fraction: float) -> Bools:
    """True for the first floor(fraction * n) likes of each user, at least one; ordered by user and time."""
    counts = np.bincount(users) if len(users) else np.zeros(1, dtype=np.int64)
    rank = np.arange(len(users)) - (np.cumsum(counts) - counts)[users]
    # 1e-9: 0.29 * 100 is 28.999999999999996 in floating point and must count as 29.
    return np.asarray(rank < np.maximum(1, np.floor(fraction * counts + 1e-9))[users])


def like_matrix(
    users: Ints, items: Ints, shape: tuple[int, int], weights: NDArray[np.float32] | None = None
) -> csr_matrix:
    """(U, I) float32: the weight of a like, 1 without weights; 0 if the user did not like the item."""
    from scipy.sparse import csr_matrix  # its import takes time, and most commands need none

    values = np.ones(len(users), dtype=np.float32) if weights is None else weights
    return csr_matrix((values, (users, items)), shape=shape)


def learn_items(likes: csr_matrix, embedding_dim: int, seed: int) -> Floats:
    """Item factors (I, D) by alternating least squares on the likes (U, I) of the training users."""
    if 0 in likes.shape:
        return np.zeros((likes.shape[1], embedding_dim))
    from implicit.cpu.als import AlternatingLeastSquares

    # Name the CPU's class: the general one uses a GPU if there is one, and gives other bytes.
    model = AlternatingLeastSquares(
        factors=embedding_dim,
        regularization=REGULARIZATION,
        alpha=ALPHA,
        iterations=ITERATIONS,
        num_threads=1,
        random_state=seed,
    )
    model.fit(likes, show_progress=False)
    return np.asarray(model.item_factors, dtype=np.float64)


def fold_in(
    likes: csr_matrix,
    item_factors: Floats,
    regularization: float = REGULARIZATION,
    alpha: float = ALPHA,
    gram: Floats | None = None,
) -> Floats:
    """User vectors (N, D) from likes (N, I) and fixed item factors (I, D): the equation at the top.

    ``gram``: YᵀY (D, D) of all items, if ``item_factors`` has only some of them.
    """
    dim = item_factors.shape[1]
    shared = item_factors.T @ item_factors if gram is None else gram  # (D, D)
    shared = shared + regularization * np.eye(dim)
    vectors = np.zeros((likes.shape[0], dim))
    # Solve one user at a time: the (D, D) systems of a large dataset don't fit in memory together, and a
    # user's bits must not depend on the other users of a batch.
    for row, (start, end) in enumerate(zip(likes.indptr[:-1], likes.indptr[1:], strict=True)):
        order = np.argsort(likes.indices[start:end])
        liked = item_factors[likes.indices[start:end][order]]  # (n, D)
        trust = alpha * likes.data[start:end][order].astype(np.float64)[:, None]  # (n, 1)
        vectors[row] = np.linalg.solve(shared + ((trust - 1) * liked).T @ liked, (trust * liked).sum(axis=0))
    return vectors


def item_factors(catalogue: Catalogue) -> tuple[Floats, Floats | None]:
    """The item factors (I, D) of the matrix factorisation, and YᵀY (D, D) over all items that have one.

    A catalogue without factors, of made-up users, has its embeddings in their place, and None. D is one less
    than the size of the embeddings if these hold the popularity too.
    """
    embedding, known = catalogue.embedding.double(), catalogue.factors
    if not known:
        return embedding.numpy(), None
    if bias.share_of(catalogue):
        embedding = bias.without(embedding)
    return (known["norm"].double().unsqueeze(1) * embedding).numpy(), known["gram"].double().numpy()


def unit_rows(vectors: Any) -> Tensor:
    """Rows (N, D) scaled to Euclidean norm 1, as float32."""
    rows = torch.as_tensor(vectors, dtype=torch.float64)
    unit: Tensor = rows / rows.norm(dim=1, keepdim=True)
    return unit.float()


def user_vectors(catalogue: Catalogue, folded: Floats) -> Tensor:
    """The vectors (N, D) of users from those that ``fold_in`` gives with ``item_factors(catalogue)``."""
    return bias.of_users(unit_rows(folded), bias.share_of(catalogue))


def points_somewhere(vectors: Floats) -> Bools:
    """False (N,) for vectors (N, D) that the regularisation shrank to zero: they have no direction."""
    return np.asarray(np.linalg.norm(vectors, axis=1) > _TINY)
