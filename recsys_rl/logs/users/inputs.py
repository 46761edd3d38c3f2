"""The inputs of a network of users: tables of the items, and sizes of the context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from recsys_rl.logs.users.network import ContextSizes, ItemTables
from recsys_rl.models.item_columns import item_columns
from recsys_rl.types import Catalogue, Interface
from recsys_rl.user_columns import UserColumns


def item_tables(catalogue: Catalogue, means: Tensor | None = None) -> ItemTables:
    """The tables of the items: embeddings, tags and attributes, then ``means``.

    ``means``: (I, S) of the signals in a log (item_means.py); None: without them.
    """
    columns = item_columns(catalogue)[:, :-1]  # without the constant
    columns = columns if means is None else torch.cat([columns, means], 1)
    vectors = (catalogue.embedding, catalogue.unit_tags)
    return ItemTables(tuple(table for table in vectors if table.shape[1]), columns)


def context_sizes(interface: Interface, given: Mapping[str, Tensor], catalogue: Catalogue) -> ContextSizes:
    """The sizes of the pieces that no session derives; the first one is the user's if it has that size.

    ``given``: these pieces, (..., size) each. The pieces of user_columns.py are read as columns of the items.
    """
    sizes = {name: values.shape[1] for name, values in given.items()}
    first = next((name for name, _ in interface.context), "")
    user = first if sizes.get(first) == catalogue.embedding.shape[1] else ""
    apart = interface.user_columns
    more = tuple((name, size) for name, size in sorted(sizes.items()) if name != user and name not in apart)
    pieces = tuple(piece for piece in interface.context if piece[0] in apart)
    columns = UserColumns.of(replace(interface, context=pieces), catalogue) if pieces else None
    return ContextSizes(user, more, interface.session_length, tuple(name for name, _ in pieces), columns)
