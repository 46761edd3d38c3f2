"""Turn the embeddings of new data into the axes of an earlier catalogue.

A matrix factorisation fixes its vectors only up to a rotation: all products stay the same. A policy that was
trained on the earlier vectors needs the earlier axes. With A and B the vectors of the shared items, the
rotation that minimises ||B R - A|| is R = U Wᵀ, where U S Wᵀ is the singular value decomposition of BᵀA
(Schoenemann 1966, "A generalized solution of the orthogonal Procrustes problem").
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from recsys_rl.data import bias
from recsys_rl.types import Catalogue, UserError, World


def rotation(old: Tensor, new: Tensor) -> Tensor:
    """R (D, D) that minimises ||new R - old|| for vectors (n, D) of the same items."""
    left, _, right = torch.linalg.svd(new.double().T @ old.double())
    product: Tensor = left @ right
    return product


def align(world: World, before: Catalogue) -> tuple[World, str]:
    """The world in the axes of ``before``, and a note. A world without factors stays as it is.

    Raises UserError if the catalogues share fewer items than the embedding has numbers, or if the
    embeddings differ in size.
    """
    catalogue, population = world
    if not catalogue.factors or not before.factors or torch.equal(catalogue.embedding, before.embedding):
        return world, ""
    old = {before.id_of(row): row for row in range(before.num_items)}
    rows = [(row, old[id_]) for row in range(catalogue.num_items) if (id_ := catalogue.id_of(row)) in old]
    size = catalogue.embedding.shape[1]
    if before.embedding.shape[1] != size:
        raise UserError(
            f"--init-from: its embeddings have {before.embedding.shape[1]} numbers, and those of this run "
            f"have {size}: give --embedding-dim {before.embedding.shape[1]}, or train without --init-from."
        )
    shares = [bias.share_of(items) for items in (before, catalogue)]
    if shares[0] != shares[1]:
        raise UserError(
            f"--init-from: its embeddings have a --popularity-share of {shares[0]:g}, and those of this run "
            f"of {shares[1]:g}: give the same, or train without --init-from."
        )
    if len(rows) < size:
        raise UserError(
            f"--init-from: its catalogue and this one share {len(rows)} items, and embeddings of {size} "
            "numbers need as many shared items to have the same axes: give a checkpoint of the same data, or "
            "train without --init-from."
        )
    here, there = (torch.tensor(side) for side in zip(*rows, strict=True))
    turned_part = slice(None, -1 if shares[0] else None)  # popularity stays what it is
    turn = rotation(before.embedding[there][:, turned_part], catalogue.embedding[here][:, turned_part])

    def turned(vectors: Tensor) -> Tensor:
        if not shares[0]:
            return (vectors.double() @ turn).float()
        return torch.cat([(vectors[:, :-1].double() @ turn).float(), vectors[:, -1:]], 1)

    catalogue = dataclasses.replace(
        catalogue,
        embedding=turned(catalogue.embedding),
        factors={**catalogue.factors, "gram": (turn.T @ catalogue.factors["gram"].double() @ turn).float()},
    )
    population = dataclasses.replace(
        population, taste=turned(population.taste), profile=turned(population.profile)
    )
    cosine = (catalogue.embedding[here] * before.embedding[there]).sum(1).mean()
    return World(catalogue, population), f"{len(rows):,} shared items, cosine {cosine:.2f} after rotation"
