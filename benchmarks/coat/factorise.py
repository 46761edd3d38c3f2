"""A whole matrix of ratings from some of its cells: matrix factorisation with biases.

With the known ratings K, their mean m, biases b_u and c_i, and factors p_u, q_i of D numbers (Koren, Bell and
Volinsky 2009, "Matrix factorization techniques for recommender systems", IEEE Computer 42(8), equation 4)::

    rating_ui = m + b_u + c_i + p_u . q_i
    minimise  sum over K of (rating - estimate)^2
              + BIAS_PENALTY (|b|^2 + |c|^2) + FACTOR_PENALTY (|p|^2 + |q|^2)

by alternating least squares: b, c, all p and all q in turn, each with the others fixed. The problem has many
solutions, and the random first factors decide which one is found.

Estimates shrink: users of the estimate are more alike than people are. ``draw_users`` draws the factors of
each user from their posterior, given all else and normal noise of variance v. That is the sum of the squared
errors of the fit over the number of known ratings less the fitted weights of users' factors (the trace of
their ridge) and of all biases. The items' factors are not counted, so v is somewhat too small::

    p_u ~ N(estimate of p_u, v (Q_u^T Q_u + FACTOR_PENALTY I)^-1)        with Q_u the items that u has rated
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MOST_CELLS = 2**28
"""Largest matrix of ratings or distances, in cells."""
# Chosen by the error on a fifth of the known ratings of Coat, the choices 2, 5, 10 and 2, 5, 10.
FACTOR_PENALTY = 5.0
BIAS_PENALTY = 2.0
ITERATIONS = 10
FIRST = 0.1  # standard deviation of the first factors
_DRAW = 1_000_003  # added to the seed for the stream of ``draw_users``


class Factorised(NamedTuple):
    ratings: Tensor  # (U, I) float32: the estimate of each cell, within the range of the fitted ratings
    users: Tensor  # (U, D) float32: p
    items: Tensor  # (I, D) float32: q


def factorise(
    ratings: Tensor, known: Tensor, size: int, seed: int, train: Tensor | None = None
) -> Factorised:
    """Fit ``ratings`` (U, I) at the ``known`` cells (U, I) bool, with factors of ``size`` numbers.

    With ``train``, rows of users, the mean and all that is of items are fitted to these users alone. The
    others are then folded in: the same steps for their biases and factors, with the items fixed.

    Users and items without a known rating have biases and factors of zero. Raises ValueError if no rating is
    known.
    """
    everyone, everywhere = ratings, known
    if train is not None:
        ratings, known = ratings[train], known[train]
    if not bool(known.any()):
        raise ValueError("no rating is known")
    there = known.double()  # (U, I)
    mean = ratings[known].double().mean()
    values = (ratings.double() - mean) * there  # (U, I)
    noise = torch.Generator().manual_seed(seed)
    users, items = (
        FIRST * torch.randn(count, size, generator=noise, dtype=torch.float64) for count in ratings.shape
    )
    of_users, of_items = values.new_zeros(len(users), 1), values.new_zeros(1, len(items))
    for _ in range(ITERATIONS):
        product = users @ items.T
        of_users = _bias(values - (product + of_items) * there, there, 1)
        of_items = _bias(values - (product + of_users) * there, there, 0)
        rest = values - (of_users + of_items) * there
        users = _factors(rest, there, items)
        items = _factors(rest.T, there.T, users)
    low, high = ratings[known].min(), ratings[known].max()
    if train is not None:
        there = everywhere.double()
        values = (everyone.double() - mean - of_items) * there
        fitted, users = users, values.new_zeros(len(values), size)
        fitted_biases, of_users = of_users, values.new_zeros(len(values), 1)
        for _ in range(ITERATIONS):
            of_users = _bias(values - users @ items.T * there, there, 1)
            users = _factors(values - of_users * there, there, items)
        users[train], of_users[train] = fitted, fitted_biases
    estimated = (mean + of_users + of_items + users @ items.T).float().clamp(low, high)
    return Factorised(estimated, users.float(), items.float())


def draw_users(factorised: Factorised, ratings: Tensor, known: Tensor, seed: int) -> Tensor:
    """Ratings (U, I) of users with factors from their posterior, given ``found``, the fit of ``ratings``.

    They lie within the range of the known ratings.
    """
    there, items = known.double(), factorised.items.double()  # (U, I), (I, D)
    gram = _gram(there, items)  # (U, D, D)
    spread = torch.linalg.inv(gram + FACTOR_PENALTY * torch.eye(items.shape[1], dtype=gram.dtype))
    weights = (spread * gram.mT).sum() + len(known) + known.shape[1]  # fitted: of users' factors, biases
    error = (ratings - factorised.ratings)[known].double().square().sum()
    variance = error / (known.sum() - weights).clamp_min(1)
    noise = torch.Generator().manual_seed(seed + _DRAW)
    drawn = torch.randn(*factorised.users.shape, 1, generator=noise, dtype=torch.float64)  # (U, D, 1)
    moved = (torch.linalg.cholesky(spread) @ drawn).squeeze(2) * variance.sqrt()  # (U, D)
    low, high = ratings[known].min(), ratings[known].max()
    drawn_ratings: Tensor = (factorised.ratings + (moved @ items.T).float()).clamp(low, high)
    return drawn_ratings


def _bias(rest: Tensor, there: Tensor, axis: int) -> Tensor:
    """The ridge estimate of a bias for each row (axis 1) or column (axis 0), from ``rest`` (U, I)."""
    bias: Tensor = rest.sum(axis, keepdim=True) / (there.sum(axis, keepdim=True) + BIAS_PENALTY)
    return bias


def _factors(rest: Tensor, there: Tensor, others: Tensor) -> Tensor:
    """The ridge regression of each row of ``rest`` (n, m) on ``others`` (m, D): (n, D)."""
    gram = _gram(there, others)  # (n, D, D)
    gram += FACTOR_PENALTY * torch.eye(others.shape[1], dtype=gram.dtype)
    factors: Tensor = torch.linalg.solve(gram, rest @ others)
    return factors


def _gram(there: Tensor, others: Tensor) -> Tensor:
    """For each row of ``there`` (n, m), 0 or 1, the sum of x x^T over its rows x of ``others`` (m, D)."""
    squares = (others.unsqueeze(2) * others.unsqueeze(1)).flatten(1)  # (m, D D)
    products: Tensor = (there @ squares).unflatten(1, (others.shape[1],) * 2)
    return products
