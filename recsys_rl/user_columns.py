"""Columns of the items for a user: the facts that a platform knows of this user and an item together.

That a user follows the author of a post, or owns a book, is a fact of the user and the item, and of neither
alone. A piece of the context with a name of the form COLUMN[ATTRIBUTE], such as ``follows[author]``, has one
number for each value 0 .. A - 1 of this attribute of the items, which holds whole numbers. The column is made
where items are scored::

    column(n, i) = piece(n)[attribute_i]        0 where attribute_i is not among 0 .. A - 1

So an observation stays small, (N, A), and the environment, a log and a server hold the piece as any other.
Each row of a rollout, a replay buffer or a log holds a float for each value: 13 kB with the creators of
10,000 items. Rankings, networks, reward models and equations make the column here, and read no piece of this
form as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys_rl.types import Catalogue, Interface, UserError


class UserColumns(nn.Module):
    """The F columns of an interface, for the items of a catalogue. A network that holds it moves it along."""

    index: Tensor

    def __init__(self, names: tuple[str, ...], places: tuple[slice, ...], index: Tensor) -> None:
        """
        Args:
            names: (F,), such as "follows".
            places: (F,), of their pieces in the context.
            index: (F, I) int64, the value of the attribute; -1 for none.
        """
        super().__init__()
        self.names, self.places = names, places
        self.register_buffer("index", index, persistent=False)

    @classmethod
    def of(cls, interface: Interface, catalogue: Catalogue) -> UserColumns:
        """The columns of these observations. Raises UserError if the items lack an attribute."""
        sizes, index = dict(interface.context), []
        for piece, (_, attribute) in interface.user_columns.items():
            values = catalogue.attributes.get(attribute)
            if values is None or values.is_floating_point():
                raise UserError(
                    f"The piece {piece!r} of the context has a number for each {attribute} of the items, and "
                    f"these have no attribute {attribute!r} of whole numbers: add it, or rename the piece."
                )
            known = (values >= 0) & (values < sizes[piece])
            index.append(torch.where(known, values.long(), -1))
        return cls(
            names=tuple(column for column, _ in interface.user_columns.values()),
            places=tuple(interface.place_of(piece) for piece in interface.user_columns),
            index=torch.stack(index) if index else catalogue.item_ids.new_zeros(0, catalogue.num_items),
        )

    def of_items(self, context: Tensor, items: Tensor | slice = slice(None)) -> list[Tensor]:
        """The F columns, (N, C) each, of the ``items`` (N, C), -1 as item 0; of a slice of all items.

        ``context`` (N, size) is that of an observation.
        """
        columns = []
        for span, index in zip(self.places, self.index.unbind(), strict=True):
            piece = torch.nn.functional.pad(context[:, span], (1, 0))  # (N, 1 + A): 0 for no value
            if isinstance(items, slice):
                columns.append(piece.index_select(1, index[items] + 1))
            else:
                columns.append(piece.gather(1, index[items.clamp_min(0)] + 1))
        return columns

    def scores(self, context: Tensor, weights: Tensor, items: Tensor | slice = slice(None)) -> Tensor:
        """The sum (N, C) of the columns times ``weights`` (N, F); arguments as in ``of_items``."""
        columns = self.of_items(context, items)
        return torch.stack([weights[:, f : f + 1] * column for f, column in enumerate(columns)]).sum(0)
