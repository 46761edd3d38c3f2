"""Mistakes in the rows of tables: what a check found, and the sentence about it, which is written at the end.

A check gives a sentence with places in braces, and what stands there: a row, a column, a value. Whoever reads
the file knows the words for its rows and ids (``words_of``, ``names_of``), and hands them to the error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recsys_rl.data.tables.read import TableFile
from recsys_rl.errors import UserError, short

Words = Mapping[str, Callable[[Any], str]]
"""The words of a file for a number of each kind: "row" (from 1), "item", "session", "users" (two of them)."""
NUMBERS: Words = {
    "row": lambda row: f"row {row}",
    "item": lambda item: f"item {item}",
    "session": lambda session: f"session {session}",
    "users": lambda users: f"users {users[0]} and {users[1]}",
}


@dataclass(frozen=True)
class Finding:
    """The finding of a check: a sentence with places, and the value of each.

    Values named as in NUMBERS, and ``rows`` (two of them) and ``decision`` (step and session), are numbers,
    and the file's words for them stand in their places.
    """

    sentence: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def said(self, words: Words = NUMBERS) -> str:
        known = {**NUMBERS, **words}

        def text(name: str, value: Any) -> Any:
            if name == "rows":
                (noun, _, one), (*_, two) = (known["row"](row).partition(" ") for row in value)
                return f"{noun}s {one} and {two}"
            if name == "decision":
                session = known["session"](value[1])
                return f"step {value[0]} of {session}" if session.startswith("session") else session
            return known[name](value) if name in known else value

        return self.sentence.format(**{name: text(name, value) for name, value in self.values.items()})


def found(sentence: str, **values: Any) -> Finding:
    """``Finding`` with these values."""
    return Finding(sentence, values)


class TableError(UserError):
    """The findings of all checks of a table together."""

    def __init__(
        self, source: str, *findings: Finding, mends: Sequence[str] = (), words: Words | None = None
    ) -> None:
        """``source``: the name of the file; "" as long as it is unknown. ``mends``: of the findings."""
        super().__init__(source)
        self.source, self.findings, self.mends, self.words = source, findings, mends, words or {}

    def by(self, words: Words, source: str = "") -> TableError:
        """The error with words, and the name of the file, where it has none yet."""
        words = {**words, **self.words}
        return TableError(self.source or source, *self.findings, mends=self.mends, words=words)

    def __str__(self) -> str:
        texts = [finding.said(self.words) for finding in self.findings]
        several = f" has {len(texts)} problems" if len(texts) > 1 else ""
        text = ": ".join(filter(None, ["; ".join(texts), "; ".join(self.mends)])) + "."
        return f"{self.source}{several}: {text}" if self.source else text[:1].upper() + text[1:]

    def __reduce__(self) -> tuple[type[UserError], tuple[str]]:
        return UserError, (str(self),)  # in another process the sentence is enough


def wrong(source: str, sentence: str, **values: Any) -> TableError:
    """The error of one finding."""
    return TableError(source, Finding(sentence, values))


def words_of(table: TableFile, start: int = 0) -> Words:
    """The words for rows, as ``TableFile.place`` gives them. ``start``: rows before the first."""
    return {"row": lambda row: table.place(row + start)}


def names_of(
    words: Words,
    items: Sequence[str],
    sessions: Sequence[str] | None,
    users: Sequence[str] | Mapping[int, str] | None = None,
) -> Words:
    """``words`` for rows, and the ids of a file in place of numbers; without sessions each is a row."""

    def session(number: int) -> str:
        return words["row"](number + 1) if sessions is None else f"session {short(sessions[number])}"

    names = {"item": lambda item: f"item {short(items[item])}", "session": session}
    if users:
        names["users"] = lambda two: f"users {short(users[two[0]])} and {short(users[two[1]])}"
    return {**words, **names}


@contextlib.contextmanager
def in_words(words: Words) -> Iterator[None]:
    """Give errors inside the block these words, where they have none yet."""
    try:
        yield
    except TableError as error:
        raise error.by(words) from error
