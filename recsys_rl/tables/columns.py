"""Find the columns of a log by common names, where the user names none."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from recsys_rl.errors import listed, short
from recsys_rl.types import UserError

OPTIONS = {
    "user": "--user-column",
    "item": "--item-column",
    "time": "--time-column",
    "rating": "--rating-column",
    "weight": "--weight-column",
    "event": "--event-column",
    **{role: f"--{role}-column" for role in ("session", "reward", "propensity", "policy", "candidates")},
}
NO_COLUMN = "-"
"""In place of a name: take no column for this role, also if one has a common name."""
PLAIN = {
    "user": "user",
    "item": "item",
    "time": "timestamp",
    "rating": "rating",
    "weight": "weight",
    "event": "event_type",
}
"""The name of each column that needs no search: it is taken even if other names fit too."""

_WITH_ID = {
    "user": "user visitor customer member listener reviewer account viewer shopper",
    "item": "item product movie film video track song artist book article news game business content sku",
}
_KINDS = (  # the first of these that the file has is taken
    *("eventtype", "event", "eventname", "action", "actiontype", "behaviortype", "behaviourtype", "behavior"),
    *("behaviour", "interactiontype", "interaction", "kind"),
)
COMMON = {
    "user": {"uid", "userno", *(n + s for n in _WITH_ID["user"].split() for s in ("", "id"))},
    "item": {"iid", "asin", "isbn", "itemno", *(n + s for n in _WITH_ID["item"].split() for s in ("", "id"))},
    "time": {
        *("timestamp", "time", "datetime", "date", "ts", "unixtime", "timems", "timestampms", "createdat"),
        *("eventtime", "reviewtime", "unixreviewtime", "eventtimestamp"),
    },
    "rating": {"rating", "ratings", "stars", "score", "overall"},
    "weight": {"weight", "plays", "playcount", "numplays", "listens", "listencount", "purchases"},
    "session": {"session", "sessionid", "visit", "visitid", "episode"},
    "reward": {"reward", "rewards", "click", "isclick", "clicked"},
    "propensity": {
        *("propensity", "propensityscore", "pscore", "prob", "probability", "actionprob"),
        *("actionprobability", "logprob", "logpropensity", "logprobability", "actionlogprob"),
    },
    "policy": {"policy", "policyname", "loggingpolicy", "behaviorpolicy", "logger"},
    "candidates": {"candidates", "couldbeshown"},
    "event": set(_KINDS),
}
"""Common names of each column, without case and signs: `User_ID` is `userid`."""

_LOGARITHMS = {"logprob", "logpropensity", "logprobability", "actionlogprob"}


def plain_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def is_logarithm(name: str) -> bool:
    """True if a column of propensities of this name holds logarithms."""
    return plain_name(name) in _LOGARITHMS


def not_read(names: Sequence[str], read: Collection[str], hint: str = "") -> str:
    """A note about the columns ``names`` that are not among those ``read``; empty if there are none."""
    others = [name for name in dict.fromkeys(names) if name not in read]
    return f"not read: {listed(others)}{hint}" if others else ""


def find_columns(
    path: Path,
    names: Sequence[str],
    given: Mapping[str, str | None],
    roles: Sequence[str] = tuple(PLAIN),
    required: Sequence[str] = ("user", "item"),
) -> tuple[dict[str, str], str]:
    """The name of each role's column, and a text that names them all.

    A column that is ``given`` for a role is looked for in no other. Roles without a column are left out, and
    those for which NO_COLUMN is given. Raises UserError, once for all columns: a named column does not exist,
    several names fit, or a required role has none.
    """
    found, wrong = {}, []
    named = [name for role in roles if (name := given.get(role)) is not None]
    lacking = [name for name in named if name not in (*names, NO_COLUMN)]
    if lacking:
        noun = "columns" if len(lacking) > 1 else "column"
        wrong.append(f"it has no {noun} {listed(lacking)}")
    for role in roles:
        fits = [x for x in names if plain_name(x) in COMMON[role] and x not in given.values()]
        plain = PLAIN.get(role, role)
        if given.get(role) == NO_COLUMN:
            fits = []
        if given.get(role) not in (None, NO_COLUMN):
            found[role] = str(given[role])
        elif plain in fits or len(fits) == 1:
            found[role] = plain if plain in fits else fits[0]
        elif fits and role == "event":
            found[role] = min(fits, key=lambda x: _KINDS.index(plain_name(x)))
        elif fits:
            wrong.append(f"{listed(fits)} may all hold the {role}: give {OPTIONS[role]}")
        elif role in required:
            wrong.append(f"it has no column for the {role}")
    if wrong:
        options = ", ".join(OPTIONS[role] for role in roles)
        raise UserError(
            f"{path}: {'; '.join(wrong)}; its columns are {listed(names)}: name them with {options}."
        )
    twice = [name for name in dict.fromkeys(found.values()) if list(names).count(name) > 1]
    if twice:
        raise UserError(f"{path} has more than one column {short(twice[0])}: rename or remove the others.")
    return found, columns_text(found)


def columns_text(columns: Mapping[str, str]) -> str:
    """A text that names the column of each role; empty without columns."""
    parts = [role if name == role else f"{role} = {name}" for role, name in columns.items()]
    return f"columns: {', '.join(parts)}" if parts else ""
