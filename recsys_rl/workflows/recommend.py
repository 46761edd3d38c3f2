"""Recommendations of a trained policy for real people: users of the data, or new users from their likes."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint, check_algo
from recsys_rl.checkpoint import load as load_checkpoint
from recsys_rl.data.embeddings import Floats, fold_in, unit_rows
from recsys_rl.errors import UserError
from recsys_rl.lookup import DEFAULT_ALGO
from recsys_rl.protocols import Reader, ReadingPolicy
from recsys_rl.run import agent_of
from recsys_rl.schema import Count, check_fields, shown
from recsys_rl.session import PIECES, Session
from recsys_rl.types import Action, Obs
from recsys_rl.utils.files import check_writable, write_bytes

BLOCK = 256  # users scored together


@dataclass(frozen=True)
class RecommendConfig:
    """Recommendations for one user, for a new user, or for many users."""

    checkpoint: str = f"checkpoints/{DEFAULT_ALGO}.pt"
    """The file with the policy, the catalogue and the users."""
    algo: str | None = None
    """Reject a checkpoint of another algorithm."""
    env: str | None = None
    """Environment of the checkpoint. Required if its name holds a module to import."""
    user: str | None = None
    """Id of one user of the data."""
    like: tuple[str, ...] = ()
    """Title of an item that a new user likes, or a beginning that only one title has."""
    users: str | None = None
    """File of user ids, one in each line; or all."""
    out: str | None = None
    """Parquet file for the recommendations of many users."""
    k: Count = 10
    """Items for each user."""
    allow: str | None = None
    """File of item ids, one in each line: recommend only these."""
    block: str | None = None
    """File of item ids, one in each line: recommend none of them."""

    def __post_init__(self) -> None:
        check_fields(self)


class Recommendation(NamedTuple):
    """One place of a list of recommendations."""

    item: int | str  # the item's id in the data
    title: str
    probability: float  # the policy's probability of showing this item next


class Recommender:
    """A trained policy with its catalogue and its users. It needs no environment."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.catalogue, self.population = checkpoint.world
        agent: Any = agent_of(checkpoint)  # of any algorithm
        self.agent = agent
        self.model: Any = self.agent.model

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
        """The item factors (I, D) of the matrix factorisation, and YᵀY (D, D) over all its items."""
        embedding, known = self.catalogue.embedding.double(), self.catalogue.factors
        if not known:
            return embedding.numpy(), None
        return (known["norm"].double().unsqueeze(1) * embedding).numpy(), known["gram"].double().numpy()

    @cached_property
    def _titles(self) -> list[str]:
        """The titles of all items, in lower case for comparison."""
        return [self.catalogue.title(row).casefold() for row in range(self.catalogue.num_items)]

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        """The action of the policy for N observations, as in ``Policy``."""
        action: Action = self.agent.act(obs, greedy)
        return action

    def reader(self) -> Reader | None:
        """The state of its encoder for N users who act, as in ``ReadingPolicy``."""
        return self.agent.reader() if isinstance(self.agent, ReadingPolicy) else None

    def recommend(
        self,
        user: int | str | None = None,
        *,
        likes: Sequence[int | str] = (),
        history: Sequence[int | str] = (),
        k: int = 10,
        allow: Sequence[int | str] | None = None,
        block: Sequence[int | str] = (),
    ) -> list[Recommendation]:
        """The ``k`` items that the policy shows next to one person with the highest probability, best first.

        Args:
            user: id of a user of the data, a number or a string as in the data; None for a new user.
            likes: liked items of a new user: ids, or titles (a beginning that only one title has is enough).
            history: items already shown in this session, latest last; each counts as consumed in full.
            allow: ids of the only items that may be shown; None for all.
            block: ids of items that may not be shown.

        Raises UserError for unknown users and items, and if fewer than ``k`` items are left.
        """
        if (user is None) == (not likes):
            raise UserError("A recommendation needs either a user or likes: give one of them.")
        profile = self.profile_of(likes) if user is None else self._profiles([user])
        shown = [self.item(item) for item in history]
        again = () if self.checkpoint.interface.repeats else shown
        mask = self.mask(k, allow, [*block, *(self.catalogue.id_of(row) for row in again)])
        return next(self._best(self._among(self._request(profile, shown, mask), allow), k))

    def for_users(
        self,
        users: Sequence[int | str],
        k: int = 10,
        allow: Sequence[int | str] | None = None,
        block: Sequence[int | str] = (),
    ) -> Iterator[list[Recommendation]]:
        """``recommend`` for many users of the data, one list after another."""
        mask = self.mask(k, allow, block)
        for start in range(0, len(users), BLOCK):
            profiles = self._profiles(users[start : start + BLOCK])
            obs = self._among(self._request(profiles, [], mask), allow)
            yield from self._best(obs, k)

    def profile_of(self, likes: Sequence[int | str]) -> Tensor:
        """(1, D): the profile of a new user, folded in from the liked items (data/embeddings.py).

        For the same likes it is the profile of the data: the item factors lie in the checkpoint. Without
        factors (made-up users), the embeddings take their place.
        """
        return self.fold_in([self.item(item) for item in ([likes] if isinstance(likes, str) else likes)])

    def fold_in(self, items: Sequence[int]) -> Tensor:
        """(1, D): the profile of a user who likes the items in these rows of the catalogue."""
        row = csr_matrix(
            (np.ones(len(items), np.float32), (np.zeros(len(items), int), items)),
            shape=(1, self.catalogue.num_items),
        )
        row.data[:] = 1  # a title given twice is one like
        factors, gram = self._factors
        return unit_rows(fold_in(row, factors, gram=gram))

    @torch.inference_mode()
    def scores(self, profiles: Tensor, allowed: Tensor) -> Tensor:
        """(N, I): the policy's logits of the first place at the start of a session.

        Items that the first stage of a two-stage policy does not propose have the same, lowest score.
        """
        obs = self._request(profiles, [], allowed)
        obs = self.model.propose(obs, True, torch.Generator())
        policy, _ = self.model(obs)
        logits = policy.logits[:, 0].clamp_min(-1e30)
        if obs.candidates is None:
            return torch.as_tensor(logits)
        scores = logits.new_full((len(profiles), self.catalogue.num_items + 1), -1e30)
        places = torch.where(obs.candidates < 0, self.catalogue.num_items, obs.candidates)
        return torch.as_tensor(scores.scatter(1, places, logits)[:, :-1])

    def item(self, item: int | str) -> int:
        """The row of the item with this id or title. Raises UserError if none or several match."""
        known = self.row_of_item.get(item if isinstance(item, str) else int(item))
        if known is not None:
            return known
        if not isinstance(item, str):
            raise UserError(f"There is no item with the id {item} in the catalogue: give another.")
        text = item.casefold()
        exact = [row for row, title in enumerate(self._titles) if title == text]
        found = exact or [row for row, title in enumerate(self._titles) if title.startswith(text)]
        if len(found) == 1:
            return found[0]
        if not found:
            inside = [row for row, title in enumerate(self._titles) if text in title]
            near = f": did you mean {self._listed(inside)}?" if inside else ": give another."
            raise UserError(f"No title begins with {shown(item)}{near}")
        names = self._listed(found) + (" ..." if len(found) > 5 else "")
        raise UserError(f"{len(found)} titles begin with {shown(item)}: give more of one of them ({names}).")

    def _listed(self, rows: Sequence[int]) -> str:
        """The titles of the first five of these rows."""
        return "; ".join(self.catalogue.title(row) for row in rows[:5])

    def mask(self, k: int, allow: Sequence[int | str] | None, block: Sequence[int | str]) -> Tensor:
        """(1, I) bool: the items that may be shown."""
        if k < 1:
            raise UserError(f"k is {k}: it must be at least 1.")
        mask = self.catalogue.available.clone()
        if allow is not None:
            allowed = torch.zeros_like(mask)
            allowed[[self.item(item) for item in allow]] = True
            mask &= allowed
        mask[[self.item(item) for item in block]] = False
        left = int(mask.sum())
        if left < k:
            raise UserError(f"Only {left} items may be shown, but k is {k}: lower k, or allow more items.")
        return mask.unsqueeze(0)

    def _profiles(self, users: Sequence[int | str]) -> Tensor:
        """The profiles (N, D) of users of the data."""
        for user in users:
            if user not in self.row_of_user:
                raise UserError(
                    f"There is no user with the id {shown(user)} in the data: give another id, or "
                    "titles that a new user likes."
                )
        return self.population.profile[[self.row_of_user[user] for user in users]]

    def _request(self, profiles: Tensor, history: Sequence[int], mask: Tensor) -> Obs:
        interface = self.checkpoint.interface
        session = Session.begin(interface, self.catalogue, torch.arange(len(profiles)))
        places = torch.arange(interface.slate_size).expand(len(profiles), -1)  # (N, K)
        for item in history:  # each item in the first place of its own slate
            items = torch.full_like(places, item)
            signals = torch.ones(*places.shape, len(interface.signals))
            session = session.record(items, signals, skipped=places > 0)
        first, *others = (name for name, _ in interface.context if name not in PIECES)
        if others:
            raise UserError(
                f"The policy needs more than the profile of a user ({', '.join(others)}), and only the "
                "environment has these: recommend with a policy of another platform."
            )
        return session.request({first: profiles}, mask.expand(len(profiles), -1))

    def _among(self, obs: Obs, allow: Sequence[int | str] | None) -> Obs:
        """For a two-stage policy, the allowed items as candidates: its search could miss them."""
        if allow is None or self.model.retriever is None or obs.mask is None:
            return obs
        rows = obs.mask[0].nonzero().squeeze(1)  # the same for all users
        return obs.among(rows.expand(obs.num_rows, -1))

    @torch.inference_mode()
    def _best(self, obs: Obs, k: int) -> Iterator[list[Recommendation]]:
        obs = self.model.propose(obs, True, torch.Generator())
        policy, _ = self.model(obs)
        left = int((policy.logits[:, 0] > -torch.inf).sum(1).min())
        if left < k:
            raise UserError(
                f"The first stage of this policy proposes {left} items that may be shown, but k is {k}: "
                "lower k, or name the items (allow)."
            )
        # A slate has one vector of logits for all places. These are the probabilities of the first place.
        top = policy.logits.flatten(1).softmax(-1).topk(min(k, policy.logits.shape[-1]), -1)  # (N, k)
        probabilities, items = top.values, obs.items_at(top.indices)
        for ps, rows in zip(probabilities.tolist(), items.tolist(), strict=True):
            yield [
                Recommendation(self.catalogue.id_of(row), self.catalogue.title(row), p)
                for p, row in zip(ps, rows, strict=True)
            ]


def load(path: str | Path = f"checkpoints/{DEFAULT_ALGO}.pt", env: str | None = None) -> Recommender:
    """Load the policy of a checkpoint on the CPU, to act and to recommend.

    ``env`` is the name of its environment. It is required only if the name holds a module to import. Raises
    UserError for a file that is no whole checkpoint.
    """
    return Recommender(load_checkpoint(path, env))


def recommend(options: RecommendConfig) -> None:
    """Print the recommendations, or write those of many users to a Parquet file. Raises UserError."""
    given = [options.user is not None, bool(options.like), options.users is not None]
    if sum(given) != 1:
        raise UserError("Give one of --user ID, --like TITLE and --users FILE.")
    if (options.users is None) != (options.out is None):
        raise UserError("--users and --out belong together: give both, or neither.")
    if options.out is not None:
        check_writable(Path(options.out), "--out")
    recommender = load(options.checkpoint, options.env)
    if options.algo is not None:
        check_algo(Path(options.checkpoint), recommender.checkpoint, options.algo)
    if recommender.checkpoint.world.is_empty:
        raise UserError(f"{options.checkpoint} has no catalogue of items to recommend from.")
    names_items = bool(recommender.catalogue.item_names)
    allow = None if options.allow is None else _ids(options.allow, "--allow", names_items)
    block = [] if options.block is None else _ids(options.block, "--block", names_items)
    names_users = bool(recommender.population.user_names)
    if options.users is None or options.out is None:
        user = None if options.user is None else _id(options.user, "--user", names_users)
        found = recommender.recommend(user, likes=options.like, k=options.k, allow=allow, block=block)
        for place, (item, title, probability) in enumerate(found, 1):
            print(f"{place:>3}  {probability:7.2%}  {title}  (id {item})")
        return
    users = recommender.users if options.users == "all" else _ids(options.users, "--users", names_users)
    lists = list(recommender.for_users(users, options.k, allow, block))
    write_bytes(Path(options.out), _parquet(users, lists))
    print(f"{len(users):,} users: {options.out}", file=sys.stderr)


def _parquet(users: Sequence[int | str], lists: Sequence[Sequence[Recommendation]]) -> bytes:
    """A Parquet file with a row for each user and place: user, place (from 1), item, title, probability."""
    import polars as pl

    items = [row[0].item for row in lists if row]
    rows = [
        (user, place, *row)
        for user, its in zip(users, lists, strict=True)
        for place, row in enumerate(its, 1)
    ]
    of_users, of_items = (
        pl.String if row and isinstance(row[0], str) else pl.Int64 for row in (users, items)
    )
    types = (of_users, pl.Int32, of_items, pl.String, pl.Float32)
    names = ("user", "place", *Recommendation._fields)
    file = io.BytesIO()
    pl.DataFrame(rows, dict(zip(names, types, strict=True)), orient="row").write_parquet(file)
    return file.getvalue()


def _ids(path: str, option: str, names: bool) -> list[int | str]:
    """The ids in a file, one in each line: strings as they are if ``names``, else whole numbers."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{option} {path} can't be read ({error}): give a file of ids.") from error
    rows = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise UserError(f"{option} {path} holds no ids: give one in each line.")
    return [_id(line, f"{option} {path}, line {number}", names) for number, line in rows]


def _id(text: str, where: str, names: bool) -> int | str:
    if not names and not text.isdecimal():
        raise UserError(f"{where}: {shown(text)} is no id: give whole numbers.")
    return text if names else int(text)
