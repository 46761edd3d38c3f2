"""Items by title: a whole title, a beginning that only one title has, or else the nearest titles."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from recsys_rl.errors import UserError
from recsys_rl.settings.fields import shown
from recsys_rl.types import Catalogue

NAMED = 5  # titles in a message
NEAREST = 3  # of a misspelt title
ALIKE = 0.6  # difflib's ratio from which a title is near


class Titles:
    """The titles of a catalogue, found without regard to case."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.folded = [catalogue.title(row).casefold() for row in range(catalogue.num_items)]

    def row(self, title: str) -> int:
        """The row of the item with this title or beginning. Raises UserError if none or several match."""
        text = title.casefold()
        exact = [row for row, known in enumerate(self.folded) if known == text]
        rows = exact or [row for row, known in enumerate(self.folded) if known.startswith(text)]
        if len(rows) == 1:
            return rows[0]
        if not rows:
            near = self.near(text)
            mend = f": did you mean {self._listed(near)}?" if near else ": give another."
            raise UserError(f"No title begins with {shown(title)}{mend}")
        names = self._listed(rows) + (" ..." if len(rows) > NAMED else "")
        raise UserError(f"{len(rows)} titles begin with {shown(title)}: give more of one of them ({names}).")

    def near(self, text: str) -> list[int]:
        """The rows of the titles with all words of ``text``, the most popular first, or of the most alike.

        A title is as alike as its beginning of the same length.
        """
        words = text.split()
        with_all = [row for row, known in enumerate(self.folded) if all(word in known for word in words)]
        if with_all and words:
            return sorted(with_all, key=lambda row: -float(self.catalogue.popularity[row]))[:NAMED]
        beginnings: dict[str, int] = {}
        for row, known in enumerate(self.folded):
            beginnings.setdefault(known[: len(text)], row)
        return [
            beginnings[beginning]
            for beginning in difflib.get_close_matches(text, list(beginnings), NEAREST, ALIKE)
        ]

    def _listed(self, rows: Sequence[int]) -> str:
        return "; ".join(self.catalogue.title(row) for row in rows[:NAMED])
