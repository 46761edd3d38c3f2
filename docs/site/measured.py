"""The rows of the chapters' measured tables in which a name stands."""

from __future__ import annotations

import re
from dataclasses import dataclass

from docs.site.chapters import FENCE, ROOT, menu

TABLE = re.compile(r"^<!-- table:[\w-]+ -->\n((?:\|.*\n)+)", re.MULTILINE)


@dataclass(frozen=True)
class Found:
    """A table with the rows of one name alone."""

    chapter: str
    heading: str  # of the section that has the table
    text: str  # Markdown


def rows_of(name: str) -> list[Found]:
    """The rows whose cells begin with ``name`` or ``name-greedy``, or quote it; all rows if a column does."""
    word = re.compile(rf"^\W*{re.escape(name)}(-greedy)?(?![\w-])|`{re.escape(name)}`")
    found = []
    for chapter in (chapter for chapters in menu().values() for chapter in chapters):
        text = (ROOT / "docs" / f"{chapter}.md").read_text(encoding="utf-8")
        for table in TABLE.finditer(text):
            head, line, *rows = (cells(row) for row in table[1].splitlines())
            if not any(word.search(cell) for cell in head[1:]):
                rows = [row for row in filled(rows) if any(word.search(cell) for cell in row)]
            if rows:
                above = FENCE.sub("", text[: table.start()])
                heading = re.findall(r"^##+ (.+)$", above, re.MULTILINE)[-1]
                lines = [f"| {' | '.join(row)} |" for row in (head, line, *rows)]
                found.append(Found(chapter, heading, "\n".join(lines)))
    return found


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def filled(rows: list[list[str]]) -> list[list[str]]:
    """The rows with the first cells of the row above where theirs are empty."""
    full: list[list[str]] = []
    for row in rows:
        first = next((k for k, cell in enumerate(row) if cell), 0)
        full.append([*(full[-1][:first] if full else row[:first]), *row[first:]])
    return full


def measured(name: str) -> str:
    """A section with these tables, as Markdown; a sentence if there is none."""
    tables = [
        f"From [{heading(found.heading)}](../{found.chapter}.md#{anchor(found.heading)}):\n\n{found.text}"
        for found in rows_of(name)
    ]
    return "## Measured\n\n" + ("\n\n".join(tables) or "No table of the chapters has a row of this name.")


def heading(title: str) -> str:
    return title.replace("[", "\\[").replace("]", "\\]")


def anchor(title: str) -> str:
    """The anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
