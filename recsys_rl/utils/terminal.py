"""Print lines that hold texts of data."""

from __future__ import annotations

from recsys_rl.errors import printable


def say(line: object) -> None:
    """Print one line, with escapes in place of control characters: data may hold those of a terminal."""
    print(printable(line))
