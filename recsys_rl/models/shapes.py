"""The sizes of an environment and its items that networks are built from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from recsys_rl.functional.patterns import Layout
from recsys_rl.models.features import SplitFeatures
from recsys_rl.models.item_columns import NUMBERS
from recsys_rl.types import Interface
from recsys_rl.user_columns import UserColumns


@dataclass(frozen=True)
class Shapes:
    """The sizes and tables of an environment from which a network is built."""

    context_dim: int  # F
    action_sizes: tuple[int, ...]  # alternatives of each position: (I,) for one item of a catalogue
    # (I, F_i): models.item_columns.item_features; in two tables if the policy chooses from candidates
    item_features: Tensor | SplitFeatures | None = None
    history_length: int = 0  # L; 0 if observations have no history
    num_signals: int = 0  # S
    available: Tensor | None = None  # (I,) bool: items that the first stage may propose; None without one
    slate_size: int = 1  # K: items of one catalogue shown together
    # Slices of the context that lie in the space of item embeddings; None: its two halves.
    embeddings: tuple[slice, ...] | None = None
    # The interface whose observations bring the features of their alternatives along; None for other ones.
    candidates: Interface | None = None
    numbers: tuple[str, ...] = NUMBERS  # columns of the item features between the tags and the constant 1
    kinds: Tensor | None = None  # (I,): models.heads.item_kinds, for the gated head
    layout: Layout | None = None  # models.heads.slate_layout, for the gated head of slates with patterns
    # Columns of the items for each user, from pieces of the context that the hidden layers do not read.
    user_columns: UserColumns | None = None
    profile: bool = True  # the first of the embeddings is the user's


@dataclass(frozen=True)
class HeadSizes:
    """The sizes from which a head builds itself."""

    num_inputs: int  # numbers that the hidden layers read
    num_hidden: int  # their outputs h
    num_blocks: int  # inputs in the space of item features
    num_item_features: int  # F_i
    num_columns: int  # outputs of the last layer that a head leaves alone: gates of the user's columns
