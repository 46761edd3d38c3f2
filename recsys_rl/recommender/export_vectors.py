"""Write the vectors of a policy's items and users, and the fold-in of new users, as a NumPy file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from recsys_rl.data import bias
from recsys_rl.data.embeddings import ALPHA, REGULARIZATION, item_factors
from recsys_rl.errors import UserError
from recsys_rl.types import World
from recsys_rl.utils.files import check_writable


def check_vectors(path: Path) -> None:
    """Raise UserError unless an .npz file can be written to ``path``."""
    if path.suffix.lower() != ".npz":
        raise UserError(f"--vectors {path} is to be a file of NumPy: end its name with .npz.")
    check_writable(path, "--vectors")


def file_of_vectors(world: World) -> bytes:
    """The content of an .npz file with these arrays.

    ``item_ids`` (I,) and ``item_vectors`` (I, D), ``user_ids`` (U,) and ``user_vectors`` (U, D): what the
    policy knows of them. For a new user (data/embeddings.py): ``item_factors`` (I, F), ``gram`` (F, F), and
    the numbers ``alpha``, ``regularization`` and ``popularity_share`` (data/bias.py; F is D - 1 where it is
    above 0). Ids are int64, or text where the data has text. The tastes, which only the simulator knows, are
    not written.
    """
    catalogue, population = world
    factors, gram = item_factors(catalogue)
    file = io.BytesIO()
    np.savez(
        file,
        item_ids=np.array([*catalogue.item_names] or catalogue.item_ids.numpy()),
        item_vectors=catalogue.embedding.numpy(),
        user_ids=np.array([*population.user_names] or population.user_ids.numpy()),
        user_vectors=population.profile.numpy(),
        item_factors=factors.astype(np.float32),
        gram=factors.T @ factors if gram is None else gram,
        alpha=ALPHA,
        regularization=REGULARIZATION,
        popularity_share=bias.share_of(catalogue),
    )
    return file.getvalue()
