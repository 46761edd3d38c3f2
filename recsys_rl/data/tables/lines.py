"""Numbers of lines, as an editor shows them, in place of numbers of rows in messages about text files."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator

from recsys_rl.data.tables.read import TableFile
from recsys_rl.errors import UserError, one_line

_NUMBER = r"(\d{1,3}(?:,\d{3})+|\d+)"
# Quoted values of the file are left as they are; an apostrophe after a letter opens no quotation.
_ROWS = re.compile(rf"""(?<!\w)(?:'[^']*'|"[^"]*")|\b(Row|row)(s?) {_NUMBER}(?: and {_NUMBER})?\b""")


def in_lines(text: str, line: Callable[[int], int], word: str = "line") -> str:
    """``text`` with `line 5` for `row 4`, also `rows 4 and 7`; ``line`` of a row, both from 1.

    ``word``: the noun for what ``line`` numbers.
    """

    def put(match: re.Match[str]) -> str:
        row, plural, *numbers = match.groups()
        if row is None:
            return match[0]
        shown = [
            f"{line(int(number.replace(',', ''))):{',' if ',' in number else ''}}"
            for number in numbers
            if number is not None
        ]
        return f"{word.title() if row == 'Row' else word}{plural} {' and '.join(shown)}"

    return _ROWS.sub(put, text)


def about(table: TableFile, text: str, start: int = 0) -> str:
    """A message about rows of ``table``: with lines if it is a text file, with rows if it is Parquet.

    ``start``: rows of the file before those that the message counts from 1. The name of the file, with which
    it may begin, is left as it is.
    """
    if table.raw is None and not start:
        return text
    names = (str(table.path), one_line(table.path), one_line(table.path.name))
    head = next((name for name in names if text.startswith(name)), "")
    if table.raw is None:
        return head + in_lines(text.removeprefix(head), lambda row: row + start, "row")
    return head + in_lines(text.removeprefix(head), lambda row: table.line(row + start))


@contextlib.contextmanager
def lines_of(table: TableFile, start: int = 0) -> Iterator[None]:
    """Give errors inside the block, which number the rows of ``table``, the lines of a text file.

    ``start``: as of ``about``.
    """
    try:
        yield
    except UserError as error:
        text = str(error)
        said = about(table, text, start)
        if said == text:
            raise
        raise UserError(said) from error
