"""Items in time: the items that could be shown at a moment, and the row of an id in the catalogue then.

A row of a catalogue is an item as it was known for a while, [since, until). Where more becomes known of an
item, its row ends and another one of the same id begins, so an id has at most one row at a moment. Moments
are whole numbers on one clock: of a log's column `stock`, the number of the last change of the items before
a decision, as exports of a record have it; or of its times, in microseconds.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from recsys_rl.types import Catalogue

STOCK, TIMES = ("stock_from", "stock_to"), ("available_from", "available_to")
"""Columns of a file of items, and attributes of a catalogue: the first moment at which an item could be
shown, and the first at which it could no more."""
ALWAYS, NEVER = -(1 << 62), 1 << 62
"""The moment before all others, and the one that does not come."""

Clock = Literal["", "stock", "time"]
"""The clock of the moments; "": each item could be shown at any time."""
COLUMNS: dict[Clock, tuple[str, str]] = {"stock": STOCK, "time": TIMES}


def clock_of(catalogue: Catalogue) -> Clock:
    """The clock by which the items come and go in a log."""
    return next((clock for clock, names in COLUMNS.items() if names[0] in catalogue.attributes), "")


@dataclass(frozen=True, eq=False)
class ItemTimeline:
    """The rows of a catalogue in time; I rows."""

    ids: tuple[int | str, ...]  # (I,)
    since: Tensor  # (I,) int64: the first moment at which the row could be shown
    until: Tensor  # (I,) int64: the first at which it could no more; NEVER while it can
    clock: Clock

    @classmethod
    def of(cls, catalogue: Catalogue) -> ItemTimeline:
        """The timeline of a catalogue. Without a clock each row could be shown at any time."""
        number, clock = catalogue.num_items, clock_of(catalogue)
        ids = catalogue.item_names or tuple(catalogue.item_ids.tolist())
        if clock:
            since, until = (catalogue.attributes[name] for name in COLUMNS[clock])
        else:
            since, until = (torch.full((number,), end) for end in (ALWAYS, NEVER))
        return cls(ids, since, until, clock)

    @property
    def attributes(self) -> dict[str, Tensor]:
        """The attributes of a catalogue with this timeline; {} without a clock."""
        if not self.clock:
            return {}
        return dict(zip(COLUMNS[self.clock], (self.since, self.until), strict=True))

    def available_at(self, moments: Tensor) -> Tensor:
        """(E, I) bool: the rows that could be shown at each of the moments (E,)."""
        return self.could_show(slice(None), moments.unsqueeze(1))

    def could_show(self, rows: Tensor | slice, moments: Tensor) -> Tensor:
        """(n,) bool: whether each of the ``rows`` (n,) could be shown at its moment (n,)."""
        return (self.since[rows] <= moments) & (moments < self.until[rows])

    @cached_property
    def available_now(self) -> Tensor:
        """(I,) bool: the rows without an end."""
        return self.until == NEVER

    @cached_property
    def row_of(self) -> dict[int | str, int]:
        """The last row of each id."""
        return {id_: row for row, id_ in enumerate(self.ids)}

    @cached_property
    def first_rows(self) -> Tensor:
        """(I,) int64: the first row with the id of each row."""
        first: dict[int | str, int] = {}
        return torch.tensor([first.setdefault(id_, row) for row, id_ in enumerate(self.ids)])

    @cached_property
    def _several(self) -> list[Tensor]:
        """The rows of each id that has more than one: the last row first."""
        rows: dict[int, list[int]] = {}
        for row, id_ in enumerate(self.ids):
            if (last := self.row_of[id_]) != row:
                rows.setdefault(last, [last]).append(row)
        return [torch.tensor(own) for own in rows.values()]

    def rows_at(self, rows: Tensor, moments: Tensor) -> Tensor:
        """(n,) int64: the row that could be shown at each moment (n,), of the ids that have ``rows`` (n,).

        ``rows`` are the last ones of their ids (``row_of``), and so is the answer where none could be shown.
        """
        found = rows.clone()
        for own in self._several:
            places = (rows == own[0]).nonzero().squeeze(1)
            if len(places):
                found[places] = own[self.could_show(own, moments[places, None]).int().argmax(1)]
        return found

    @cached_property
    def distinct(self) -> tuple[int | str, ...]:
        """The ids, each once, in the order of their first rows."""
        return tuple(dict.fromkeys(self.ids))

    def ids_available_at(self, moments: Tensor) -> Tensor:
        """(E, number of ``distinct``) bool: the ids that could be shown at each of the moments (E,)."""
        column = self.first_rows.unique(return_inverse=True)[1]  # (I,)
        counts = torch.zeros(len(moments), len(self.distinct))
        return counts.index_add(1, column, self.available_at(moments).float()) > 0

    def of_same_ids(self, rows: Tensor) -> Tensor:
        """(E, I) bool: all rows of the ids that have one in ``rows`` (E, I)."""
        first = self.first_rows
        return torch.zeros(rows.shape).index_add(1, first, rows.float())[:, first] > 0


def without_gone(catalogue: Catalogue) -> Catalogue:
    """The catalogue in which items that are gone count as never there.

    An item of which more is known by now stands in several rows: it is not gone by its former ones.
    """
    timeline = ItemTimeline.of(catalogue)
    stays = timeline.of_same_ids(timeline.available_now.unsqueeze(0))[0]
    never = dataclasses.replace(timeline, until=timeline.until.masked_fill(~stays, ALWAYS))
    return dataclasses.replace(catalogue, attributes={**catalogue.attributes, **never.attributes})
