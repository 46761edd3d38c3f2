"""The columns of the table beside the return: one entry each, which console and page read.

``evaluation.table`` computes the numbers by their ``key``; means over seeds take each number of a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recsys_rl.evaluation.report.drawing import finite


@dataclass(frozen=True)
class Column:
    """A column of the table."""

    key: str
    short: str  # its head on the console
    head: str  # on the page
    meaning: str  # with {session} and {items}
    width: int  # on the console
    share: bool = False  # in per cent

    def text(self, row: Mapping[str, Any]) -> str:
        """The cell on the console; blank without a number."""
        value = row.get(self.key)
        if value is None or not finite(value):
            return " " * self.width
        return f"{f'{value:.1%}' if self.share else f'{value:.1f}':>{self.width}}"


def _retention(day: int) -> Column:
    meaning = f"Retention: share of the users who are active on day {day} after their first day."
    return Column(f"d{day}", f"D{day}", f"D{day}", meaning, 8, True)


COLUMNS = (
    Column("length_mean", "length", "Length", "Mean number of steps of {session}.", 7),
    Column("distinct_mean", "distinct", "Distinct", "Mean number of different {items} in {session}.", 10),
    Column(
        "coverage", "coverage", "Coverage", "Share of the catalogue that was shown to any user.", 10, True
    ),
    Column("active_days", "days", "Active days", "Mean number of days with a visit, of 35 at most.", 7),
    *map(_retention, (1, 7, 30)),
    Column("churn", "churn", "Churn", "Share of the users who stay away for more than 30 days.", 8, True),
)


def known(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """The columns with a number in some row."""
    return [column for column in COLUMNS if any(finite(row.get(column.key)) for row in rows)]
