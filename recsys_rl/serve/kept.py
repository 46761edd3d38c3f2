"""One person's visit between two draws, as bytes.

To split a batch of visits into their small tensors, and to put these together again, took a third of the time
of a draw. A view would keep the rows of all others in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from recsys_rl.recommender import Visit
from recsys_rl.session import Session


class Kept(NamedTuple):
    """The row of one person in the tensors of a batch."""

    like: Visit  # of one row, the batch's first: its checkpoint, shapes and types
    row: bytes


def kept(visits: Visit) -> list[Kept]:
    """Each person's visit."""
    columns = [x for x in _columns(visits) if x is not None]
    number = len(visits.session.users)
    parts = [x.reshape(number, x.shape[1:].numel()).contiguous().view(torch.uint8) for x in columns]
    whole = torch.cat(parts, 1)  # (N, bytes)
    width, content = whole.shape[1], whole.numpy().tobytes()
    like = _of(visits, [None if x is None else x[:1].clone() for x in _columns(visits)])
    return [Kept(like, content[at : at + width]) for at in range(0, len(content), width)]


def together(visits: Sequence[Kept]) -> Visit:
    """The visits as the rows of one, in their order. They are of one checkpoint."""
    like, number = visits[0].like, len(visits)
    content = bytearray().join([x.row for x in visits])
    whole = torch.frombuffer(content, dtype=torch.uint8).view(number, -1)  # (N, bytes)
    columns, at = list[Tensor | None](), 0
    for x in _columns(like):
        if x is None or not x.nbytes:  # without visible signals there are no bytes to view
            columns.append(None if x is None else x.new_empty(number, *x.shape[1:]))
            continue
        # A copy: x's type may not begin at any byte.
        part = whole[:, at : at + x.nbytes].clone(memory_format=torch.contiguous_format)
        columns.append(part.view(x.dtype).view(number, *x.shape[1:]))
        at += x.nbytes
    return _of(like, columns)


def _columns(visits: Visit) -> list[Tensor | None]:
    session = visits.session
    own = [session.users, session.steps, session.history, session.signals, session.shown_items]
    # By name: a platform may list what is known in another order after a step than before the first.
    return [*own, session.visit, session.day, *(visits.known[name] for name in sorted(visits.known))]


def _of(like: Visit, columns: Sequence[Tensor | None]) -> Visit:
    """The visits with these tensors. ``tree_map`` and ``replace`` would take three times as long."""
    session = Session(like.session.interface, like.session.catalogue, *columns[:7])  # type: ignore[arg-type]
    return Visit(like.checkpoint, session, dict(zip(sorted(like.known), columns[7:], strict=True)))  # type: ignore[arg-type]
