"""The items and the users of a checkpoint by their ids and titles, and the profiles of people."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.data.embeddings import Floats, fold_in, item_factors, user_vectors
from recsys_rl.errors import UserError
from recsys_rl.settings.fields import shown
from recsys_rl.types import Catalogue

NAMED = 5  # titles in a message
NEAREST = 3  # of a misspelt title
ALIKE = 0.6  # difflib's ratio from which a title is near


class Directory:
    """The items and users of a checkpoint by the ids and titles that people type."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.catalogue, self.population = checkpoint.world

    @cached_property
    def row_of_item(self) -> dict[int | str, int]:
        """The row of each item id."""
        names = self.catalogue.item_names
        return {id_: row for row, id_ in enumerate(names or self.catalogue.item_ids.tolist())}

    @cached_property
    def row_of_user(self) -> dict[int | str, int]:
        """The row of each user id."""
        names = self.population.user_names
        return {id_: row for row, id_ in enumerate(names or self.population.user_ids.tolist())}

    @property
    def users(self) -> list[int | str]:
        """The ids of all users of the data."""
        return list(self.row_of_user)

    @cached_property
    def _factors(self) -> tuple[Floats, Floats | None]:
        return item_factors(self.catalogue)

    @cached_property
    def _titles(self) -> Titles:
        return Titles(self.catalogue)

    @property
    def knows_likes(self) -> bool:
        """False for a checkpoint of an earlier version, which lacks what its users like in the data."""
        return bool(self.population.likes) or not self.catalogue.factors

    def mask_of(
        self,
        user: int | str | None,
        likes: Sequence[int | str],
        history: Sequence[int | str],
        allow: Sequence[int | str] | None,
        block: Sequence[int | str],
        again: bool,
    ) -> Tensor:
        """(1, I) bool: the items that may be shown to one person; arguments as in ``recommend``."""
        mask = self.allowed(allow, block)
        if not again:
            mask[[self.item(item) for item in ([likes] if isinstance(likes, str) else likes)]] = False
        if not again or not self.checkpoint.interface.repeats:
            mask[[self.item(item) for item in history]] = False
        if user is not None and not again:
            self.check_users([user])
            mask[self.population.likes_of(torch.tensor([self.row_of_user[user]]))[1]] = False
        return mask.unsqueeze(0)

    def _check_catalogue(self) -> None:
        if self.checkpoint.world.is_empty:
            raise UserError(
                f"This policy of {self.checkpoint.config.env} has no catalogue of items to recommend from: "
                "give observations to act in place of users."
            )

    def profile_of(self, likes: Sequence[int | str]) -> Tensor:
        """(1, D): the profile of a new user, folded in from the liked items (data/embeddings.py).

        For the same likes it is the profile of the data: the item factors lie in the checkpoint. Without
        factors (made-up users), the embeddings take their place.
        """
        return self.fold_in([self.item(item) for item in ([likes] if isinstance(likes, str) else likes)])

    def nearest(
        self,
        likes: Sequence[int | str],
        k: int,
        allow: Sequence[int | str] | None = None,
        block: Sequence[int | str] = (),
        again: bool = False,
    ) -> list[str]:
        """The titles of the ``k`` items nearest to a new profile: what matrix factorisation shows.

        Arguments as in ``recommend``. Beside a policy's list they tell what it adds to the taste alone.
        """
        scores = self.catalogue.embedding @ self.profile_of(likes)[0]  # (I,)
        allowed = self.mask_of(None, likes, (), allow, block, again)[0]
        best = scores.masked_fill(~allowed, -torch.inf).topk(k).indices
        return [self.catalogue.title(row) for row in best.tolist()]

    def fold_in(self, items: Sequence[int]) -> Tensor:
        """(1, D): the profile of a user who likes the items in these rows of the catalogue."""
        row = csr_matrix(
            (np.ones(len(items), np.float32), (np.zeros(len(items), int), items)),
            shape=(1, self.catalogue.num_items),
        )
        row.data[:] = 1  # a title given twice is one like
        factors, gram = self._factors
        return user_vectors(self.catalogue, fold_in(row, factors, gram=gram))

    def item(self, item: int | str) -> int:
        """The row of the item with this id or title.

        Raises UserError if none or several match, and for a value that is neither a whole number nor a text.
        """
        try:
            row = self.row_of_item.get(item if isinstance(item, str) else operator.index(item))
        except TypeError:
            raise UserError(f"{shown(item)} is no item: give an id or a title.") from None
        if row is not None:
            return row
        if not isinstance(item, str):
            raise UserError(f"There is no item with the id {item} in the catalogue: give another.")
        return self._titles.row(item)

    def allowed(self, allow: Sequence[int | str] | None, block: Sequence[int | str]) -> Tensor:
        """(I,) bool: the available items among ``allow``, None for all, without ``block``."""
        mask = self.catalogue.available.clone()
        if allow is not None:
            allowed = torch.zeros_like(mask)
            allowed[[self.item(item) for item in allow]] = True
            mask &= allowed
        mask[[self.item(item) for item in block]] = False
        return mask

    def check_users(self, users: Sequence[int | str]) -> None:
        """Raise UserError, one for all of them, if users are unknown."""
        unknown = [user for user in users if user not in self.row_of_user]
        if unknown and len(users) == 1:
            raise UserError(
                f"There is no user with the id {shown(unknown[0])} among those whom training kept (users "
                "with enough likes): give another id, or titles that this user likes."
            )
        if unknown:
            first = ", ".join(map(shown, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
            are, them = ("is", "it") if len(unknown) == 1 else ("are", "them")
            raise UserError(
                f"{len(unknown):,} of {len(users):,} users {are} not among those whom training kept (users "
                f"with enough likes): {first}; leave {them} out."
            )

    def profiles_of(self, users: Sequence[int | str]) -> Tensor:
        """The profiles (N, D) of users of the data."""
        self.check_users(users)
        return self.population.profile[[self.row_of_user[user] for user in users]]


class Titles:
    """Items by title: a whole title, a beginning that only one title has, or else the nearest titles.

    Case is disregarded.
    """

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
