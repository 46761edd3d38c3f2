"""The options that name the columns of people's files, the same for every command that reads such a file."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import PurePath
from typing import Literal

from recsys_rl.data.tables.clean import Missing

FRAMES = "recsys-rl-frame-"
"""The beginning of the name of a folder with temporary files of data frames (frames.py)."""
A_FRAME = "the data frame"
_OF_FRAME = re.compile(r"frame-[0-9a-f]{16}\.parquet")  # the name of such a file, in a run's cache too


def log_name(path: str, number: int | None = None) -> str:
    """The path of a log for people, or the words for a data frame; ``number``: its place among several."""
    if not _OF_FRAME.fullmatch(PurePath(path).name):
        return path
    return A_FRAME if number is None else f"data frame {number}"


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """A file with users and items. A column that no option names is found by its name (schema.py)."""

    separator: str | None = None
    """Separator of a text file, or tab, comma, semicolon, pipe, space (default: found in the first line)."""
    user_column: str | None = None
    """Column of the user id (default: user, or the only column with a common name such as user_id). For this
    and the other columns, - stands for none."""
    item_column: str | None = None
    """Column of the item id (default: item, or the only column with a common name such as movie_id)."""

    @property
    def columns(self) -> dict[str, str | None]:
        """The given name of the column of each role."""
        names = [f.name for f in fields(self) if f.name.endswith("_column")]
        return {name.removesuffix("_column"): getattr(self, name) for name in names}

    @property
    def given(self) -> dict[str, str]:
        """The columns and the separator that are given, by the names of their fields."""
        by_field = {f"{role}_column": name for role, name in self.columns.items()} | {
            "separator": self.separator
        }
        return {field: value for field, value in by_field.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class TimedFile(FileOptions):
    """A file whose rows have times."""

    time_column: str | None = None
    """Column of the time (default: timestamp, or a common name). Without one, a hash of user and item draws
    the order of a user's events; a column of row numbers makes the order of the rows the time."""


@dataclass(frozen=True, kw_only=True)
class EventColumns(TimedFile):
    """A file of events."""

    rating_column: str | None = None
    """Column of the rating (default: rating, or a common name). Without one, every row is a like."""
    weight_column: str | None = None
    """Column of plays, seconds or purchases (default: weight, or a common name): the matrix factorisation
    trusts a like more if its weight is higher."""
    event_column: str | None = None
    """Column of the kind of event, for --event-weights (default: event_type, or a common name)."""


@dataclass(frozen=True, kw_only=True)
class EventFile(EventColumns):
    """A file of events from which likes are read."""

    event_weights: str | None = None
    """Weights of the kinds of events, as in view=0,cart=1,purchase=3. Events of a kind with weight 0 are left
    out, and each other one is a like with this weight. Default: every row is a like; beside a checkpoint, the
    option of the training, if the file has such a column."""
    missing: Missing = "refuse"
    """Rows without a user, item, time or rating: refuse the file, or drop the rows."""


@dataclass(frozen=True, kw_only=True)
class DecisionColumns(TimedFile):
    """A table of decisions."""

    session_column: str | None = None
    """Column of the session id. In a log of events, sessions of different users are different. Without one,
    each row is a session."""
    reward_column: str | None = None
    """Column of the reward of a decision."""
    propensity_column: str | None = None
    """Column of the probability with which the logging policy chose the item."""
    policy_column: str | None = None
    """Column of the name of the logging policy."""
    candidates_column: str | None = None
    """Column of the list of items that could be shown."""
    text_column: str | None = None
    """Columns context.NAME of texts that look like numbers, as postal codes: NAME, or several with commas. In
    a text file a column holds texts if fewer than half of its values are numbers; others have types."""


@dataclass(frozen=True, kw_only=True)
class DecisionFile(DecisionColumns):
    """A table of decisions that is read."""

    missing: Literal["fill", "refuse"] = "fill"
    """Cells of columns context.NAME without a value: fill (a number is the mean of the column, beside which
    stands an indicator, a text is a kind of its own, a list is zeros), or refuse the file."""

    @property
    def given(self) -> dict[str, str]:
        return super().given | ({} if self.missing == "fill" else {"missing": self.missing})
