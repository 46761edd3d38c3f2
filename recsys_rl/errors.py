"""Exceptions for mistakes that the user can mend, and texts of their messages. It imports no torch."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """A mistake in the user's input, in one sentence: what is wrong, where, and how to mend it.

    The commands print the sentence without a traceback and exit with code 2.
    """


class FieldError(UserError):
    """A value that a setting can't have. The command prints the option's name in place of the field's."""

    def __init__(self, field: str, complaint: str) -> None:
        """``field`` is section.name, or only a name if it has no section; the message adds ``complaint``."""
        super().__init__(field, complaint)  # both: a copy in another process is made from them
        self.field = field
        self.option = "--" + field.rpartition(".")[2].replace("_", "-")
        self.complaint = complaint

    def __str__(self) -> str:
        return f"{self.field} {self.complaint}"


def error_text(error: Exception) -> str:
    """The text of an error, without the path of its file: messages name the path themselves."""
    return getattr(error, "strerror", None) or str(error)


def one_line(text: object) -> str:
    """``text`` as one line for a terminal: control characters become escapes, a long text loses its middle.

    File names and data from elsewhere may contain control sequences of the terminal.
    """
    line = str(text)
    if len(line) > 2_000:
        line = f"{line[:1_500]} ... {line[-400:]}"
    return printable(line)


def printable(text: object) -> str:
    """``text`` with escapes in place of control characters, also of ends of lines."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in str(text))


def amount(number: int, noun: str) -> str:
    """``1 user``, ``2,000 users``; ``noun`` is the singular."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def short(value: object) -> str:
    """A value of a file as one short line; the value may have many lines."""
    if isinstance(value, str):
        return repr(value[:37] + "..." if len(value) > 40 else value)
    text = repr(value)
    return text[:37] + "..." if len(text) > 40 else text


def listed(names: Sequence[str]) -> str:
    """The first 20 names, and the number of all if there are more."""
    most = 20
    return ", ".join(map(short, names[:most])) + (f" ... ({len(names):,})" if len(names) > most else "")
