"""The features of items in two tables, so that one of them can be a memory-mapped file."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding as rows_of  # several times as fast as table[index]


class SplitFeatures:
    """Item features in two tables. The embedding is not copied: ``items[index]`` joins only these rows."""

    def __init__(self, embedding: Tensor, columns: Tensor) -> None:
        """``embedding`` (I, D), ``columns`` (I, G + X + 4), as ``item_columns`` makes them."""
        self.embedding = embedding
        self.columns = columns

    @property
    def num_dims(self) -> int:
        return self.embedding.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """(I, F_i), the shape of the joined features, which are never made as a whole."""
        return self.embedding.shape[0], self.embedding.shape[1] + self.columns.shape[1]

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Rows (..., F_i) of an index (...) or a slice."""
        if isinstance(index, slice):
            return torch.cat([self.embedding[index], self.columns[index]], -1)
        return torch.cat(feature_parts(self, index), -1)


def features_of(items: Tensor | SplitFeatures, index: Tensor) -> Tensor:
    """The features (..., F_i) of the items ``index`` (...)."""
    return rows_of(index, items) if isinstance(items, Tensor) else items[index]


def feature_parts(items: Tensor | SplitFeatures, index: Tensor) -> tuple[Tensor, ...]:
    """The features of ``index`` (...) in parts (..., size). The sizes add up to F_i."""
    tables = (items,) if isinstance(items, Tensor) else (items.embedding, items.columns)
    return tuple(rows_of(index, table) for table in tables)
