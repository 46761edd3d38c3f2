"""Popularity as a part of the affinity: one number of each embedding.

The product of unit vectors of a matrix factorisation has lost the popularity of an item, which lies in the
norm of its factor. In some logs (a store, visits of web pages) popularity says more about the next event than
taste. With z_i the standardised log of the likes of item i, s in (0, 1) the popularity's share, and e_i and u
the unit vectors of item and user (D - 1), the vectors here are

    [sqrt(1 - t_i^2) e_i, t_i]   with t_i = tanh(0.3 z_i)     and     [sqrt(1 - s) u, sqrt(s)],

of norm 1 again; their product is the affinity sqrt(1 - s) sqrt(1 - t_i^2) u . e_i + sqrt(s) t_i.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_rl.types import Catalogue

SLOPE = 0.3  # on a web log, a store's and lecture ratings 0.1 .. 0.5 ranked alike, at a share of its own each


def places(likes: NDArray[np.float64]) -> Tensor:
    """t (I,) float64 of items with these numbers of ``likes`` (I,), above 0; 0 if all have the same."""
    z = np.log(likes)
    z = (z - z.mean()) / max(z.std(), 1e-12)
    return torch.from_numpy(np.tanh(SLOPE * z))


def of_items(unit: Tensor, t: Tensor) -> Tensor:
    """(I, D) float32: unit vectors of items (I, D - 1) with their popularity t (I,)."""
    t = t.double().unsqueeze(1)
    return torch.cat([(1 - t.square()).sqrt() * unit.double(), t], 1).float()


def of_users(unit: Tensor, share: float) -> Tensor:
    """(N, D) float32: unit vectors of users (N, D - 1) with popularity's share; unchanged if it is 0."""
    if not share:
        return unit
    scaled = (1 - share) ** 0.5 * unit.double()
    return torch.cat([scaled, scaled.new_full((len(scaled), 1), share**0.5)], 1).float()


def share_of(catalogue: Catalogue) -> float:
    """The share s of popularity in this catalogue's embeddings, 0 without one."""
    share = catalogue.factors.get("popularity_share")
    return 0.0 if share is None else float(share)


def without(embedding: Tensor) -> Tensor:
    """(I, D - 1): the unit vectors e_i in the embeddings (I, D) of ``of_items``."""
    t = embedding[:, -1:].double()
    return embedding[:, :-1].double() / (1 - t.square()).sqrt()
