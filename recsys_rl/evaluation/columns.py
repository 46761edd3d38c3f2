"""The columns of the table beside the return: one entry each.

From an entry follow the number in a row of the table and in its JSON, its mean over seeds, the column on the
console, on the page and in its definitions, and with ``each`` the values of the sessions in JSON and CSV.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from recsys_rl.experience.rollout import Sessions
from recsys_rl.objective.limit_streams import EARLY, creators_of, groups
from recsys_rl.types import Catalogue

Value = Tensor | float
"""A value for each session (N,), of which the table has the mean, or a number."""
Of = Callable[[Sessions, Catalogue], Value | Mapping[str, Value] | None]
"""The value of a column, or the values of a group by name; None: there is no such column."""


@dataclass(frozen=True)
class Column:
    """A column of the table, or a group of columns with names that depend on the platform."""

    key: str  # in the rows of JSON
    of: Of
    head: str = ""  # on the page, of a group "{name}"; "": a picture of the page has it
    meaning: str = ""  # with {session} and {items}
    short: str = ""  # its head on the console, if that is not ``head`` in small letters
    width: int = 10  # on the console
    digits: int | None = 1  # after the point; None: those of the return
    share: bool = False  # in per cent
    each: str = ""  # the name of the values of the sessions, in CSV, and with an "s" in JSON; "" not there
    member: str = ""  # of a group, the name of this column

    @property
    def console_head(self) -> str:
        return self.short or self.head.lower()

    def value(self, row: Mapping[str, Any]) -> Any:
        """The number in a row of the table; None without one."""
        value = row.get(self.key)
        return value.get(self.member) if self.member and value is not None else value

    def digits_beside(self, digits: int) -> int:
        """Digits after the point in a table whose returns have ``digits``."""
        return digits if self.digits is None else self.digits

    def text(self, row: Mapping[str, Any], digits: int = 3) -> str:
        """The cell on the console; blank without a number. ``digits``: those of the return."""
        value = self.value(row)
        if value is None or not math.isfinite(value):
            return " " * self.width
        shown = f"{value:.1%}" if self.share else f"{value:.{self.digits_beside(digits)}f}"
        return f"{shown:>{self.width}}"


def distinct_items(items: Tensor) -> Tensor:
    """The number of different items shown to each user: (T, N, K) with padding -1 -> (N,)."""
    ordered = items.transpose(1, 2).flatten(0, 1).sort(0).values  # (T K, N)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return (new & (ordered >= 0)).sum(0)


def coverage(sessions: Sessions, catalogue: Catalogue) -> float:
    """Share of the catalogue that was shown to at least one user; NaN without a catalogue."""
    shown = len(sessions.items[sessions.items >= 0].unique())
    return shown / catalogue.num_items if catalogue.num_items else math.nan


def active_days(days: Tensor) -> Tensor:
    """(N,) int64: number of different days in ``days`` (T, N), which never fall; -1 after the end."""
    new = torch.ones_like(days, dtype=torch.bool)
    new[1:] = days[1:] != days[:-1]
    return (new & (days >= 0)).sum(0)


def retained(sessions: Sessions, day: int) -> Tensor | None:
    """(N,) bool: the user is active on this day after the first day; None if that is unknown for some user.

    It is unknown for a life that was cut after its largest number of visits, before ``day``.
    """
    days = sessions.days
    assert days is not None
    cut = ~sessions.left & (active_days(days) >= sessions.visits)  # (N,)
    if bool((cut & (days.amax(0) < day)).any()):
        return None
    return (days == day).any(0)


def limit_streams(sessions: Sessions, catalogue: Catalogue) -> dict[str, Value]:
    """The streams of limits, as limits measure them (objective/limit_streams.py)."""
    items, means = sessions.items.to(catalogue.popularity.device), dict[str, Value]()  # (T, N, K)
    for name, group in groups(catalogue).items():
        amounts, bases = group.count(items)
        means[name] = (amounts.double().sum() / bases.double().sum()).item()
    return means | {EARLY: sessions.left if sessions.left_early is None else sessions.left_early}


def creator_gini(sessions: Sessions, catalogue: Catalogue) -> float | None:
    """``gini`` of the times that each creator was shown; an item without a creator is one of its own."""
    if not catalogue.num_items:
        return None
    creators, items = creators_of(catalogue), sessions.items.to(catalogue.popularity.device)
    shown = creators[items[items >= 0]]
    return gini(shown[shown >= 0].bincount(minlength=int(creators.max()) + 1))


def gini(counts: Tensor) -> float:
    """The Gini coefficient of counts (n,): 0 if all are equal, 1 - 1/n if one has everything; NaN of zeros.

    With x ascending it is sum_i (2 i - n - 1) x_i / (n sum_i x_i).
    """
    x = counts.double().sort().values
    n = len(x)
    ranks = 2 * torch.arange(1, n + 1, dtype=x.dtype, device=x.device) - n - 1
    return ((ranks * x).sum() / (n * x.sum())).item()


def _streams(sessions: Sessions, catalogue: Catalogue) -> dict[str, Value] | None:
    """The sums of the reward streams where there are several."""
    several = len(sessions.streams) > 1
    return {name: values.sum(0) for name, values in sessions.streams.items()} if several else None


def _lengths(sessions: Sessions, catalogue: Catalogue) -> Value:
    return sessions.lengths


def _distinct(sessions: Sessions, catalogue: Catalogue) -> Value:
    return distinct_items(sessions.items)


def _days(sessions: Sessions, catalogue: Catalogue) -> Value | None:
    return None if sessions.days is None else active_days(sessions.days)


def _churn(sessions: Sessions, catalogue: Catalogue) -> Value | None:
    return None if sessions.days is None else sessions.left


def _retention(day: int) -> Column:
    def there(sessions: Sessions, catalogue: Catalogue) -> Value | None:
        if sessions.days is None:
            return None
        active = retained(sessions, day)
        return math.nan if active is None else active

    meaning = f"Retention: share of the users who are active on day {day} after their first day."
    return Column(f"d{day}", there, f"D{day}", meaning, f"D{day}", 8, share=True)


CHURN = "Share of the users who stay away for more than 30 days."
STREAM = "Mean sum of this kind of reward over {session}, without its weight."
COLUMNS = (
    Column("length_mean", _lengths, "Length", "Mean number of steps of {session}.", width=7, each="length"),
    Column("distinct_mean", _distinct, "Distinct", "Mean number of different {items} in {session}."),
    Column(
        "coverage", coverage, "Coverage", "Share of the catalogue that was shown to any user.", share=True
    ),
    Column(
        "active_days", _days, "Active days", "Mean number of days with a visit, of 35 at most.", "days", 7
    ),
    *map(_retention, (1, 7, 30)),
    Column("churn", _churn, "Churn", CHURN, width=8, share=True),
    Column("limit_streams", limit_streams),
    Column("creator_gini", creator_gini),
    Column("streams", _streams, "{name}", STREAM, digits=None, each="stream"),
)


def numbers_of(sessions: Sessions, catalogue: Catalogue) -> dict[str, Any]:
    """The numbers of one row of the table, by the keys of the columns: floats, and dicts of them."""

    def mean(value: Value) -> float:
        return value.double().mean().item() if isinstance(value, Tensor) else value

    values = {column.key: column.of(sessions, catalogue) for column in COLUMNS}
    return {
        key: {name: mean(one) for name, one in value.items()} if isinstance(value, Mapping) else mean(value)
        for key, value in values.items()
        if value is not None
    }


def values_of_each(sessions: Sessions, catalogue: Catalogue) -> dict[str, Any]:
    """The values (N,) of the sessions by ``Column.each``, or dicts of them by name."""
    values = {column.each: column.of(sessions, catalogue) for column in COLUMNS if column.each}
    return {name: value for name, value in values.items() if value is not None}


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """The columns that some row has; a group of columns is one for each of its names."""
    columns: list[Column] = []
    for column in COLUMNS:
        found = [row[column.key] for row in rows if column.key in row]
        names = dict.fromkeys(name for value in found if isinstance(value, Mapping) for name in value)
        if names and column.head:
            columns += [
                replace(column, head=name, short=name, member=name, width=max(10, len(name) + 2))
                for name in names
            ]
        elif found and column.head:
            columns.append(column)
    return columns
