"""Contexts that a caller gives by the names of their pieces, for a policy of a team's own log."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.data.tables.context_rows import encoded
from recsys_rl.data.tables.pieces import Piece
from recsys_rl.data.tables.values import LIST, is_gap
from recsys_rl.errors import UserError, short


def pieces_of(checkpoint: Checkpoint) -> tuple[Piece, ...] | None:
    """The pieces of the context that a caller gives; None if the platform makes all of them."""
    tables = checkpoint.config.platform.tables
    return None if tables is None else tuple(tables.pieces(checkpoint.config.env_config))


def given_context(checkpoint: Checkpoint, context: Mapping[str, object] | None) -> dict[str, Tensor]:
    """The tensors (1, size) of a context, {} for a policy that takes none.

    Raises UserError for a missing, wrong or unknown piece, and for a context that has no effect.
    """
    pieces = pieces_of(checkpoint)
    if pieces is None:
        if context is not None:
            raise UserError(
                f"The policies of {checkpoint.config.env} take no context: give a user, or likes."
            )
        return {}
    return {name: row.unsqueeze(0) for name, row in encoded(pieces, context or {}).items()}


def parse_context(pieces: Sequence[Piece], texts: Sequence[str]) -> dict[str, object]:
    """The context of texts NAME=VALUE; numbers of a list are separated as in tables. Raises UserError."""
    by_name, context = {piece.name: piece for piece in pieces}, {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals:
            raise UserError(f"--context {short(text)} is not NAME=VALUE: give one, as in --context age=0.3.")
        if name in context:
            raise UserError(f"--context names {short(name)} twice: give one value.")
        piece = by_name.get(name)
        context[name] = None if piece is not None and is_gap(value) else _value(piece, value.strip())
    return context


def _value(piece: Piece | None, text: str) -> object:
    """The value of a text by the kind of its piece; the text itself if it has no such value."""
    if piece is None or piece.kind == "text":
        return text
    truths = {"true": True, "false": False}
    entries = [entry.strip() for entry in re.split(LIST, text.strip("[] "))]
    try:
        numbers = [truths[x.lower()] if x.lower() in truths else float(x) for x in entries]
    except ValueError:
        return text
    return numbers if piece.kind == "list" or len(numbers) > 1 else numbers[0]
