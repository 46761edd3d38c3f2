"""The columns of all tables that people give: how each is found, what its values are, and their rule.

One page for everything that reads tables: events (events.py), decisions (decision_table.py), probabilities of
a policy (target.py), logs of `recsys-rl record` (reader.py), and the description of any of them (survey.py).
docs/09_logs.md describes the columns of decisions, and docs/data.md those of events.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from recsys_rl.data.tables.values import Kind, number, truth, whole_number
from recsys_rl.errors import listed, short
from recsys_rl.types import UserError

ROUNDING = 1e-5
"""Largest error of a logarithm or of a sum of logarithms that counts as rounding."""
NO_COLUMN = "-"
"""The mark in place of a name: take no column for this role, also if one has a common name."""
_IDS = {
    "user": "user visitor customer member listener reviewer account viewer shopper",
    "item": "item product movie film video track song artist book article news game business content sku",
}


@dataclass(frozen=True)
class Column:
    """A column, or all columns whose names begin alike."""

    name: str  # a role, or the name in the file; a beginning of names ends with a point: "signal."
    kind: Literal["id", "whole", "number", "truth", "name"]
    sound: Callable[[pl.Expr], pl.Expr] | None = None  # True for a value that follows the rule
    sentence: str = ""  # the rule, after a wrong value and its row
    problem: str = ""  # what a column with wrong values "has" or "is", in a description
    common: str = ""  # names by which a role is found, without case and signs: `User_ID` is `userid`
    plain: str = ""  # the name that is taken even if other names fit too
    ranked: bool = False  # the first of the common names that the file has is taken, and none is ambiguous
    by_name: bool = False  # a table of decisions may have it, and it is found by this name alone
    field: str = ""  # of a DecisionLog; "" if a log of `recsys-rl record` has no such column
    # The values of the field: (E,), places of names (E,), log-probabilities (E,), lists of as many values as
    # the slate has places or the log has loggers, as the row has ids, or as the first row has.
    form: Literal["row", "logger", "chance", "places", "loggers", "ids", "entries"] = "row"

    @property
    def option(self) -> str:
        """The option that names the column of a role."""
        return f"--{self.name}-column"

    @property
    def tensor(self) -> str:
        """The type of the field: signals and contexts have single precision, probabilities double."""
        if self.kind != "number":
            return "bool" if self.kind == "truth" else "int64"
        return "float32" if self.name.endswith(".") else "float64"


def _with_ids(role: str) -> str:
    return " ".join(f"{noun} {noun}id" for noun in _IDS[role].split())


def _finite(cells: pl.Expr) -> pl.Expr:
    return cells.is_finite()


def _at_least_0(cells: pl.Expr) -> pl.Expr:
    return cells >= 0


def _above_0(cells: pl.Expr) -> pl.Expr:
    return cells > 0


def _share(cells: pl.Expr) -> pl.Expr:
    return cells.is_between(0, 1)


def _probability(cells: pl.Expr) -> pl.Expr:
    return (cells > 0) & (cells <= 1)


def _of_taken(cells: pl.Expr) -> pl.Expr:
    return cells.is_finite() & (cells <= ROUNDING)


def _logarithm(cells: pl.Expr) -> pl.Expr:
    return cells.is_not_nan() & (cells <= ROUNDING)


# Rules: True for a value that follows it, its words after a wrong value, and what a column with others has.
_COUNTS = _at_least_0, "steps are whole numbers from 0 on", "has no whole number from 0 on"
_PLACES = _at_least_0, "places of a list are whole numbers from 0 on", "has no whole number from 0 on"
_MOMENTS = _at_least_0, "moments of a stock are whole numbers from 0 on", "has no whole number from 0 on"
_OUTCOMES = _finite, "give every shown item its outcome", "has no finite number"
_OF_EVENTS = _finite, "give each event its outcome"
_NUMBERS = _finite, "give finite numbers", "has no finite number"
_RATINGS = _finite, "ratings are finite numbers", "has no finite number"
_WEIGHTS = _above_0, "weights are finite numbers above 0", "has no finite number above 0"
_CHANCES = _at_least_0, "a probability is at least 0", "is not a probability"
_SHARES = _share, "a probability lies in 0..1", "is not in 0..1"
_TAKEN = (
    _probability,
    "a probability is above 0 and at most 1, as the action was taken",
    "is not a probability above 0 and up to 1",
)
_LOGPROBS = (
    _of_taken,
    "a logarithm of a probability is a number up to 0",
    "is not a logarithm of a probability above 0 and up to 1",
)
_OF_OTHERS = _logarithm, "logarithms of probabilities are at most 0"
_TIMES = (
    "timestamp time datetime date ts unixtime timems timestampms createdat eventtime reviewtime "
    "unixreviewtime eventtimestamp"
)
_EVENTS = (
    "eventtype event eventname action actiontype behaviortype behaviourtype behavior behaviour "
    "interactiontype interaction kind"
)
_PROPENSITIES = (
    "propensity propensityscore pscore prob probability actionprob actionprobability logprob logpropensity "
    "logprobability actionlogprob"
)
_PLAYS = "weight plays playcount numplays listens listencount purchases"
_TITLES = "title name itemtitle itemname movietitle productname trackname artistname"
_TABLE = (
    # A log of `recsys-rl record` has its columns in this order.
    Column("user", "id", common=f"uid userno {_with_ids('user')}", plain="user", field="users"),
    Column("session", "id", common="session sessionid visit visitid episode", field="sessions"),
    Column("step", "whole", *_COUNTS, field="steps", by_name=True),
    Column("time", "whole", common=_TIMES, plain="timestamp", field="times"),
    Column("logger", "name", field="loggers", form="logger"),
    Column("items", "id", field="items", form="places"),
    Column("logprob", "number", *_LOGPROBS, field="logprobs", form="chance"),
    Column("place_logprobs", "number", field="place_logprobs", form="places", by_name=True),
    Column("logger_logprobs", "number", *_OF_OTHERS, field="logger_logprobs", form="loggers"),
    Column("list_place", "whole", *_PLACES, field="list_place", by_name=True),
    Column("candidates", "id", common="candidates couldbeshown", field="candidates", form="ids"),
    Column("exclude", "id", field="exclude", form="ids"),
    Column("signal.", "number", *_OUTCOMES, field="signals", form="places"),
    Column("event_items", "id", field="event_items", form="entries"),
    Column("event_signal.", "number", *_OF_EVENTS, field="event_signals", form="entries"),
    Column("context.", "number", *_NUMBERS, field="given", form="entries"),
    Column("stock", "whole", *_MOMENTS, by_name=True),  # of the items that a decision could show
    Column("terminated", "truth", field="terminated", by_name=True),
    Column("truncated", "truth", field="truncated", by_name=True),
    # The columns of other tables.
    Column("item", "id", common=f"iid asin isbn itemno {_with_ids('item')}", plain="item"),
    Column("rating", "number", *_RATINGS, "rating ratings stars score overall", "rating"),
    Column("weight", "number", *_WEIGHTS, _PLAYS, "weight"),
    Column("event", "name", common=_EVENTS, plain="event_type", ranked=True),
    Column("reward", "number", *_OUTCOMES, "reward rewards click isclick clicked"),
    Column("propensity", "number", *_TAKEN, _PROPENSITIES),
    Column("policy", "name", common="policy policyname loggingpolicy behaviorpolicy logger"),
    Column("title", "name", common=_TITLES, ranked=True),
    Column("genres", "name", common="genres genre categories category tags", ranked=True),
    Column("year", "name", common="year releaseyear releasedate published", ranked=True),
    # Of a policy that did not decide: the action may be impossible under it.
    Column("propensity.", "number", *_SHARES),
    Column("probability.", "number", *_CHANCES),
    Column("probabilities", "number", *_CHANCES, by_name=True),
)
COLUMNS = {column.name: column for column in _TABLE}
STORED = tuple(column for column in _TABLE if column.field)
"""The columns of a log of `recsys-rl record`, in their order: reader, writer, checksum and checks follow."""
EVENTS = ("user", "item", "time", "rating", "weight", "event")
"""The roles of a log of events."""
DECISIONS = ("user", "item", "time", "session", "reward", "propensity", "policy", "candidates")
"""The roles of a table of decisions."""
ROLES = (*EVENTS[:-1], *DECISIONS[3:], "event")
"""The roles of any log."""
ITEMS = ("title", "genres", "year")
"""The roles of a file about items, beside their ids; its other columns are attributes."""
BY_NAME = tuple(column.name for column in _TABLE if column.by_name)
"""Columns of a table of decisions that are found by this name alone; others have a role with common names."""
BY_START = ("signal.", "context.", "probability.", "propensity.")
"""Beginnings of the names of its columns for signals, pieces of context, items and policies."""
CONTEXT_HINT = " (what a policy knew is read from columns context.NAME)"
"""The end of a note about columns of decisions that are not read."""
_LOGARITHMS = ("logprob", "logpropensity", "logprobability", "actionlogprob")


def plain_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def common_names(role: str) -> list[str]:
    return COLUMNS[role].common.split()


def column_of(name: str) -> Column:
    """The entry of the table for a column of this name."""
    return COLUMNS.get(name) or COLUMNS[name.partition(".")[0] + "."]


def of_propensities(name: str) -> Column:
    """The entry for a column of propensities of this name, which may hold logarithms."""
    return COLUMNS["logprob" if plain_name(name) in _LOGARITHMS else "propensity"]


def named(names: Sequence[str], start: str) -> dict[str, str]:
    """The columns whose names begin with ``start``, by the rest of their names."""
    return {name.removeprefix(start): name for name in names if name.startswith(start)}


def value(cells: pl.Expr, kind: Kind, column: Column) -> pl.Expr:
    """The values of the column as Int64, Float64 or Boolean; null where a value is none."""
    if column.kind in ("whole", "id"):
        return whole_number(cells, kind)
    return truth(cells, kind) if column.kind == "truth" else number(cells, kind)


def follows(value: pl.Expr, column: Column) -> pl.Expr:
    """True where a ``value`` follows the rule of the column; False where it is null."""
    rule = value.is_not_null()
    return rule if column.sound is None else rule & column.sound(value).fill_null(False)


def find_columns(
    path: Path,
    names: Sequence[str],
    given: Mapping[str, str | None],
    roles: Sequence[str] = EVENTS,
    required: Collection[str] = ("user", "item"),
) -> dict[str, str]:
    """The name of each role's column.

    A column that is ``given`` for a role is looked for in no other. Roles without a column are left out, and
    those for which NO_COLUMN is given. Raises UserError, once for all columns: a named column does not exist,
    several names fit, or a required role has none.
    """
    columns, wrong = {}, []
    asked = [name for role in roles if (name := given.get(role)) is not None]
    lacking = [name for name in asked if name not in (*names, NO_COLUMN)]
    if lacking:
        wrong.append(f"it has no {'columns' if len(lacking) > 1 else 'column'} {listed(lacking)}")
    for role in roles:
        column, common = COLUMNS[role], common_names(role)
        fits = [name for name in names if plain_name(name) in common and name not in given.values()]
        plain = column.plain or role
        if given.get(role) == NO_COLUMN:
            fits = []
        if given.get(role) not in (None, NO_COLUMN):
            columns[role] = str(given[role])
        elif plain in fits or len(fits) == 1:
            columns[role] = plain if plain in fits else fits[0]
        elif fits and column.ranked:
            columns[role] = min(fits, key=lambda name: common.index(plain_name(name)))
        elif fits:
            wrong.append(f"{listed(fits)} may all hold the {role}: give {column.option}")
        elif role in required:
            wrong.append(f"it has no column for the {role}")
    if wrong:
        options = ", ".join(COLUMNS[role].option for role in roles)
        raise UserError(
            f"{path}: {'; '.join(wrong)}; its columns are {listed(names)}: name them with {options}."
        )
    twice = [name for name in dict.fromkeys(columns.values()) if list(names).count(name) > 1]
    if twice:
        raise UserError(f"{path} has more than one column {short(twice[0])}: rename or remove the others.")
    return columns


def columns_text(columns: Mapping[str, str]) -> str:
    """A text that names the column of each role; empty without columns."""
    parts = [role if name == role else f"{role} = {name}" for role, name in columns.items()]
    return f"columns: {', '.join(parts)}" if parts else ""


def not_read(names: Sequence[str], read: Collection[str], hint: str = "") -> str:
    """A note about the columns ``names`` that are not among those ``read``; empty if there are none."""
    others = [name for name in dict.fromkeys(names) if name not in read]
    return f"not read: {listed(others)}{hint}" if others else ""
