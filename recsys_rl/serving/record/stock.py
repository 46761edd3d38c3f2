"""The stock of a team's own place: the items that are there, and those that were, from rows of the record.

Items are rows of the record and share its count of numbers, so a decision saw exactly the items with lower
numbers. An item that comes is an addition, and gets the next row of the catalogue; one that goes is a
withdrawal, and its row is given to no other. What is known of an item changes by a withdrawal and an addition
with the same id. The server, a replay and an export fold the same rows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from recsys_rl.data.tables.item_encoding import Features, StockItem
from recsys_rl.data.timeline import NEVER, ItemTimeline
from recsys_rl.serving.record.record_schema import ItemChange


class Change(NamedTuple):
    """What a request changes: items that come or are known otherwise now, and rows that go."""

    add: Sequence[StockItem]
    withdraw: Sequence[int]


@dataclass(frozen=True)
class Stock:
    """The items by their rows."""

    added: tuple[ItemChange, ...] = ()  # by row
    gone: tuple[int, ...] = ()  # by row: the number of the withdrawal, or NEVER
    changes: tuple[int, ...] = ()  # the numbers of all changes, ascending
    _masks: dict[int, Tensor] = field(default_factory=dict, compare=False, repr=False)  # by moment

    def after(self, changes: Sequence[ItemChange]) -> Stock:
        """The stock after these changes, in the order of their numbers."""
        added, gone = [*self.added], [*self.gone]
        for change in changes:
            if change.kind == "withdraw":
                gone[change.row] = change.number
            else:
                added.append(change)
                gone.append(NEVER)
        numbers = (*self.changes, *(change.number for change in changes))
        return Stock(tuple(added), tuple(gone), numbers)

    def until(self, number: int) -> Stock:
        """The stock of the changes up to this number."""
        added = tuple(item for item in self.added if item.number <= number)
        gone = tuple(end if end <= number else NEVER for end in self.gone[: len(added)])
        return Stock(added, gone, tuple(change for change in self.changes if change <= number))

    @property
    def num_rows(self) -> int:
        """I: rows that were given"""
        return len(self.added)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """The row of each item that is there, by its id."""
        return {item.id: row for row, item in enumerate(self.added) if self.gone[row] == NEVER}

    @cached_property
    def ids(self) -> frozenset[str]:
        """The ids of all items, also of those that are gone."""
        return frozenset(item.id for item in self.added)

    @cached_property
    def items(self) -> list[StockItem]:
        """The items by their rows; each counts as live, as the timeline tells which may be shown."""
        return [StockItem(item.id, item.title, item.features) for item in self.added]

    @cached_property
    def timeline(self) -> ItemTimeline:
        """The items in time: a moment is the number of the last change of the items before a decision."""
        since = torch.tensor([item.number for item in self.added], dtype=torch.int64)
        until = torch.tensor(self.gone, dtype=torch.int64)
        return ItemTimeline(tuple(item.id for item in self.added), since, until, "stock")

    def moment_of(self, number: int) -> int:
        """The moment of the decision with this number."""
        changes = bisect_left(self.changes, number)
        return self.changes[changes - 1] if changes else 0

    def available_at(self, moment: int) -> Tensor:
        """(I,) bool: the items that could be shown at this moment; each moment is computed once."""
        if moment not in self._masks:
            self._masks[moment] = self.timeline.available_at(torch.tensor([moment]))[0]
        return self._masks[moment]

    @property
    def same_item(self) -> Tensor | None:
        """(I,) int64: the first row with the id of the item; None where no id stands in two rows."""
        return None if len(self.ids) == self.num_rows else self.timeline.first_rows

    def last_known(self, id_: str) -> tuple[str, Features] | None:
        """``facts_of``, also of an item that is gone: those of its last row."""
        row = self.timeline.row_of.get(id_)
        return None if row is None else (self.added[row].title, self.added[row].features)

    def facts_of(self, id_: str) -> tuple[str, Features] | None:
        """The title and the features of the item with this id that is there; None without one."""
        row = self.row_of.get(id_)
        return None if row is None else (self.added[row].title, self.added[row].features)


def changes_of(stock: Stock, change: Change, number: Callable[[], int], now: float) -> list[ItemChange]:
    """The rows of a change, with the next numbers: withdrawals, then additions.

    An item that is there already is withdrawn first, as what is known of it changes.
    """
    known = stock.row_of
    gone = [*change.withdraw, *(known[str(item.id)] for item in change.add if str(item.id) in known)]
    rows = [ItemChange(number(), row, "withdraw", stock.added[row].id, now, "", {}) for row in gone]
    for row, item in enumerate(change.add, stock.num_rows):
        rows.append(ItemChange(number(), row, "add", str(item.id), now, item.title, {**item.features}))
    return rows
