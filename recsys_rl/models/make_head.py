"""The head that the settings name, built from the sizes of its network."""

from __future__ import annotations

import torch

from recsys_rl.models.candidates import CandidateHead
from recsys_rl.models.heads import DenseHead, GatedHead, PatternHead, TwoTowerHead
from recsys_rl.models.scorer import ScorerHead
from recsys_rl.models.shapes import HeadSizes, Shapes

Head = CandidateHead | DenseHead | ScorerHead | TwoTowerHead  # gated heads are two-tower heads


def make_head(name: str, shapes: Shapes, sizes: HeadSizes, generator: torch.Generator) -> Head:
    """The head ``name``; where observations bring the features of their alternatives, the one for those."""
    if shapes.candidates is not None:
        num_features = shapes.candidates.candidate_features
        num_rest = shapes.context_dim - shapes.action_sizes[0] * num_features
        return CandidateHead(sizes.num_hidden, num_rest, num_features, generator)
    if name == "dense":
        return DenseHead(sizes.num_hidden, shapes.action_sizes, generator, sizes.num_columns)
    if name == "scorer":
        assert shapes.embeddings is not None
        size, numbers = shapes.embeddings[0].stop - shapes.embeddings[0].start, len(shapes.numbers)
        of_inputs = sizes.num_hidden, sizes.num_blocks, sizes.num_item_features, size
        return ScorerHead(*of_inputs, generator, numbers, sizes.num_columns)
    if name == "gated" and shapes.layout is not None:
        return PatternHead(sizes, shapes.layout, generator)
    if name == "gated":
        assert shapes.kinds is not None
        return GatedHead(sizes, shapes.kinds, generator)
    return TwoTowerHead(sizes, generator)
