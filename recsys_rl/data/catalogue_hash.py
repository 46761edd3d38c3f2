"""The hash of a catalogue, by which a log, learned users and a checkpoint know the same items."""

from __future__ import annotations

from torch import Tensor

from recsys_rl.types import Catalogue, tensors_of
from recsys_rl.utils.tensor_cache import digest


def catalogue_hash(catalogue: Catalogue) -> str:
    """sha256 (hex) of the items: two catalogues with the same hash number the same items the same way."""
    tensors = named_for_a_hash(catalogue)
    if catalogue.table_sha256:  # the table of the embeddings may be huge, and has its own hash
        del tensors["embedding"]
    return digest({name: tensor.cpu() for name, tensor in tensors.items()}, catalogue.table_sha256)


def named_for_a_hash(catalogue: Catalogue) -> dict[str, Tensor]:
    """The tensors of a catalogue by the names that older logs have in their hashes."""
    once = {"attributes.genres": "genres", "attributes.year": "year"}
    return {once.get(name, name): tensor for name, tensor in tensors_of(catalogue).items()}
