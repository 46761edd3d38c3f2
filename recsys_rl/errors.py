"""The exceptions for mistakes that are the user's to mend; they need no tensors, so `--help` stays fast."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in what the user gave us: one sentence that says what, where, and how to mend it.

    The commands print it and exit with code 2; no traceback.
    """


class FieldError(UserError):
    """A value that a field of the settings can't have; the command calls the field by its option's name."""

    def __init__(self, field: str, complaint: str) -> None:
        """``field`` is section.name, or a name alone where it stands in no section; ``complaint`` follows."""
        super().__init__(field, complaint)  # both, so that another process can be told
        self.field = field
        self.option = "--" + field.rpartition(".")[2].replace("_", "-")
        self.complaint = complaint

    def __str__(self) -> str:
        return f"{self.field} {self.complaint}"


def one_line(text: object) -> str:
    """``text`` as one line for a terminal: control characters become escapes, a long text loses its middle.

    File names and data of others may hold sequences that a terminal would obey.
    """
    line = str(text)
    if len(line) > 2_000:
        line = f"{line[:1_500]} ... {line[-400:]}"
    return "".join(x if x.isprintable() else repr(x)[1:-1] for x in line)
